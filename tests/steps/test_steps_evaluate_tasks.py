"""An evaluation over benchmarks, from a recipe: generated, judged, rated and lm-eval tasks; then two runs compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_rows import write_mirror

from w2s_align.errors import UserError
from w2s_align.evaluation import Results
from w2s_align.evaluation.task import TaskChoice, TaskSampling
from w2s_align.runs import Run, recipe_from_text
from w2s_align.steps.evaluate import Evaluate
from w2s_align.terminal.compare import arms_of, differences, open_runs

RECIPE = """\
name: {name}
seed: 0
steps:
  model: {{kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 1, batch_size: 2}}
  tuned: {{kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 1, batch_size: 2, seed: 4}}
  scores:
    kind: evaluate
    data_dir: {mirror}
    tasks: [{{name: gsm8k, limit: 3, sampling: {{max_tokens: 4, temperature: 1, n: 3}}}},
            {{name: lab/addition, limit: 2, sampling: {{max_tokens: 4}}}}, {{name: truthfulqa, limit: 3}},
            {{name: alpaca_eval, limit: 3, sampling: {{max_tokens: 4, temperature: 1}}}}{more}]
    judge: $model
    judging: {{reference: {reference}, template: "{{prompt}} {{first}} {{second}}", engine: {{name: transformers}},
               sampling: {{temperature: 0, max_tokens: 2}}}}
    arms: {{before: $model, dpo: {dpo}}}
    roles: {{before: student, dpo: treatment}}
    baseline: before
    best_of: ["feature:chars"]
    engine: {{name: transformers}}
  report: {{kind: report, of: $scores}}
"""


def written(name: str, mirror: Path, more: str = "", dpo: str = "$tuned", reference: str = "task") -> str:
    return RECIPE.format(name=name, dpo=dpo, mirror=mirror, more=more, reference=reference)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def runs(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Two runs of nearly the same recipe; the second finds all answers there."""
    root = tmp_path_factory.mktemp("runs")
    (mirror / "mine").mkdir(exist_ok=True)
    rows = [{"question": f"Add {i}", "answer": "7"} for i in range(3)]
    (mirror / "rows.json").write_text(json.dumps(rows))
    (mirror / "mine" / "own.yaml").write_text(
        f"task: own\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {mirror}/rows.json}}}}\ntest_split: "
        f"test\n"
        'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        "generation_kwargs: {until: [], do_sample: false, max_gen_toks: 4}\n"
        "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n"
    )
    more = f", {{name: lm_eval/own, include_path: {mirror}/mine}}"
    first = recipe_from_text(written("a", mirror, more)).run(root)
    recipe_from_text(written("b", mirror, more, dpo="$model")).run(root)
    return root, first


def test_tasks_of_all_kinds_become_one_result(runs: tuple[Path, Run]) -> None:
    scores = runs[1].artifact("scores")
    results = Results.model_validate_json((scores.path / "results.json").read_text())
    assert results.tasks == ["gsm8k", "lab/addition", "truthfulqa", "alpaca_eval", "lm_eval/own"]
    assert results.settings == ["standard"]
    by_task = next(b for b in results.breakdowns if b.by == "task")
    assert [part.problems for part in by_task.parts] == [3, 2, 3, 3, 3]
    rated = by_task.parts[2].arms["before"].estimate.value
    assert 0 < rated < 1  # a share of probability, no verdict
    assert results.arm("before").settings["standard"].answers == 3 * 3 + 2 + 3 + 3 + 3
    table = scores.table("scores")
    assert set(table["scorer"].to_pylist()) == {"numeric", "auto", "mc2", "judge:model", "lm_eval:exact_match"}
    assert [(r.arm, r.task, sum(r.outcomes.values())) for r in results.win_rates] == [
        ("before", "alpaca_eval", 3),
        ("dpo", "alpaca_eval", 3),
    ]
    assert runs[1].report is not None
    page = runs[1].report.read_text()
    assert "By task" in page and "truthfulqa" in page
    assert "model-index" in (runs[1].artifact("report").path / "cards" / "tuned.md").read_text()


def test_a_task_is_loaded_once_and_shared_by_the_arms(runs: tuple[Path, Run]) -> None:
    kinds = [node["kind"] for node in runs[1].state["nodes"].values()]
    assert kinds.count("task") == 4
    assert (kinds.count("generate"), kinds.count("likelihood"), kinds.count("lm_eval")) == (6, 2, 2)
    assert kinds.count("preference") == 2


def test_where_data_lie_is_no_part_of_the_key(mirror: Path, runs: tuple[Path, Run], tmp_path: Path) -> None:
    moved = write_mirror(tmp_path / "elsewhere")
    more = f", {{name: lm_eval/own, include_path: {mirror}/mine}}"
    plan = recipe_from_text(written("a", moved, more)).plan(runs[0])
    assert plan["scores"].status == "cached"


def test_the_baselines_answers_can_be_the_reference(mirror: Path, runs: tuple[Path, Run]) -> None:
    more = f", {{name: lm_eval/own, include_path: {mirror}/mine}}"
    run = recipe_from_text(written("own", mirror, more, reference="baseline")).run(runs[0])
    results = Results.model_validate_json((run.artifact("scores").path / "results.json").read_text())
    before = results.win_rates[0]
    assert (before.arm, before.outcomes, before.raw.value, before.controlled.value) == ("before", {"tie": 3}, 0.5, 0.5)


def test_two_runs_are_compared(runs: tuple[Path, Run], capsys: pytest.CaptureFixture[str]) -> None:
    from w2s_align.evaluation.run_comparison import compare_studies
    from w2s_align.terminal.show import show_comparison

    opened = open_runs(["a", "b"], runs[0])
    assert differences(opened) == {"scores.arms.dpo": ["$tuned", "$model"]}
    rows = {row.arm: row for row in compare_studies(arms_of(opened)).rows}
    assert rows["before"].cells[1].same
    assert rows["dpo"].cells[1].difference is not None
    show_comparison(["a", "b"], runs[0], None, None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["options"] == {"scores.arms.dpo": ["$tuned", "$model"]}
    show_comparison(["a", "b"], runs[0], None, runs[0] / "page", as_json=False)
    assert "scores.arms.dpo" in capsys.readouterr().out
    assert "same scores" in (runs[0] / "page" / "report.html").read_text()


def test_what_cannot_be_compared(runs: tuple[Path, Run]) -> None:
    for targets, message in ((["a"], "two runs"), (["a", "a"], "named twice"), (["a", "c"], "There is no run")):
        with pytest.raises(UserError, match=message):
            open_runs(targets, runs[0])
    with pytest.raises(UserError, match="no finished evaluation other"):
        open_runs(["a", "b"], runs[0], "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tasks: [", "tasks: [mmul, "), "There is no task mmul"),
        (("tasks: [", "tasks: [gsm8k, "), "stands there twice"),
        (
            ('best_of: ["feature:chars"]', "sampling: {greedy: {temperature: 0, max_tokens: 9}}"),
            "whole evaluation and for gsm8k",
        ),
        (('best_of: ["feature:chars"]', "suite: tulu"), "Did you mean tulu3"),
        (("tasks: [", "prompts: $nothing\n    tasks: ["), "which is not a step"),
        (("judge: $model", ""), "alpaca_eval needs a judge"),
        (("reference: task", "reference: task, gamed: nowhere.csv"), "nowhere.csv cannot be read"),
        (("reference: task", "reference: baseline, gamed: nowhere.csv"), "compared with those of the baseline"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(change: tuple[str, str], message: str, mirror: Path) -> None:
    text = written("a", mirror).replace(*change)
    with pytest.raises(UserError, match=message):
        recipe_from_text(text)


@pytest.mark.parametrize(
    ("tasks", "sampling"),
    [
        ("[{name: humaneval, sampling: {temperature: 0.6, max_tokens: 8}}]", ""),
        ("[{name: humaneval, sampling: {temperature: 0.6, max_tokens: 8, n: 9}}]", ""),
        ("[humaneval]", "    sampling: {drawn: {temperature: 0.6, max_tokens: 8, n: 4}}\n"),
    ],
)
def test_pass_at_k_of_fewer_answers_is_refused_with_its_line(tasks: str, sampling: str, mirror: Path) -> None:
    text = (
        "name: few\nsteps:\n  scores:\n    kind: evaluate\n"
        f"    data_dir: {mirror}\n    tasks: {tasks}\n{sampling}"
        "    arms: {before: some/model}\n    roles: {before: student}\n    baseline: before\n"
    )
    with pytest.raises(
        UserError, match=r":[34].*humaneval: pass@10 needs 10 answers to a problem, and sampling.* draws \d"
    ):
        recipe_from_text(text)


def test_pass_at_k_of_enough_answers_is_taken(mirror: Path) -> None:
    few = Evaluate(
        data_dir=str(mirror),
        tasks=[{"name": "humaneval", "sampling": {"temperature": 0.6, "max_tokens": 8, "n": 10}}, "humaneval_plus"],
        arms={"before": "some/model"},
        roles={"before": "student"},
        baseline="before",
    )
    few.check()
    few.model_copy(update={"tasks": [TaskChoice(name="humaneval", metric="mean", sampling=TaskSampling())]}).check()


def test_results_name_the_settings_of_tasks(runs: tuple[Path, Run]) -> None:
    scores = runs[1].artifact("scores")
    results = Results.model_validate_json((scores.path / "results.json").read_text())
    assert results.task_settings["gsm8k"][0].startswith("gsm8k::tulu of OLMES")
    assert results.task_settings["gsm8k"][-1] == "Changed by this evaluation: shots 0, limit 3, sampling."
    assert "lab/addition" not in results.task_settings
    page = (runs[1].artifact("report").path / "report.html").read_text()
    assert "gsm8k::tulu of OLMES" in page and "Changed by this evaluation: shots 0, limit 3, sampling." in page


def test_absent_data_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hf download openai/gsm8k --repo-type dataset"):
        recipe_from_text(written("a", tmp_path))


def test_a_suite_says_what_it_cannot_ask_without_a_judge() -> None:
    asked = {"arms": {"a": "m"}, "roles": {"a": "student"}, "baseline": "a", "suite": "tulu3"}
    without, whole = Evaluate(**asked), Evaluate(**asked, judge="owner/judge")
    assert (len(without.choices()), len(whole.choices())) == (10, 11)
    assert whole._left_out() is None
    assert "alpaca_eval, which needs a judge: means are over 10 of its 11 tasks" in (without._left_out() or "")
    nobody = Evaluate(**asked | {"suite": "lab"}, judge="owner/judge")
    with pytest.raises(UserError, match="no task here is judged"):
        nobody.check()
