"""Every shipped task on five rows of its real format: asked as it says, right answers score 1, wrong ones 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_rows import write_mirror

from w2s_align.errors import UserError
from w2s_align.evaluation.preference import references_of
from w2s_align.evaluation.published import published_examples
from w2s_align.evaluation.task import (
    Task,
    TaskChoice,
    TaskData,
    TaskSampling,
    dataset_rows,
    load_suite,
    load_task,
    setting_lines,
    shipped_suites,
    shipped_tasks,
)
from w2s_align.evaluation.task_prompts import task_problems
from w2s_align.records import Prompt, Response, from_table, to_table
from w2s_align.scoring import score
from w2s_align.steps.task import check_task

RIGHT = {
    "gsm8k": lambda i: f"{i} and 2 more.\n#### {i + 2}",
    "math500": lambda i: f"So \\boxed{{{i}/3}}",
    "math": lambda i: f"The answer is \\boxed{{{1 + i % 5}}}.",
    "aime24": lambda i: f"\\boxed{{{i + 1}}}",
    "aime25": lambda i: f"\\boxed{{{i + 2}}}",
    "mmlu": lambda i: f"The answer is {'ABCD'[i % 4]}.",
    "mmlu_pro": lambda i: f"Hm. The answer is ({'ABCDEFGHIJ'[i]}).",
    "arc_challenge": lambda i: "The answer is B." if i == 0 else "C",
    "arc_easy": lambda i: "(B)" if i == 0 else "(C)",
    "bbh": lambda i: "So the answer is False.",
    "drop": lambda i: ["7", "Bears", "3 May 1999"][i % 3],
    "popqa": lambda i: "A Political Leader, I think.",
    "humaneval": lambda i: f"```python\ndef add{i}(a: int, b: int) -> int:\n    return a + b + {i}\n```",
    "humaneval_plus": lambda i: f"```python\ndef add{i}(a: int, b: int) -> int:\n    return a + b + {i}\n```",
    "mbpp": lambda i: f"```python\ndef f{i}(x):\n    return x + {i}\n```",
    "ifeval": lambda i: "No comma here",
}
WRONG = dict.fromkeys(RIGHT, "I do not know, sorry, 999") | {"mmlu_pro": "The answer is (J)."}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_mirror(tmp_path_factory.mktemp("mirror")))


def answered(problems, texts):
    rows = [Response(p, 0, "m", text) for p, text in zip(problems["id"].to_pylist(), texts, strict=True)]
    return to_table(rows)


@pytest.mark.parametrize("name", shipped_tasks())
def test_every_shipped_task_asks_and_checks(name: str, mirror: str) -> None:
    task = load_task(name)
    assert task.title
    problems = task_problems(task, data_dir=mirror)
    prompts = from_table(Prompt, problems.table)
    assert len(prompts) in (5, 35, 135)
    assert all(p.messages[-1]["role"] == "user" and "{{" not in p.messages[-1]["content"] for p in prompts)
    assert all(p.task == name for p in prompts)
    if name == "truthfulqa":
        assert json.loads(problems.table["meta"][0].as_py()) == {
            "choices": ["yes 0", "no", "maybe"],
            "labels": [1, 0, 0],
        }
        return
    if name == "alpaca_eval":
        references = references_of(problems.table)
        assert [references[p.id] for p in prompts][:3] == [
            "Number 0 is fine.",
            "Number 1 is very fine.",
            "Number 2 is very very fine.",
        ]
        assert (task.kind, task.metric) == ("judged", "length_controlled")
        return
    right = [f"({p.answer})" if name == "gpqa" else RIGHT[name](i) for i, p in enumerate(prompts)]
    good = score(problems.table, answered(problems.table, right), task.scorer)
    assert good.table["value"].to_pylist() == [1.0] * len(prompts), good.table["detail"].to_pylist()
    wrong = ["no letter"] * len(prompts) if name == "gpqa" else [WRONG[name]] * len(prompts)
    bad = score(problems.table, answered(problems.table, wrong), task.scorer)
    assert bad.table["value"].to_pylist() == [0.0] * len(prompts), bad.table["detail"].to_pylist()


def test_choices_are_lettered_and_shuffled_by_the_seed_alone(mirror: str) -> None:
    task = load_task("gpqa")
    first, again, other = (task_problems(task, seed=s, data_dir=mirror).table for s in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    for p in from_table(Prompt, first):
        lines = dict(line.split(". ", 1) for line in p.messages[0]["content"].splitlines() if ". " in line[:3])
        assert sorted(lines) == ["A", "B", "C", "D"]
        assert lines[p.answer].startswith("right")
    assert (
        len(
            {
                p.answer
                for seed in range(5)
                for p in from_table(Prompt, task_problems(task, seed=seed, data_dir=mirror).table)
            }
        )
        == 4
    )


def test_examples_come_before_the_problem_as_turns_or_text(mirror: str) -> None:
    turns = from_table(Prompt, task_problems(load_task(TaskChoice(name="gsm8k", shots=2)), data_dir=mirror).table)[0]
    assert [m["role"] for m in turns.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert turns.messages[0]["content"].startswith("Question: There are 15 trees")
    assert turns.messages[1]["content"].endswith("The answer is 6.") and "<<" not in turns.messages[1]["content"]
    assert "(test)" in turns.messages[-1]["content"] and turns.messages[-1]["content"].endswith("Answer:")
    text = from_table(
        Prompt, task_problems(load_task(TaskChoice(name="gsm8k", shots=2, shots_style="text")), data_dir=mirror).table
    )[0]
    assert len(text.messages) == 1 and text.messages[0]["content"].count("Question: ") == 3


def test_examples_of_the_same_subject(mirror: str) -> None:
    prompts = from_table(Prompt, task_problems(load_task(TaskChoice(name="mmlu", shots=2)), data_dir=mirror).table)
    assert [p.meta["subject"] for p in prompts] == ["anatomy", "astronomy"] * 2 + ["anatomy"]
    assert [m["content"].split("?")[0] for m in prompts[1].messages if m["role"] == "user"] == [
        "dev 1",
        "dev 3",
        "test 1",
    ]


def test_examples_out_of_the_problems_are_left_out_and_counted(mirror: str) -> None:
    task = load_task("popqa").model_copy(update={"shots": 2, "shots_other": None})
    problems = task_problems(task, data_dir=mirror)
    assert problems.counts == {"rows_in": 5, "kept": 3, "dropped": {"used as an example": 2}}
    with pytest.raises(UserError, match="leave no problem"):
        task_problems(task.model_copy(update={"shots": 5}), data_dir=mirror)


def test_examples_of_every_other_kind_lose_no_problem(tmp_path: Path) -> None:
    rows = [{"q": f"question {i}", "a": f"answer {i}", "kind": "abc"[i % 3]} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TaskData(source=str(tmp_path / "rows.jsonl"))
    task = Task(name="t", data=data, prompt="{{ q }}", answer="{{ a }}", shots=2, shots_other="kind")
    problems = task_problems(task)
    assert problems.counts == {"rows_in": 9, "kept": 9, "dropped": {}}
    shown = [[m["content"] for m in p.messages] for p in from_table(Prompt, problems.table)]
    assert shown[0] == ["question 1", "answer 1", "question 2", "answer 2", "question 0"]
    assert shown[4] == ["question 0", "answer 0", "question 2", "answer 2", "question 4"]
    fewer = task_problems(task.model_copy(update={"shots": 3}))
    assert fewer.counts["with fewer examples"] == 9


def test_published_examples_are_those_of_the_papers(mirror: str) -> None:
    def first(name: str, shots: int) -> list[str]:
        problems = task_problems(load_task(TaskChoice(name=name, shots=shots, limit=1)), data_dir=mirror)
        return [m["content"] for m in from_table(Prompt, problems.table)[0].messages]

    math = first("math", 4)
    assert len(math) == 9 and math[0].startswith("Problem:\nFind the domain") and "I hope it is correct" in math[7]
    bbh = first("bbh", 3)
    assert len(bbh) == 1 and bbh[0].count("A: Let's think step by step.") == 4 and bbh[0].count("he answer is") >= 3
    truthful = first("truthfulqa", 6)
    assert len(truthful) == 1 and truthful[0].startswith("Q: What is human life expectancy")
    assert truthful[0].endswith("A:")


def test_published_examples_say_when_there_are_too_few_or_none(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    with pytest.raises(UserError, match="with 9 examples, and 8 are published"):
        check_task(load_task(TaskChoice(name="gsm8k", shots=9)), mirror)
    check_task(load_task(TaskChoice(name="gsm8k", shots=9, examples=[{"question": "1", "answer": "#### 1"}])), mirror)
    with pytest.raises(UserError, match="cannot be read from the installed lm-eval"):
        published_examples("gsm8k/no-such-file.yaml")
    published_examples.cache_clear()
    monkeypatch.setattr("w2s_align.evaluation.published.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package lm-eval.*w2s-align\[lm_eval\]"):
        check_task(load_task(TaskChoice(name="gsm8k", shots=8)), mirror)
    check_task(load_task("gsm8k"), mirror)  # without examples nothing is read


def test_every_task_of_the_suite_names_its_setting_and_is_asked_in_it() -> None:
    for choice in load_suite("tulu3"):
        lines = setting_lines(choice)
        assert "of OLMES" in lines[0] and len(lines) > 1, choice.name
        assert not lines[-1].startswith("Changed"), (choice.name, lines[-1])
    changed = setting_lines(TaskChoice(name="gsm8k", shots=2, limit=7), [TaskSampling(n=4, temperature=1)])[-1]
    assert changed == "Changed by this evaluation: shots 2, limit 7, sampling."
    assert setting_lines(TaskChoice(name="arc_easy")) == []


def test_tasks_that_use_nothing_new_keep_their_keys() -> None:
    content = load_task("arc_easy").content()
    assert not {"option_label", "published", "shots_other", "average", "setting"} & content.keys()
    assert load_task("mmlu").content()["average"] == "subjects"


def test_a_limit_draws_by_the_seed(mirror: str) -> None:
    def ids(seed):
        return (
            task_problems(load_task(TaskChoice(name="bbh", limit=10)), seed=seed, data_dir=mirror)
            .table["id"]
            .to_pylist()
        )

    assert ids(1) == ids(1) != ids(2)
    assert len(ids(1)) == 10


def test_absent_data_say_how_to_get_them(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="finds no data") as caught:
        task_problems(load_task("gsm8k"), data_dir=str(tmp_path))
    assert f"hf download openai/gsm8k --repo-type dataset --local-dir {tmp_path}/openai/gsm8k" in str(caught.value)
    with pytest.raises(UserError, match=r"The dataset openai/gsm8k .* cannot be loaded"):
        task_problems(load_task("gsm8k"))
    monkeypatch.setenv("W2S_DATA_DIR", mirror)
    assert task_problems(load_task("gsm8k")).table.num_rows == 5


def test_a_task_that_does_not_fit_its_data_says_what_there_is(mirror: str) -> None:
    task = load_task("gsm8k").model_copy(update={"prompt": "{{ qestion }}"})
    with pytest.raises(UserError, match=r"'qestion' is undefined.*columns are question, answer"):
        task_problems(task, data_dir=mirror)


def test_templates_cannot_reach_python(mirror: str) -> None:
    task = load_task("gsm8k").model_copy(update={"prompt": "{{ ''.__class__.__mro__ }}"})
    with pytest.raises(UserError, match="unsafe"):
        task_problems(task, data_dir=mirror)


def test_a_task_of_ones_own_is_one_short_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "1 + 1", "a": 2}\n{"q": "1 + 1", "a": 2}\n{"q": "2 + 2", "a": 4}\n')
    (tmp_path / "sums.yaml").write_text(
        f"data: {{source: {tmp_path}/rows.jsonl}}\nprompt: 'What is {{{{ q }}}}?'\nanswer: '{{{{ a }}}}'\nscorer: "
        f"numeric\n"
    )
    task = load_task(str(tmp_path / "sums.yaml"))
    problems = task_problems(task)
    assert (task.name, problems.table["answer"].to_pylist()) == ("sums", ["2", "4"])
    assert problems.counts == {"rows_in": 3, "kept": 2, "dropped": {"duplicate": 1}}


def test_mistakes_in_names_and_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean gsm8k"):
        load_task("gsm8")
    with pytest.raises(UserError, match="Did you mean tulu3"):
        load_suite("tulu")
    (tmp_path / "bad.yaml").write_text("data: {repo: a/b}\npromt: x\nmetric: best\n")
    with pytest.raises(
        UserError, match=r"(?s)metric: .*is not a metric.*promt is not an option of a task.*Did you mean prompt"
    ):
        load_task(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "lab/addition", "shots": 2}, "does not take shots: its problems are generated"),
        ({"name": "lm_eval/gsm8k", "scorer": "math"}, "does not take scorer: lm-eval asks and checks"),
        ({"name": "truthfulqa", "metric": "majority"}, "does not take metric: given answers are rated"),
        ({"name": "gsm8k", "include_path": "x"}, "does not take include_path"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(choice: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskChoice(**choice))


@pytest.mark.parametrize("name", shipped_suites())
def test_every_suite_loads(name: str) -> None:
    assert all(isinstance(load_task(choice), Task) for choice in load_suite(name))


def test_the_suite_of_the_paper_has_its_settings() -> None:
    tasks = {load_task(choice).name: load_task(choice) for choice in load_suite("tulu3")}
    assert {name: task.shots for name, task in tasks.items()} == {
        "mmlu": 0, "popqa": 15, "truthfulqa": 6, "bbh": 3, "drop": 3, "math": 4, "gsm8k": 8, "humaneval": 0,
        "humaneval_plus": 0, "ifeval": 0, "alpaca_eval": 0,
    }  # fmt: skip
    for name in ("humaneval", "humaneval_plus"):
        s = tasks[name].sampling
        assert (tasks[name].metric, s.n, s.temperature, s.top_p) == ("pass@10", 20, 0.8, 0.95)
    assert tasks["math"].sampling.max_tokens == 1024 and tasks["bbh"].sampling.max_tokens == 512


def test_generated_tasks_need_no_data() -> None:
    assert task_problems(load_task(TaskChoice(name="lab/addition", limit=3))).table.num_rows == 3
    pytest.importorskip("reasoning_gym")
    problems = task_problems(load_task(TaskChoice(name="reasoning_gym/chain_sum", limit=4)), seed=3)
    assert problems.table.num_rows == 4


def test_a_task_without_any_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    task = Task(name="none", data=TaskData(source=str(tmp_path / "none.jsonl")))
    with pytest.raises(UserError, match="has no problem"):
        task_problems(task)


def test_every_shipped_task_knows_its_rows_and_they_are_no_part_of_its_definition() -> None:
    for name in shipped_tasks():
        task = load_task(name)
        assert task.expected_problems, name
        assert "rows" not in task.model_dump(mode="json")["data"]
    assert load_task(TaskChoice(name="gsm8k", limit=7)).expected_problems == 7
    assert load_task(TaskChoice(name="gsm8k", limit=9_000)).expected_problems == 1_319
    assert dataset_rows("openai/gsm8k", "main", "train") == 7_473
    assert dataset_rows("openai/gsm8k", None, "train") is None
