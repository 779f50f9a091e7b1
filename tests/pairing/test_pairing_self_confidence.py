"""The stage II rule of weak-to-strong reasoning, case by case, and the choice of responses to train on."""

import random

import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import self_confidence
from w2s_align.responses.select import select_agreeing, select_best, select_confident, select_correct, select_incorrect


def one(make, own, weak, **options):
    """Pairs of one prompt, from the answers of the own samples and of the weak model ("" for no answer)."""

    def text(who, i, answer):
        return f"{who} {'abcdefghijklmnop'[i]}: #### {answer}" if answer else f"{who} {'abcdefghijklmnop'[i]} no idea"

    samples = make.responses([("p", "own", i, text("own", i, answer)) for i, answer in enumerate(own)])
    weaks = make.responses([] if weak is None else [("p", "weak", 0, text("weak", 0, weak))])
    return self_confidence(samples, weaks, make.prompts("p"), **options)


@pytest.mark.parametrize(
    ("own", "weak", "outcome"),
    [
        ("7777711111", "7", "low confidence"),
        ("7777712345", "1", "low confidence"),
        ("7777771234", "7", "weak over other"),
        ("7777771234", "1", "unsure disagreement"),
        ("7777777123", "7", "weak over other"),
        ("7777777123", "1", "unsure disagreement"),
        ("7777777712", "7", "weak over other"),
        ("7777777712", "1", "own over weak"),
        ("7777777777", "7", "too easy"),
        ("7777777777", "1", "own over weak"),
        (["7"] * 8 + ["", ""], "7", "weak over other"),
        ([""] * 8 + ["7", "7"], "7", "majority has no answer"),
        (["7"] * 8 + ["1", "2"], "", "own over weak"),
        ("7777777712", None, "no weak response"),
        ("", "7", "no own response"),
    ],
)
def test_every_case_of_the_rule(make, own, weak, outcome):
    pairs = one(make, list(own), weak)
    made = make.short(pairs)
    if outcome == "weak over other":
        ((_, chosen, rejected),) = made
        assert chosen.startswith("weak") and rejected.startswith("own") and not rejected.endswith("#### 7")
    elif outcome == "own over weak":
        ((_, chosen, rejected),) = made
        assert chosen.startswith("own") and chosen.endswith("#### 7") and rejected.startswith("weak")
    else:
        assert made == []
        assert make.dropped(pairs, "prompt") == {make.id("p"): outcome}


def test_answers_are_compared_by_value_or_as_they_are_written(make):
    """In the source 1/2 and 0.5 are two answers, and an answer without its mark is none."""
    halves = ["0.5"] * 4 + ["1/2"] * 4 + ["3", "4"]
    assert make.short(one(make, halves, "0.5"))[0][1].startswith("weak")  # 8 of 10 agree
    written = one(make, halves, "0.5", compare="text")  # 4 of 10
    assert make.dropped(written, "prompt") == {make.id("p"): "low confidence"}
    assert make.short(one(make, list("7777777712"), "7", mark="####"))
    unmarked = one(make, list("7777777712"), "7", mark="Answer:")
    assert make.dropped(unmarked, "prompt") == {make.id("p"): "majority has no answer"}


def test_new_options_change_the_key_of_pairs_only_where_they_are_given():
    from w2s_align.steps.catalogue import CATALOGUE

    given = {"kind": "pair", "rule": "self_confidence", "own": "$own", "weak": "$weak"}
    assert not {"compare", "mark"} & CATALOGUE["pair"].model_validate(given).content().keys()
    assert CATALOGUE["pair"].model_validate(given | {"compare": "text"}).content()["compare"] == "text"


def test_scores_are_vote_shares(make):
    row = one(make, list("7777777712"), "1").table.to_pylist()[0]
    assert (row["score_chosen"], row["score_rejected"]) == (0.8, 0.1)
    row = one(make, list("7777777712"), "5").table.to_pylist()[0]
    assert (row["score_chosen"], row["score_rejected"]) == (0.8, 0.0)


def test_at_most_three_distinct_pairs_and_a_stable_seed(make):
    assert len(make.short(one(make, list("7777771234"), "7", pairs_per_prompt=3))) == 3
    assert len(make.short(one(make, list("7777777712"), "7", pairs_per_prompt=3))) == 2
    own = make.responses([("p", "own", i, "same #### 7" if i < 9 else "other #### 1") for i in range(10)])
    weak = make.responses([("p", "weak", 0, "#### 1")])
    assert make.short(self_confidence(own, weak, make.prompts("p"), pairs_per_prompt=3)) == [
        ("p", "same #### 7", "#### 1")
    ]
    draws = [make.short(one(make, list("7777771234"), "7", seed=seed)) for seed in range(20)]
    assert draws == [make.short(one(make, list("7777771234"), "7", seed=seed)) for seed in range(20)]
    assert len({str(draw) for draw in draws}) == 4


def test_cut_samples_vote_but_are_not_trained_on(make):
    rows = [("p", "own", i, f"{'abcdefgh'[i]} #### 7") for i in range(8)]
    cut = [("p", "own", 8, "cut", "length"), ("p", "own", 9, "cut too", "length")]
    weak = make.responses([("p", "weak", 0, "#### 7")])
    pairs = self_confidence(make.responses(rows + cut), weak, make.prompts("p"))
    assert make.dropped(pairs, "prompt") == {make.id("p"): "too easy"}
    assert self_confidence(make.responses(rows[:5] + cut), weak, make.prompts("p"), keep_at=0.72).table.num_rows == 0


def test_tied_pairs_have_the_same_answer(make):
    tied = one(make, list("7777777712"), "1", control="tied")
    ((_, chosen, rejected),) = make.short(tied)
    assert chosen != rejected and chosen.endswith("#### 7") and rejected.endswith("#### 7")
    assert tied.table["rule"].to_pylist() == ["self_confidence+tied"]
    agreeing = make.short(one(make, list("7777771234"), "7", control="tied"))
    assert agreeing[0][1].startswith("weak") and agreeing[0][2].endswith("#### 7")


def test_thresholds_are_checked(make):
    with pytest.raises(UserError, match=r"keep_at 0\.9 is above reject_at 0\.8"):
        one(make, ["1"], "1", keep_at=0.9, reject_at=0.8)


def test_select_agreeing(make):
    weak = make.responses(
        [("a", "w", 0, "#### 1"), ("b", "w", 0, "#### 2"), ("c", "w", 0, "none"), ("d", "w", 0, "1.0")]
    )
    strong = make.responses([("a", "s", 0, "is 1"), ("b", "s", 0, "is 3"), ("c", "s", 0, "none"), ("e", "s", 0, "1")])
    prompts = make.prompts("abcde")
    both = select_agreeing(weak, strong, prompts, keep="both")
    assert both.table["text"].to_pylist() == ["#### 1", "is 1"]
    assert {row["prompt_id"]: row["reason"] for row in both.dropped.to_pylist()} == {
        make.id("b"): "answers differ",
        make.id("c"): "no answer found",
        make.id("d"): "no second response",
        make.id("e"): "no first response",
    }
    assert both.counts.kept["prompt"] == 1 and both.counts.kept["response"] == 2
    assert select_agreeing(weak, strong, prompts, keep="second").table["text"].to_pylist() == ["is 1"]
    padded = select_agreeing(weak, strong, prompts, pad_to=2)
    assert len(padded.table) == 2 and padded.table["prompt_id"][0].as_py() == make.id("a")


def test_precision_of_agreement(make):
    """ab / (ab + (1 - a)(1 - b)c), where c is the chance that two wrong answers collide (w2s_reasoning.md 1.6)."""
    a, b, wrong = 0.6, 0.7, 4
    draw = random.Random(0)

    def answer(accuracy):
        return "0" if draw.random() < accuracy else str(draw.randint(1, wrong))

    n = 4000
    names = [str(i) for i in range(n)]
    first = make.responses([(p, "w", 0, f"#### {answer(a)}") for p in names])
    second = make.responses([(p, "s", 0, f"#### {answer(b)}") for p in names])
    kept = select_agreeing(first, second, make.prompts(names)).table["text"].to_pylist()
    expected = a * b / (a * b + (1 - a) * (1 - b) / wrong)
    assert kept.count("#### 0") / len(kept) == pytest.approx(expected, abs=0.015)


def test_select_by_score_and_confidence(make):
    rows = [("a", "m", i, f"{'xyzuv'[i]} #### {answer}") for i, answer in enumerate("77712")]
    rows += [("b", "m", i, f"#### {i}") for i in range(3)]
    responses = make.responses(rows)
    prompts = make.prompts("abc")
    kept = select_confident(responses, prompts, threshold=0.6, per_prompt=2)
    assert len(kept.table) == 2 and all(text.endswith("7") for text in kept.table["text"].to_pylist())
    assert kept.counts.lost("prompt", "low confidence") == 1 and kept.counts.lost("prompt", "no response") == 1
    scores = make.scores(
        [("a", "m", i, value) for i, value in enumerate([1.0, 0.0, None, 1.0, 0.5])] + [("b", "m", 0, 0.0)]
    )
    assert select_correct(responses, scores, prompts).table["sample"].to_pylist() == [0, 3]
    wrong = select_incorrect(responses, scores, prompts)
    assert wrong.table["sample"].to_pylist() == [1, 4, 0]
    assert wrong.counts.lost("response", "unscored") == 3


def test_the_best_response_of_each_prompt(make):
    rows = [("a", "m", 0, "a0"), ("a", "m", 1, "a1"), ("a", "m", 2, "a2"), ("b", "m", 0, "b0"), ("c", "m", 0, "c0")]
    scores = make.scores([("a", "m", 0, 0.2), ("a", "m", 1, 0.9), ("a", "m", 2, 0.9), ("b", "m", 0, 0.1)])
    prompts, responses = make.prompts("abc"), make.responses(rows)
    drawn = {tuple(select_best(responses, scores, prompts, seed=seed).table["text"].to_pylist()) for seed in range(20)}
    assert drawn == {("a1", "b0"), ("a2", "b0")}  # of equal ones either
    best = select_best(responses, scores, prompts)
    assert best.counts.lost("response", "unscored") == 1 and best.counts.lost("prompt", "no response") == 1
