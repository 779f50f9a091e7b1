"""Judges: what is asked, how answers are read, what verdicts become; and a real tiny model as the judge."""

import json

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, Sampling, generate
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring.judge import chosen_pairs, judge
from w2s_align.scoring.judge_prompts import (
    JudgeSettings,
    as_text,
    fill,
    read_choice,
    read_rating,
    read_steps,
    read_verdict,
)
from w2s_align.scoring.judge_scores import VERDICTS, comparisons, reliability_of, scores_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Good.\nRating: 4", 4),
        ("rating = **4.5**", 4.5),
        ("Rating: 2\nOn second thought\nRating: 3", 3),
        ("3", 3),
        (" **5** ", 5),
        ("Rating: 4/5", 4),
        ("<think>Rating: 1</think>Rating: 5", 5),
        ("Rating: 6", None),
        ("Rating: 0", None),
        ("Rating: 10", None),
        ("I give it a 4 or so", None),
        ("Rating: four", None),
        ("", None),
        ("Rating: 1e9", None),
        ("9" * 5000, None),
    ],
)
def test_ratings(text, value):
    assert read_rating(text, (1, 5)) == value


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("Step 2 is off.\nWrong steps: 1 of 4", (1, 4)),
        ("Wrong steps: 1 of 4\nNo:\n**Wrong steps: 0/3**", (0, 3)),
        ("<think>Wrong steps: 1 of 2</think> none", None),
        ("Wrong steps: 5 of 4", None),
        ("Wrong steps: 0 of 0", None),
        ("two wrong steps", None),
    ],
)
def test_wrong_steps(text, counted):
    assert read_steps(text) == counted


def test_the_score_of_counted_steps_is_the_share_of_right_ones(make):
    responses = make.responses([("p", "m", i, "x") for i in range(2)])
    rows = [(make.id("p"), "m", 0, None, None, None, "", 0, "rated", 0.75, "Wrong steps: 1 of 4")]
    rows += [(make.id("p"), "m", 1, None, None, None, "", 0, "unparsable", None, "?")]
    verdicts = pa.table([list(column) for column in zip(*rows, strict=True)], schema=VERDICTS)
    table = scores_of(verdicts, responses, ["", ""], JudgeSettings(mode="steps"), "judge:j").table
    assert table["value"].to_pylist() == [0.75, None]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It holds.\nTrue", 1.0),
        ("**False**.", 0.0),
        ("True\nbut then\nFalse\n\n", 0.0),
        ("<think>True</think>\nfalse", 0.0),
        ("It is True", None),
        ("True or False", None),
        ("", None),
    ],
)
def test_true_or_false(text, value):
    assert read_verdict(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A is longer.\nVerdict: B", 0.0),
        ("Verdict: **A**", 1.0),
        ("Verdict: [[A]]", 1.0),
        ("verdict: Tie", 0.5),
        ("Verdict: A\nno:\nVerdict: B", 0.0),
        ("b", 0.0),
        ("[[B]]", 0.0),
        ("Verdict: AB", None),
        ("Verdict: both", None),
        ("A is better", None),
        ("", None),
    ],
)
def test_choices(text, value):
    assert read_choice(text) == value


def test_what_a_response_says_is_never_taken_for_a_placeholder():
    assert fill("{prompt} | {response} {x}", {"prompt": "{response}", "response": "{prompt} {"}) == (
        "{response} | {prompt} { {x}"
    )
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert as_text(chat) == "system: be brief\n\nuser: hi"
    assert as_text(chat[1:]) == "hi"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "pairwise", "scale": (1, 10)}, "scale belongs to mode pointwise"),
        ({"mode": "pointwise", "max_comparisons": 3}, "max_comparisons belongs to mode pairwise"),
        ({"mode": "pointwise", "scale": (5, 1)}, "worst to best"),
        ({"mode": "pairwise", "template": "{prompt}: {first}?"}, "lacks {second}"),
        ({"mode": "pointwise", "template": "{prompt}: {response}?"}, "lacks {aspect}"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(UserError, match=message):
        judge("nobody", *candidates(1), JudgeSettings(**options))


def verdict(prompt, left, right, shown, value, draw=0):
    """One row about the samples ``left`` and ``right`` of the model m."""
    name = {1.0: "win", 0.5: "tie", 0.0: "loss", None: "unparsable"}[value]
    return (prompt, "m", left, None if right is None else "m", right, shown, "", draw, name, value, None)


def verdict_table(rows):
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=VERDICTS)


# One prompt per case: value in the first order, value in the second, both from the side of sample 0.
CASES = {
    "win": (1.0, 1.0),
    "loss": (0.0, 0.0),
    "tie": (0.5, 0.5),
    "flip": (1.0, 0.0),
    "half tie": (1.0, 0.5),
    "unreadable": (1.0, None),
}


def cases(extra=()):
    rows = [
        verdict(outcome, 0, 1, shown, value)
        for outcome, values in CASES.items()
        for shown, value in zip(("first", "second"), values, strict=True)
    ]
    return verdict_table([*rows, *extra])


def test_outcomes_of_comparisons_by_hand():
    table = comparisons(cases())
    assert dict(zip(table["prompt_id"], table["outcome"], strict=True)) == {name: name for name in CASES}
    assert table["value"].to_list() == [1.0, 0.0, 0.5, 0.5, 0.75, None]


def test_several_draws_of_an_order_count_by_their_mean():
    # first order: two wins and a loss; second order: one readable tie of three
    rows = [verdict("p", 0, 1, "first", value, draw) for draw, value in enumerate([1.0, 1.0, 0.0])]
    rows += [verdict("p", 0, 1, "second", value, draw) for draw, value in enumerate([None, 0.5, None])]
    table = comparisons(verdict_table(rows))
    assert table["outcome"].to_list() == ["half tie"]
    assert table["value"].to_list() == [pytest.approx((2 / 3 + 0.5) / 2)]


def test_the_account_by_hand():
    same = ("same", "m", 0, "m", 1, None, "", 0, "same text", 0.5, None)
    account = reliability_of(cases([same]), JudgeSettings(mode="pairwise"))
    assert account.comparisons == {"flip": 1, "half tie": 1, "loss": 1, "tie": 2, "unreadable": 1, "win": 1}
    assert account.unreadable == 1 / 12
    # of five comparisons with two readable orders that were asked: one flip, three consistent
    assert (account.flip_rate, account.consistency) == (1 / 5, 3 / 5)
    # for the first slot: win (1 of 2), loss (1 of 2), flip (2 of 2), half tie (1 of 1), unreadable (1 of 1)
    assert account.first_slot == 6 / 8
    assert account.warnings == ["8% of the judge's answers could not be read: look at its verdicts."]
    assert account.strengths == {}  # one model only


def test_strengths_of_models_over_all_prompts():
    def row(prompt, model, other, shown, value):
        return (prompt, model, 0, other, 0, shown, "", 0, "", value, None)

    rows = [row(str(i), "a", "b", shown, float(i < 3)) for i in range(4) for shown in ("first", "second")]
    rows += [row("9", "c", "d", shown, 0.5) for shown in ("first", "second")]
    account = reliability_of(verdict_table(rows), JudgeSettings(mode="pairwise", prior=1e-9))
    assert account.strengths["a"] - account.strengths["b"] == pytest.approx(1.0986, abs=1e-3)
    assert account.notes == ["No comparisons between {a, b} and {c, d}: their strengths cannot be compared."]


def test_scores_of_a_pairwise_judge():
    rows = [("p", 0, 1, 1.0), ("p", 0, 2, 1.0), ("p", 1, 2, 1.0), ("q", 0, 1, None)]
    table = verdict_table([verdict(p, a, b, shown, v) for p, a, b, v in rows for shown in ("first", "second")])
    responses = to_table([Response(p, s, "m", "x") for p, s in (("p", 0), ("p", 1), ("p", 2), ("q", 0), ("q", 1))])
    found = scores_of(table, responses, [""] * 5, JudgeSettings(mode="pairwise"), "judge:j").table.to_pylist()
    values = [row["value"] for row in found]
    assert values[0] > values[1] > values[2] and values[1] == pytest.approx(0, abs=1e-8)
    assert values[3:] == [None, None]
    assert [row["detail"] for row in found] == [
        "2 win",
        "1 loss, 1 win",
        "2 loss",
        *["no comparison with two readable orders"] * 2,
    ]
    assert {row["scorer"] for row in found} == {"judge:j"}


def test_scores_of_ratings_and_of_true_or_false():
    def row(sample, aspect, draw, value):
        return ("p", "m", sample, None, None, None, aspect, draw, "", value, None)

    responses = to_table([Response("p", s, "m", "x") for s in range(3)])
    rows = [row(0, "a", 0, 4.0), row(0, "a", 1, 5.0), row(0, "b", 0, 1.0), row(0, "b", 1, None)]
    rows += [row(1, "a", 0, 4.0), row(1, "a", 1, 4.0), row(1, "b", 0, None), row(1, "b", 1, None)]
    settings = JudgeSettings(mode="pointwise", aspects=["a", "b"])
    found = scores_of(verdict_table(rows), responses, ["", "", "generation failed"], settings, "j")
    assert found.table["value"].to_pylist() == [2.75, None, None]
    assert found.table["detail"].to_pylist() == ["a 4.5, b 1", "no readable rating of b", "generation failed"]
    assert found.unscored == {"no readable rating of b": 1, "generation failed": 1}
    rows = [row(0, "", draw, value) for draw, value in enumerate([1.0, 1.0, 0.0, None])] + [row(1, "", 0, None)]
    found = scores_of(verdict_table(rows), responses, ["", "", "x"], JudgeSettings(mode="verdict"), "j").table
    assert found["value"].to_pylist() == [pytest.approx(2 / 3), None, None]
    assert found["detail"].to_pylist()[:2] == ["True in 2 of 3 readable answers", "no readable verdict"]


def test_verdicts_of_single_responses_are_no_comparisons():
    table = verdict_table([("p", "m", 0, None, None, None, "a", 0, "rated", 4.0, None)])
    with pytest.raises(UserError, match="one by one"):
        comparisons(table)
    with pytest.raises(UserError, match="no column shown"):
        comparisons(table.drop_columns("shown"))


def test_which_pairs_are_compared():
    rows = list(range(6))
    assert len(chosen_pairs(rows, None, 0)) == 15
    for seed in range(5):
        ring = chosen_pairs(rows, 6, seed)
        assert sorted(row for pair in ring for row in pair) == sorted(rows * 2)  # everyone twice
        tree = chosen_pairs(rows, 5, seed)
        assert {row for pair in tree for row in pair} == set(rows)
        assert tree == chosen_pairs(rows, 5, seed)
    assert chosen_pairs(rows, 3, 0) != chosen_pairs(rows, 3, 1)
    assert chosen_pairs([4, 7], 1, 0) == [(4, 7)]


# A real model with random weights: its greedy first character is a digit, a letter or neither, which is a rating, a
# choice, or cannot be read.

DIGITS = JudgeSettings(mode="pointwise", aspects=["worth"], scale=(0, 9), template="{prompt}, {response}: {aspect}?")
LETTERS = JudgeSettings(mode="pairwise", template="{prompt}: {first} or {second}?")
ONE_TOKEN = Sampling(temperature=0, max_tokens=1)
TRANSFORMERS = Engine(name="transformers")


def candidates(n=40):
    prompts = [Prompt.of(f"what is {i} + {i}", answer=str(2 * i)) for i in range(n)]
    texts = {"strong": lambda i: f"it is {2 * i}", "weak": lambda i: f"{i} + {i} = {'ab'[i % 2]}"}
    responses = [Response(p.id, 0, model, text(i)) for i, p in enumerate(prompts) for model, text in texts.items()]
    return to_table(prompts), to_table(responses)


@pytest.fixture(scope="module")
def engines():
    with EngineCache() as cache:
        yield cache


def test_a_real_model_rates(judge_model, engines):
    prompts, responses = candidates()
    judged = judge(judge_model, prompts, responses, DIGITS, sampling=ONE_TOKEN, engine=TRANSFORMERS, engines=engines)
    texts = {row["id"]: row["messages"][0]["content"] for row in prompts.to_pylist()}
    questions = [f"{texts[r['prompt_id']]}, {r['text']}: worth?" for r in responses.to_pylist()]
    alone = generate(judge_model, questions, ONE_TOKEN, engine=TRANSFORMERS, engines=engines).table()
    expected = [float(text) if text in set("0123456789") else None for text in alone["text"].to_pylist()]
    assert judged.scores.table["value"].to_pylist() == expected
    assert 0 < judged.scores.scored < 80
    assert judged.scores.unscored == {"no readable rating of worth": 80 - judged.scores.scored}
    assert judged.verdicts["text"].to_pylist() == alone["text"].to_pylist()
    counts = judged.reliability.verdicts
    assert counts["rated"] == judged.scores.scored and sum(counts.values()) == 80
    assert judged.reliability.warnings
    assert set(judged.scores.table["scorer"].to_pylist()) == {f"judge:{judge_model}"}


@pytest.mark.slow
def test_vllm_judges_as_transformers_does(judge_model, engines):
    pytest.importorskip("vllm")
    prompts, responses = candidates()
    answer = {"sampling": ONE_TOKEN, "model_name": "j"}
    slow = judge(judge_model, prompts, responses, LETTERS, **answer, engine=TRANSFORMERS, engines=engines)
    with EngineCache() as own:
        fast = judge(judge_model, prompts, responses, LETTERS, **answer, engine=Engine(name="vllm"), engines=own)
    assert fast.verdicts.equals(slow.verdicts) and fast.scores.table.equals(slow.scores.table)


def test_a_real_model_compares_and_the_order_of_the_input_does_not_matter(judge_model, engines):
    prompts, responses = candidates()
    answer = {"sampling": ONE_TOKEN, "engine": TRANSFORMERS, "engines": engines, "model_name": "j"}
    judged = judge(judge_model, prompts, responses, LETTERS, **answer)
    assert judged.verdicts.num_rows == 80
    outcomes = judged.reliability.comparisons
    assert sum(outcomes.values()) == 40 and outcomes["unreadable"] > 0
    backwards = responses.take(list(range(79, -1, -1)))
    again = judge(judge_model, prompts, backwards, LETTERS, **answer)
    assert again.verdicts.equals(judged.verdicts)
    assert again.scores.table.take(list(range(79, -1, -1))).equals(judged.scores.table)
    no_gold = prompts.set_column(2, prompts.schema.field("answer"), pa.nulls(40, pa.string()))
    assert judge(judge_model, no_gold, responses, LETTERS, **answer).verdicts.equals(judged.verdicts)


def test_what_cannot_be_judged_is_counted(judge_model, engines):
    prompts = [Prompt.of(f"q {i}") for i in range(4)]
    p, q, r, s = (prompt.id for prompt in prompts)
    rows = [
        Response(p, 0, "m", "one"),
        Response(p, 0, "n", "two"),
        Response(p, 1, "n", None, finish_reason="error"),
        Response(p, 0, "m", "one"),
        Response(q, 0, "m", "alone"),
        Response(r, 0, "m", "the same"),
        Response(r, 0, "n", "the same"),
        Response("elsewhere", 0, "m", "x"),
        Response(s, 0, "m", "1" * 200),
        Response(s, 0, "n", "2" * 200),
    ]
    judged = judge(
        judge_model,
        to_table(prompts),
        to_table(rows),
        LETTERS,
        sampling=ONE_TOKEN,
        engine=TRANSFORMERS,
        engines=engines,
    )
    details = judged.scores.table["detail"].to_pylist()
    assert details[2:5] == ["generation failed", "duplicate", "only one response"]
    assert details[5:8] == ["1 tie", "1 tie", "prompt not found"]
    assert details[8:] == ["no comparison with two readable orders"] * 2
    assert judged.reliability.verdicts["same text"] == 1
    assert judged.reliability.verdicts["the judge's prompt is too long"] == 2
    with pytest.raises(UserError, match="nothing to judge") as caught:
        judge(judge_model, to_table(prompts), to_table(rows[4:5]), LETTERS)
    assert "1 only one response" in str(caught.value)


def test_a_killed_judge_goes_on(judge_model, engines, tmp_path):
    prompts, responses = candidates(12)
    answer = {"sampling": ONE_TOKEN, "engine": TRANSFORMERS, "engines": engines}
    whole = judge(judge_model, prompts, responses, LETTERS, **answer, out=tmp_path / "whole")
    # A job that was killed when five answers were on disk leaves its journal: the same call makes the rest only.
    job = json.loads((tmp_path / "whole" / "generation.json").read_text())["job"]
    rows = pa.concat_tables([whole.generation.table()]).to_pylist()
    assert len(rows) == 24 and job
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        judge(judge_model, prompts, responses, LETTERS, **answer, out=killed, progress=interrupt)
    assert (killed / "journal.jsonl").exists() and not (killed / "generation.json").exists()
    again = judge(judge_model, prompts, responses, LETTERS, **answer, out=killed)
    assert again.verdicts.equals(whole.verdicts) and again.scores.table.equals(whole.scores.table)


def interrupt(done, total, note):
    raise KeyboardInterrupt
