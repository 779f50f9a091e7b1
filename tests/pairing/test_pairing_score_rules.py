"""Rules that compare scores, each against a table worked by hand."""

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import (
    Level,
    best_random,
    best_worst,
    confirmed,
    max_delta,
    ranked_scores,
    self_over_weaker,
    worst_of_weak,
)

ROWS = [
    ("a", "big", 0, "a big", 5.0),
    ("a", "mid", 0, "a mid", 4.0),
    ("a", "small", 0, "a small", 2.0),
    ("a", "tiny", 0, "a tiny", 1.0),
    ("b", "big", 0, "b big", 2.0),
    ("b", "mid", 0, "b mid", 1.0),
    ("b", "small", 0, "b small", 3.0),
    ("b", "tiny", 0, "b tiny", 3.0),
    ("c", "big", 0, "c big", 3.0),
    ("c", "tiny", 0, "c tiny", 3.0),
    ("d", "big", 0, "d big", 3.0),
    ("d", "mid", 0, "d mid", 2.5),
]


@pytest.fixture
def tables(make):
    responses = make.responses([row[:4] for row in ROWS])
    return responses, make.scores([(p, model, s, value) for p, model, s, _, value in ROWS]), make.prompts("abcde")


def test_best_worst(make, tables):
    pairs = best_worst(*tables, margin=1.0)
    drawn = make.short(pairs)
    assert drawn[0] == ("a", "a big", "a tiny")
    assert drawn[1] in [("b", "b small", "b mid"), ("b", "b tiny", "b mid")]
    assert len(drawn) == 2
    assert pairs.table["delta"].to_pylist() == [4.0, 2.0]
    assert make.dropped(pairs, "prompt") == {
        make.id("c"): "all scores equal",
        make.id("d"): "gap below the margin",
        make.id("e"): "no response",
    }
    winners = {make.short(best_worst(*tables, seed=seed))[1][1] for seed in range(20)}
    assert winners == {"b small", "b tiny"}


def test_best_random(make, tables):
    drawn = [make.short(best_random(*tables, seed=seed)) for seed in range(40)]
    assert {pairs[0] for pairs in drawn} == {("a", "a big", f"a {other}") for other in ("mid", "small", "tiny")}
    assert {rejected for _, _, rejected in (pairs[1] for pairs in drawn)} == {"b big", "b mid"}
    assert [question for question, _, _ in drawn[0]] == ["a", "b", "d"]
    three = best_random(*tables, pairs_per_prompt=3)
    assert sorted(make.short(three))[:3] == [("a", "a big", f"a {other}") for other in ("mid", "small", "tiny")]


def test_worst_of_weak(make, tables):
    pairs = worst_of_weak(*tables, weak_models=["small", "mid"])
    drawn = make.short(pairs)
    assert drawn[0] == ("a", "a big", "a small")
    assert drawn[1][2] == "b mid"
    assert drawn[2] == ("d", "d big", "d mid")
    assert make.dropped(pairs, "prompt") == {make.id("c"): "no weak response", make.id("e"): "no response"}
    with pytest.raises(UserError, match="No response is by the weak model huge") as caught:
        worst_of_weak(*tables, weak_models=["huge"])
    assert "big, mid, small, tiny" in caught.value.problems[0].fix


def test_max_delta_takes_the_models_that_lie_furthest_apart(make, tables):
    # mean gaps: big-mid (1 + 1 + 0.5) / 3 = 0.83, big-small (3 - 1) / 2 = 1, big-tiny (4 - 1) / 3 = 1, the others
    # less; of equals the first by name
    pairs = max_delta(*tables)
    assert make.short(pairs) == [("a", "a big", "a small"), ("b", "b big", "b small")]
    assert pairs.table["delta"].to_pylist() == [3.0, -1.0]
    assert make.dropped(pairs, "prompt") == {
        make.id("c"): "no rejected response",
        make.id("d"): "no rejected response",
        make.id("e"): "no chosen response",
    }
    with pytest.raises(UserError, match="two models"):
        max_delta(tables[0].slice(0, 1), *tables[1:])


def test_self_over_weaker(make):
    own, weaker = make.responses([("a", "student", 0, "x")]), make.responses([("a", "weaker", 0, "y")])
    pairs = self_over_weaker(own, weaker, make.prompts("a"))
    assert make.short(pairs) == [("a", "x", "y")]
    assert pairs.table["rule"].to_pylist() == ["self_over_weaker"]


def ranked(make, rows, levels, **options):
    """Rows are (sample, value of f, value of g); one prompt."""
    responses = make.responses([("a", "m", sample, str(sample)) for sample, _, _ in rows])
    scores = pa.concat_tables(
        [
            make.scores([("a", "m", sample, f) for sample, f, _ in rows], "f"),
            make.scores([("a", "m", sample, g) for sample, _, g in rows], "g"),
        ]
    )
    return ranked_scores(responses, scores, make.prompts("a"), levels=levels, pairs_per_prompt=99, **options)


def test_ranked_scores_first_level_that_differs_decides(make):
    levels = [Level(scorer="f"), Level(scorer="g", margin=0.5)]
    pairs = ranked(make, [(0, 1.0, 0.0), (1, 0.0, 9.0), (2, 0.0, 8.6), (3, 0.0, None)], levels)
    assert set(make.short(pairs)) == {("a", "0", other) for other in "123"}
    assert pairs.table["rule"].to_pylist() == ["ranked_scores:f"] * 3
    pairs = ranked(make, [(1, 0.0, 9.0), (2, 0.0, 8.0)], levels)
    assert make.short(pairs) == [("a", "1", "2")]
    assert pairs.table["rule"].to_pylist() == ["ranked_scores:g"]
    assert (pairs.table["score_chosen"][0].as_py(), pairs.table["delta"][0].as_py()) == (9.0, 1.0)
    nothing = ranked(make, [(1, 0.0, 9.0), (2, 0.0, 8.6)], levels)
    assert make.dropped(nothing, "prompt") == {make.id("a"): "no level decides"}


def test_ranked_scores_direction_and_standard_deviations(make):
    rows = [(0, 1.0, 10.0), (1, 1.0, 20.0), (2, 1.0, 24.0)]  # sd of g: 7.21
    shorter = [Level(scorer="g", lower_is_better=True, margin=1.0, unit="std")]
    pairs = ranked(make, rows, shorter)
    assert make.short(pairs) == [("a", "0", "2"), ("a", "0", "1")]
    assert pairs.table["score_chosen"].to_pylist() == [-10.0, -10.0]


def test_ranked_scores_leaves_out_cycles(make):
    # f within its margin for 0-1 and 1-2, decides 0 over 2; g decides 1 over 0 and 2 over 1: a cycle of three
    levels = [Level(scorer="f", margin=1.0), Level(scorer="g")]
    pairs = ranked(make, [(0, 2.0, 1.0), (1, 1.0, 2.0), (2, 0.0, 3.0)], levels)
    assert pairs.table.num_rows == 0
    assert make.dropped(pairs, "prompt") == {make.id("a"): "no level decides"}


def test_ranked_scores_shares_of_the_levels(make):
    """The shares decided at each level that verifiers.md 3 states for margins of one standard deviation."""
    import random

    draw = random.Random(0)
    n = 6000
    values = [[(float(draw.random() < 0.21), draw.gauss(0, 1), draw.gauss(0, 1)) for _ in "ab"] for _ in range(n)]
    names = [str(i) for i in range(n)]
    responses = make.responses([(p, "m", s, f"{s}") for p in names for s in (0, 1)])
    scores = pa.concat_tables(
        [
            make.scores([(p, "m", s, values[i][s][level]) for i, p in enumerate(names) for s in (0, 1)], f"z{level}")
            for level in range(3)
        ]
    )
    levels = [Level(scorer=f"z{level}", margin=1.0, unit="std") for level in range(3)]
    pairs = ranked_scores(responses, scores, make.prompts(names), levels=levels)
    shares = [pairs.table["rule"].to_pylist().count(f"ranked_scores:z{level}") / n for level in range(3)]
    assert shares == pytest.approx([0.341, 0.316, 0.164], abs=0.02)
    back = ranked_scores(responses, scores, make.prompts(names), levels=levels, control="reversed")
    assert back.table["chosen_sample"].equals(pairs.table["rejected_sample"])


def test_confirmed_keeps_the_pairs_in_which_the_score_agrees(make):
    better = make.responses([(p, "new", 0, f"new {p}") for p in "abcd"])
    worse = make.responses([(p, "old", 0, f"old {p}") for p in "abce"])
    values = {"a": (0.9, 0.1), "b": (0.2, 0.3), "c": (0.6, 0.5), "d": (1.0, None), "e": (None, 1.0)}
    rows = [(p, model, 0, v) for p, both in values.items() for model, v in zip(("new", "old"), both, strict=True)]
    scores = make.scores([row for row in rows if row[3] is not None])
    pairs = confirmed(better, worse, scores, make.prompts("abcde"), margin=0.2)
    assert make.short(pairs) == [("a", "new a", "old a")]
    assert make.dropped(pairs, "prompt") == {
        make.id("b"): "not confirmed by the score",
        make.id("c"): "not confirmed by the score",
        make.id("d"): "no rejected response",
        make.id("e"): "no chosen response",
    }
    assert len(make.short(confirmed(better, worse, scores, make.prompts("abcde")))) == 2
