"""Weak labels in a recipe: halves, labels, a student, a ceiling and their comparison, from one run to its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.evaluation import Results
from w2s_align.lab import carry_items
from w2s_align.records import Prompt, Score, from_table
from w2s_align.runs import Run, load_recipe, recipe_from_text
from w2s_align.steps import CATALOGUE
from w2s_align.steps.half import Half
from w2s_align.steps.label import Label
from w2s_align.steps.work import Work

MODEL = "{kind: lab_model, layers: 2, width: 32, steps: 0"
FAST = "learning_rate: 5e-3, batch_size: 8, max_steps: 6, warmup_steps: 0"
RECIPE = f"""\
name: weak_labels
seed: 0
steps:
  strong: {MODEL}, seed: 1}}
  small:  {MODEL}, seed: 2}}
  items:  {{kind: prompts, source: %s, columns: {{prompt: prompt, answer: answer, group: group}}}}
  test:   {{kind: prompts, source: lab/carry, split: test, limit: 60}}
  first:  {{kind: half, items: $items, half: first, apart_from: $test}}
  second: {{kind: half, items: $items, half: second, apart_from: $test}}
  weak:   &weak {{kind: classifier, model: $small, items: $first, {FAST}}}
  labels: {{kind: label, model: $weak, items: $second}}
  xent:   &student {{kind: classifier, model: $strong, items: $second, labels: $labels, {FAST}, seeds: [1, 2]}}
  logconf: {{<<: *student, loss: logconf, seeds: [1]}}
"""
AROUND = """\
  # bootstrapping: the student labels the same items for the next one
  relabeled: {kind: label, model: $xent@1, items: $second, own_items: mark}
  chain: {<<: *student, labels: $relabeled, seeds: [1]}
  # a budget: the first stage on weak labels, and the items of which it is least sure
  sure:  {kind: pick, items: $second, labels: $labels, by: confidence, temperature: 0.5, number: 24}
  stage: {<<: *student, items: $sure, seeds: [1]}
  doubt: {kind: label, model: $stage@1, items: $second, own_items: mark}
  doubted: {kind: pick, items: $second, labels: $doubt, by: uncertainty, number: 8}
  again_doubted: {kind: label, model: $weak, items: $doubted}
  # debate, and market-making against the weak labels
  talks: &talks
    kind: debate
    model: $strong
    items: $first
    verdicts: {"1": +, "0": "-"}
    turns: 2
    sampling: {temperature: 1, max_tokens: 6}
    wording:
      opening: "{item} {side}"
      reply: "{item} {transcript} {side}"
      turn: "{side}{text}"
      between: " "
      shown: "{item} {transcript}"
    engine: {name: transformers}
  talks_second: {<<: *talks, items: $second}
  offers: {<<: *talks, items: $second, turns: 1, form: market_making, against: [$labels]}
  reader: {<<: *weak, items: $talks}
  read:   {kind: label, model: $reader, items: $talks_second}
  mean:   {kind: ensemble, labels: [$labels, $read]}
  told:   {<<: *student, labels: $mean, seeds: [1]}
"""
EVALUATED = """\
  ceiling: {<<: *student, labels: null, seeds: [1]}
  again: {kind: label, model: $weak, items: $test}
  scores:
    kind: evaluate_classifiers
    items: $test
    arms: {weak: $weak, xent: $xent, logconf: $logconf, ceiling: $ceiling}
    labels: {again: $again}
    roles: {weak: teacher, xent: treatment, logconf: treatment, ceiling: ceiling, again: other}
    baseline: weak
  report: {kind: report, of: $scores}
"""


def write_items(path: Path, gold: set[str] | None = None) -> Path:
    """Write items with two rows of each group; gold answers are those of the ids ``gold``, or all."""
    rows = []
    for place, item in enumerate(carry_items(80, 0, "train")):
        text = "\n".join(message["content"] for message in item.messages)
        answer = item.answer if gold is None or Prompt.of(text).id in gold else None
        rows.append({"prompt": text, "answer": answer, "group": f"group {place // 2}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The whole recipe, with gold answers everywhere."""
    root = tmp_path_factory.mktemp("weak_labels")
    items = write_items(root / "items.jsonl")
    return root, recipe_from_text(RECIPE % items + AROUND + EVALUATED).run(root / "runs")


def prompts(artifact: Artifact) -> list[Prompt]:
    return from_table(Prompt, artifact.table())


def test_the_halves_are_disjoint_have_all_items_and_keep_groups_together(done):
    _, run = done
    first, second = prompts(run.artifact("first")), prompts(run.artifact("second"))
    assert len(first) == len(second) == 40
    assert {p.id for p in first} | {p.id for p in second} == {p.id for p in prompts(run.artifact("items"))}
    assert not {p.group for p in first} & {p.group for p in second}


def test_the_labels_are_of_exactly_the_second_half_and_hold_no_gold(done):
    _, run = done
    labels = from_table(Score, run.artifact("labels").table())
    assert [row.prompt_id for row in labels] == [p.id for p in prompts(run.artifact("second"))]
    for row in labels:
        p = {entry["label"]: entry["p"] for entry in row.probabilities}
        assert set(p) == {"0", "1"} and sum(p.values()) == pytest.approx(1)
        assert row.value == max(p.values()) == p[row.answer]


def test_the_evaluation_has_all_arms_and_seeds_and_the_page_shows_them(done):
    _, run = done
    results = Results.model_validate_json(run.artifact("scores").text("results.json"))
    assert {arm.name: len(arm.settings["labels"].seeds) for arm in results.arms} == {
        "weak": 1,
        "xent": 2,
        "logconf": 1,
        "ceiling": 1,
        "again": 1,
    }
    assert [seed.seed for seed in results.arm("xent").settings["labels"].seeds] == ["1", "2"]
    assert {g.arm for g in results.gaps} == {"xent", "logconf"}
    assert [c.arm for c in results.classifiers] == [arm.name for arm in results.arms]
    weak, again = (next(c for c in results.classifiers if c.arm == name) for name in ("weak", "again"))
    assert weak.auroc == again.auroc and weak.classes == again.classes
    page = (run.artifact("report").path / "report.html").read_text()
    assert "Classifiers: balanced accuracy" in page and "weak, its supervisor" in page
    text = (run.artifact("report").path / "report.md").read_text()
    assert "## Classifiers" in text and "## Gap recovered" in text


def test_without_gold_answers_of_the_second_half_the_files_are_the_same(done, tmp_path):
    _, run = done
    gold = {p.id for p in prompts(run.artifact("first"))}
    bare = write_items(tmp_path / "items.jsonl", gold)
    other = recipe_from_text(RECIPE % bare + AROUND).run(tmp_path / "runs")
    assert all(p.answer is None for p in prompts(other.artifact("second")))
    assert other.artifact("labels").key != run.artifact("labels").key  # made again, not found
    for step, file in (
        ("labels", "data/scores.parquet"),
        ("weak", "model/model.safetensors"),
        ("xent@1", "model/model.safetensors"),
        ("xent@2", "metrics.jsonl"),
        ("logconf@1", "model/model.safetensors"),
        ("relabeled", "data/scores.parquet"),
        ("chain@1", "model/model.safetensors"),
        ("stage@1", "model/model.safetensors"),
        ("again_doubted", "data/scores.parquet"),
        ("talks_second", "data/turns.parquet"),
        ("offers", "data/turns.parquet"),
        ("read", "data/scores.parquet"),
        ("told@1", "model/model.safetensors"),
    ):
        assert (run.artifact(step).path / file).read_bytes() == (other.artifact(step).path / file).read_bytes(), step


def work(run: Run, out: Path, **inputs: str) -> Work:
    """Return a step at work on artifacts of a run."""
    artifacts = {place: run.artifact(name) for place, name in inputs.items()}
    return Work("step", out, artifacts, inputs, lambda done, total, note: None)


def test_a_models_own_items_are_left_out_marked_or_refused(done, tmp_path):
    _, run = done

    def labeled(items: str, own_items: Any) -> Work:
        at_work = work(run, tmp_path / f"{items}-{own_items}", model="weak", items=items)
        Label(model="$weak", items="$items", own_items=own_items).run(at_work)
        return at_work

    own = labeled("items", "drop")
    assert own.counts == {"rows_in": 80, "kept": 40, "dropped": {"trained_on": 40}}
    assert own.warnings == ["40 items that the model was trained on are left out."]
    labeled("items", "mark")
    outcomes = pq.read_table(tmp_path / "items-mark" / "data")["outcome"].to_pylist()
    assert outcomes.count("trained on") == 40 and outcomes.count(None) == 40
    with pytest.raises(UserError, match="was trained on all 40 items"):
        labeled("first", "drop")
    with pytest.raises(UserError, match="40 of the 80 test items are, or share a group with, items that"):
        labeled("items", "refuse")


def test_a_half_that_shares_a_group_with_the_test_is_refused(done, tmp_path):
    _, run = done
    step = Half(items="$items", half="first", apart_from="$first")
    with pytest.raises(UserError, match="40 of the 80 items are in the test") as caught:
        step.run(work(run, tmp_path, items="items", apart_from="first"))
    assert "40 are the same items" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "nobody"}, "baseline: nobody is not an arm"),
        ({"roles": {"weak": "teacher"}}, "roles says nothing about xent"),
        ({"baseline": "xent"}, "The baseline xent has the role treatment"),
        ({"labels": {"weak": "$labels"}}, "Two arms are called weak"),
    ],
)
def test_an_evaluation_that_does_not_fit_together_is_refused(changes: dict[str, Any], said: str):
    step = {"kind": "evaluate_classifiers", "items": "$test", "arms": {"weak": "$weak", "xent": "$xent"}}
    step |= {"baseline": "weak", "roles": {"weak": "teacher", "xent": "treatment"}}
    with pytest.raises(UserError, match=said):
        CATALOGUE["evaluate_classifiers"].model_validate(step | changes).check()


def test_the_plan_counts_halves_and_labels(tmp_path):
    from w2s_align.artifacts.store import Store
    from w2s_align.estimates.estimate import estimate

    text = RECIPE.replace(
        "source: %s, columns: {prompt: prompt, answer: answer, group: group}", "source: lab/carry, limit: 100"
    )
    planned = recipe_from_text(text).plan(tmp_path)
    costs = estimate(planned, Store(tmp_path), None)
    assert {name: costs.steps[name].rows for name in ("first", "labels", "xent@1")} == {
        "first": 50,
        "labels": 50,
        "xent@1": 50,
    }


def test_the_shipped_recipe_of_the_lab_loads():
    nodes = load_recipe(Path(__file__).parents[2] / "recipes/w2sg/lab.yaml").recipe.nodes
    students = [node for node in nodes.values() if node.config.kind == "classifier" and node.config.seed]
    assert all(node.config.max_steps is None and node.config.num_train_epochs in (2, 4) for node in students)
