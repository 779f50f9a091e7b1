"""The rule that trusts a pairwise judge only where both orders agree, worked by hand."""

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import judge
from w2s_align.scoring import VERDICTS

ORDERS = ("first", "second")


def verdicts(make, rows):
    """Rows are (prompt, model, sample, other model, other sample, value in the first order, value in the second)."""
    columns = [
        (make.id(p), model, s, other, os, shown, "", 0, "", value, None)
        for p, model, s, other, os, *values in rows
        for shown, value in zip(ORDERS, values, strict=True)
    ]
    return pa.table([list(column) for column in zip(*columns, strict=True)], schema=VERDICTS)


def test_two_candidates(make):
    texts = {"x": "left", "y": "right"}
    names = "abcdefg"
    rows = [(p, model, 0, f"{p} {text}") for p in names for model, text in texts.items()]
    rows += [("h", "x", 0, "h left")]
    table = verdicts(
        make,
        [
            ("a", "x", 0, "y", 0, 1.0, 1.0),
            ("b", "x", 0, "y", 0, 0.0, 0.0),
            ("c", "x", 0, "y", 0, 1.0, 0.0),
            ("d", "x", 0, "y", 0, 0.5, 0.5),
            ("e", "x", 0, "y", 0, 1.0, 0.5),
            ("f", "x", 0, "y", 0, None, 1.0),
        ],
    )
    pairs = judge(make.responses(rows), table, make.prompts(names + "hi"))
    assert make.short(pairs) == [("a", "a left", "a right"), ("b", "b right", "b left")]
    assert pairs.table["score_chosen"].to_pylist() == [1.0, 1.0]
    assert pairs.table["delta"].to_pylist() == [1.0, 1.0]
    assert pairs.table["rule"].to_pylist() == ["judge"] * 2
    assert make.dropped(pairs, "prompt") == {
        make.id("c"): "the order of the two decided",
        make.id("d"): "a tie",
        make.id("e"): "a tie in one order",
        make.id("f"): "unreadable verdict",
        make.id("g"): "not judged",
        make.id("h"): "one response only",
        make.id("i"): "no response",
    }
    outcomes = ("flip", "half tie", "loss", "tie", "unreadable", "win")
    assert pairs.counts.comparisons == dict.fromkeys(outcomes, 1)
    assert pairs.counts.totals()["comparisons"] == 6 and pairs.counts.lines()["comparisons: half tie"] == 1


def test_several_candidates_and_cycles(make):
    responses = make.responses([("a", "m", s, f"text {s}") for s in range(4)])
    wins = [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 0.0), (0, 3, 1.0), (1, 3, 0.5)]
    table = verdicts(make, [("a", "m", s, "m", o, v, v) for s, o, v in wins])
    pairs = judge(responses, table, make.prompts("a"), pairs_per_prompt=9)
    assert make.short(pairs) == [("a", "text 0", "text 3")]  # 0 over 1 over 2 over 0 is a cycle
    cycle = judge(responses, verdicts(make, [("a", "m", s, "m", o, v, v) for s, o, v in wins[:3]]), make.prompts("a"))
    assert make.dropped(cycle, "prompt") == {make.id("a"): "a cycle of verdicts"}
    assert cycle.counts.comparisons["win"] == 2


def test_clearer_verdicts_come_first_and_the_tied_control(make):
    responses = make.responses([("a", "m", s, f"text {s}") for s in range(4)])
    rows = [("a", "m", 0, "m", 1, 1.0, 0.75), ("a", "m", 0, "m", 2, 1.0, 1.0), ("a", "m", 1, "m", 3, 0.5, 0.5)]
    table = verdicts(make, [*rows, ("a", "m", 2, "m", 3, 0.0, 0.0)])
    pairs = judge(responses, table, make.prompts("a"), pairs_per_prompt=2)
    assert {rejected for _, _, rejected in make.short(pairs)} == {"text 2"}
    both = judge(responses, table, make.prompts("a"), pairs_per_prompt=3)
    assert make.short(both)[2] == ("a", "text 0", "text 1")
    assert both.table["score_chosen"].to_pylist()[2] == 0.875
    # shares of the comparisons won: 0: (0.875 + 1) / 2, 1: 0.3125, 2: 0, 3: 0.75: nobody else is as good as 0 or 3
    with pytest.raises(UserError, match="tied control cannot be made"):
        judge(responses, table, make.prompts("a"), pairs_per_prompt=3, control="tied")
    even = verdicts(make, [("a", "m", s, "m", o, v, v) for s, o, v in ((0, 2, 1.0), (1, 3, 1.0), (0, 1, 0.5))])
    tied = judge(responses, even, make.prompts("a"), control="tied")
    assert {frozenset(pair[1:]) for pair in make.short(tied)} == {frozenset({"text 0", "text 1"})}
    assert tied.table["delta"].to_pylist() == [0.0]


def test_verdicts_of_single_responses_are_refused(make):
    table = pa.table(
        [[value] for value in (make.id("a"), "m", 0, None, None, None, "x", 0, "rated", 3.0, None)], schema=VERDICTS
    )
    with pytest.raises(UserError, match="one by one"):
        judge(make.responses([("a", "m", 0, "x")]), table, make.prompts("a"))


def test_comparisons_of_unusable_responses_are_counted(make):
    responses = make.responses([("a", "x", 0, "cut", "length"), ("a", "y", 0, "whole")])
    table = verdicts(make, [("a", "x", 0, "y", 0, 1.0, 1.0), ("z", "x", 0, "y", 0, 1.0, 1.0)])
    pairs = judge(responses, table, make.prompts("a"))
    assert pairs.table.num_rows == 0 and sum(pairs.counts.comparisons.values()) == 2
    assert pairs.counts.comparisons == {"of a response that is not usable": 2}
    assert make.dropped(pairs, "prompt") == {make.id("a"): "one response only"}
