"""The scorers over tables: values, reasons, resume."""

import json
import math
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, Score, from_table, record_columns, to_table
from w2s_align.scoring import Outcome, choose_scorer, score
from w2s_align.scoring.pool import WorkerPool
from w2s_align.scoring.scorers.feature import FeatureScorer
from w2s_align.scoring.scorers.library_checks import MathScorer
from w2s_align.steps.tables import join_tables


def tables(rows, **prompt_fields):
    """Make a prompt and a response for each (gold, text)."""
    prompts = [Prompt.of(f"question {i}", answer=gold, **prompt_fields) for i, (gold, _) in enumerate(rows)]
    responses = [Response(p.id, 0, "m", text) for p, (_, text) in zip(prompts, rows, strict=True)]
    return to_table(prompts, Prompt), to_table(responses, Response)


def test_exact_and_its_reasons():
    prompts, responses = tables(
        [("Paris", "The answer is paris."), ("Paris", "It is\nRome"), (None, "Paris"), ("4", "none")]
    )
    failed = to_table([Response(prompts["id"][0].as_py(), 1, "m", None, finish_reason="error", error="x")])
    stray = to_table([Response("no such prompt", 0, "m", "Paris")])
    result = score(prompts, pa.concat_tables([responses, failed, stray]), "exact")
    assert result.table.schema == Score.SCHEMA
    assert result.table["value"].to_pylist() == [1.0, 0.0, None, 0.0, None, None]
    assert result.table["detail"].to_pylist() == [
        "paris",
        "Rome",
        "no gold answer",
        "no answer found",
        "generation failed",
        "prompt not found",
    ]
    assert result.table["answer"].to_pylist() == ["paris", "Rome", None, None, None, None]
    assert result.table["outcome"].to_pylist() == [
        None,
        None,
        Outcome.NO_GOLD,
        Outcome.NO_ANSWER,
        Outcome.NO_RESPONSE,
        Outcome.NO_PROMPT,
    ]
    assert (result.scored, result.unscored, result.mean) == (
        3,
        {"generation failed": 1, "no gold answer": 1, "prompt not found": 1},
        pytest.approx(1 / 3),
    )


def test_numeric():
    prompts, responses = tables(
        [
            ("72", "It costs 72.0 dollars"),
            ("long story\n#### 1,000", "#### 1000"),
            ("0.5", r"\boxed{1/2}"),
            ("x", "3"),
            ("3", "four"),
        ]
    )
    result = score(prompts, responses, "numeric")
    assert result.table["value"].to_pylist() == [1.0, 1.0, 1.0, None, 0.0]
    assert result.table["detail"].to_pylist()[3:] == ["gold is not a number", "no answer found"]


def test_math():
    rows = [
        (r"\frac13", r"thus \boxed{\frac{2}{6}}"),
        ("$x^2+1$", r"so we get \boxed{1+x^2}"),
        ("12", "#### 12"),
        ("12", "the total is 13"),
        ("12", "no idea"),
        (None, "12"),
        ("5", "<think>I think 5</think> The answer is $6$."),
    ]
    result = score(*tables(rows), MathScorer(processes=1))
    assert result.table["value"].to_pylist() == [1.0, 1.0, 1.0, 0.0, 0.0, None, 0.0]
    assert result.table["detail"][4].as_py() == "no answer found"


def test_one_poisonous_answer_costs_its_timeout_and_nothing_else():
    rows = [("12", "#### 12")] * 30
    rows[7] = ("12", r"\boxed{9^{9^{9^{9}}}!}")
    rows[20] = ("12", r"\boxed{" + "9^" * 12 + "9}")
    result = score(*tables(rows), MathScorer(processes=2, timeout_s=2))
    expected = [1.0] * 30
    values = result.table["value"].to_pylist()
    assert [v for i, v in enumerate(values) if i not in (7, 20)] == [
        v for i, v in enumerate(expected) if i not in (7, 20)
    ]
    assert 1.0 not in (values[7], values[20])


def test_a_pool_replaces_hanging_and_crashing_workers(monkeypatch, tmp_path):
    (tmp_path / "w2s_test_check.py").write_text(
        "import os, time\n"
        "def make():\n"
        "    def check(item):\n"
        "        if item == 'hang': time.sleep(60)\n"
        "        if item == 'crash': os._exit(3)\n"
        "        if item == 'raise': raise ValueError('bad')\n"
        "        if item == 'memory': bytearray(8 << 30)\n"
        "        print('noise on standard output')\n"
        "        return {'value': float(item), 'detail': ''}\n"
        "    return check\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    items = [0, "hang", 1, "crash", 2, "raise", 3, "memory", 4]
    with WorkerPool("w2s_test_check:make", timeout_s=1.0, processes=2) as pool:
        answers = pool.map(items)
        again = pool.map([5, 6])
    assert [a.get("value") for a in answers] == [0.0, None, 1.0, None, 2.0, None, 3.0, None, 4.0]
    assert answers[1] == {"failed": "time-out"}
    assert answers[3] == {"failed": "the checker crashed (exit code 3)"}
    assert answers[5] == {"failed": "the checker failed", "detail": "the checker failed: ValueError: bad"}
    assert answers[7] == {"failed": "out of memory (4 GiB)"}
    assert [a["value"] for a in again] == [5.0, 6.0]


def test_a_pool_works_on_all_its_cores_at_once(monkeypatch, tmp_path):
    (tmp_path / "w2s_test_cores.py").write_text(
        "import os, pathlib, time\n"
        "def make():\n"
        "    def check(item):\n"
        f"        folder = pathlib.Path({str(tmp_path)!r})\n"
        "        (folder / f'here-{item}').touch()\n"
        "        while len(list(folder.glob('here-*'))) < 2: time.sleep(0.01)\n"
        "        return {'value': float(os.getpid()), 'detail': ''}\n"
        "    return check\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerPool("w2s_test_cores:make", timeout_s=60.0, processes=2) as pool:
        answers = pool.map([0, 1])  # each waits for the other: one after the other, they would time out
    assert len({answer["value"] for answer in answers}) == 2
    assert WorkerPool("x", 1.0).processes == len(os.sched_getaffinity(0))


def test_a_value_that_is_no_number_is_unscored(monkeypatch):
    from w2s_align.scoring import features

    monkeypatch.setitem(features.FEATURES, "chars", lambda text: {"a": math.nan, "b": math.inf}.get(text, 3.0))
    prompts, responses = tables([(None, "a"), (None, "b"), (None, "c")])
    result = score(prompts, responses, "feature:chars")
    assert result.table["value"].to_pylist() == [None, None, 3.0]
    assert result.unscored == {"the scorer gave inf": 1, "the scorer gave nan": 1}


def test_reasoning_gym_wants_exactly_one():
    reasoning_gym = pytest.importorskip("reasoning_gym")
    entry = reasoning_gym.create_dataset("basic_arithmetic", size=1, seed=1)[0]
    meta = {"reasoning_gym": "basic_arithmetic", "entry": entry}
    prompt = Prompt.of(entry["question"], answer=entry["answer"], meta=meta)
    other = Prompt.of("what?", answer="1")
    texts = [f"The answer is {entry['answer']}.", f"#### {entry['answer']}", "It is 77 or so", "hm"]
    responses = [Response(prompt.id, i, "m", text) for i, text in enumerate(texts)] + [Response(other.id, 0, "m", "1")]
    result = score(to_table([prompt, other]), to_table(responses), "reasoning_gym")
    assert result.table["value"].to_pylist() == [1.0, 1.0, 0.0, 0.0, None]
    assert result.unscored == {"not a reasoning-gym prompt": 1}


def test_lab_tasks_check_their_own_answers():
    from lab_solutions import write_solution

    from w2s_align.lab import problems

    prompts = problems("lab/addition", 3, seed=0, split="test")
    question = prompts[0].messages[-1]["content"]
    right = write_solution("lab/addition", question)
    responses = [Response(prompts[0].id, 0, "m", right), Response(prompts[0].id, 1, "m", "so it is\n-1")]
    for scorer in ("lab", "auto"):
        result = score(to_table(prompts), to_table(responses), scorer)
        assert result.table["value"].to_pylist() == [1.0, 0.0]
    assert result.table["detail"][1].as_py() == "lab: -1"
    silent = to_table([Response(prompts[0].id, 0, "m", " ")])
    assert score(to_table(prompts), silent, "lab").table["outcome"].to_pylist() == [Outcome.NO_ANSWER]


def test_choice():
    rows = [
        ("B", "The answer is (B)."),
        ("(C)", "Option C. because"),
        ("A", r"so \boxed{A}"),
        ("D", "I think A dog is best, so D"),
        ("B", "none of them"),
        ("Paris", "B"),
        (None, "B"),
        ("E", "(A) is wrong, (E) is right"),
        ("B", "answer: b"),
        ("A", "**A**"),
    ]
    result = score(*tables(rows), "choice")
    assert result.table["value"].to_pylist() == [1.0, 1.0, 1.0, 1.0, 0.0, None, None, 1.0, 1.0, 1.0]
    assert result.unscored == {"gold is not a letter": 1, "no gold answer": 1}


def test_features_by_name_and_with_a_target():
    prompts, responses = tables([(None, "One. Two! Three?"), (None, "3.14 is pi")])
    result = score(prompts, responses, "feature:sentences")
    assert result.table["value"].to_pylist() == [3.0, 1.0]
    assert result.table["scorer"].to_pylist() == ["feature:sentences"] * 2
    near = score(prompts, responses, FeatureScorer(feature="sentences", target=2))
    assert near.table["value"].to_pylist() == [-1.0, -1.0]
    assert near.table["detail"].to_pylist() == ["3", "1"]
    with pytest.raises(UserError, match="feature"):
        score(prompts, responses, "feature")


def test_self_consistency_counts_over_the_whole_table():
    prompt = Prompt.of("q", answer="1")
    texts = ["#### 7", "it is 7.0", "8", "none", None]
    responses = [Response(prompt.id, i, "m", t, finish_reason="stop" if t else "error") for i, t in enumerate(texts)]
    responses.append(Response(prompt.id, 0, "other", "8"))
    result = score(to_table([prompt]), to_table(responses), "self_consistency", batch_rows=2)
    assert result.table["value"].to_pylist() == [0.5, 0.5, 0.25, 0.0, None, 1.0]
    assert result.table["answer"].to_pylist() == ["7", "7", "8", None, None, "8"]


@pytest.mark.parametrize(
    ("task", "meta", "answer", "name"),
    [
        ("x", json.dumps({"reasoning_gym": "d", "entry": {}}), "1", "reasoning_gym"),
        ("lab/addition", "{}", None, "lab"),
        ("gsm8k", "{}", "12", "numeric"),
        ("gsm8k", "{}", "He has...\n#### 12", "numeric"),
        ("MATH-500", "{}", "12", "math"),
        ("x", "{}", r"\frac{1}{x}", "math"),
        ("x", "{}", "Paris", "exact"),
        ("x", "{}", "(B)", "choice"),
        ("x", "{}", None, None),
        ("x", "{}", " ", None),
        ("x", "{}", "$5", "numeric"),
    ],
)
def test_choose_scorer(task, meta, answer, name):
    assert choose_scorer(task, meta, answer) == name


def test_auto_names_the_scorer_it_used():
    prompts, responses = tables([("Paris", "Paris"), ("7", "7 or 8"), (None, "a")])
    result = score(prompts, responses, "auto")
    assert result.table["scorer"].to_pylist() == ["auto"] * 3
    assert result.table["value"].to_pylist() == [1.0, 0.0, None]
    assert result.table["detail"].to_pylist() == ["exact: Paris", "numeric: 8", "no gold answer"]
    assert result.table["answer"].to_pylist() == ["Paris", "8", None]


def test_a_killed_call_goes_on(tmp_path):
    prompts, responses = tables([(str(i), f"#### {i}") for i in range(10)])
    whole = score(prompts, responses, "exact", batch_rows=3)

    class KilledError(Exception):
        pass

    def kill(done, total, note):
        if done >= 6:
            raise KilledError

    with pytest.raises(KilledError):
        score(prompts, responses, "exact", kill, tmp_path, batch_rows=3)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 2
    seen = []
    again = score(prompts, responses, "exact", lambda *note: seen.append(note), tmp_path, batch_rows=3)
    assert again.table.equals(whole.table)
    assert seen[-1] == (10, 10, "exact")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    changed = score(prompts, responses, "numeric", folder=tmp_path, batch_rows=3)
    assert changed.table["scorer"].to_pylist() == ["numeric"] * 10


def test_empty_and_unknown():
    prompts, responses = tables([])
    assert score(prompts, responses, "exact").table.equals(Score.SCHEMA.empty_table())
    with pytest.raises(UserError, match="There is no scorer 'exakt'"):
        score(prompts, responses, "exakt")


def test_scores_that_an_older_version_wrote_are_read(tmp_path):
    new = [Score("a", 0, "m", "exact", 1.0, "4", "4", probabilities=[{"label": "right", "p": 0.75}])]
    older = to_table([Score("b", 0, "m", "exact", None, "no gold answer")]).select(Score.SCHEMA.names[:6])
    pq.write_table(older, tmp_path / "older.parquet")
    read = pq.read_table(tmp_path / "older.parquet")
    assert record_columns(Score, read).schema.equals(Score.SCHEMA)
    assert from_table(Score, read) == [Score("b", 0, "m", "exact", None, "no gold answer")]
    assert from_table(Score, join_tables([to_table(new), read])) == [*new, *from_table(Score, read)]
    assert from_table(Score, join_tables([read, to_table(new)]))[1] == new[0]
    with pytest.raises(KeyError):
        record_columns(Score, read.drop_columns("scorer"))
