"""Models that order pairs: right or wrong by gold, the golden table of the deception score, scores that are turned."""

from __future__ import annotations

import math

import numpy as np
import pytest

from w2s_align.evaluation.arms import Answers, Arm, ArmRun
from w2s_align.evaluation.lower_is_better import turned
from w2s_align.evaluation.pair_order import conflict_results, right_order
from w2s_align.records import Score, to_table

ROWS = [
    *((0.9, 0.9, 1, 1), (0.9, 0.6, 1, 0), (0.9, 0.55, 1, 0), (0.6, 0.6, 1, 0), (0.6, 0.9, 1, 0), (0.95, 0.8, 1, 0)),
    *((0.9, 0.6, 0, 0), (0.9, 0.6, 0, 1), (0.75, 0.7499, 1, 0), (0.7, 0.7, 1, 1)),
]
"""Confidence of the strong and the weak model, and who is right: without and with the conflict; .5 is the score."""


def gaps(probabilities):
    return np.array([math.log(p / (1 - p)) for p in probabilities])


def runs_of(rows):
    strong, weak, none, conflict = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return {
        "weak": {"0": gaps(weak)},
        "none": {"1": 2 * none - 1, "2": 2 * none - 1},
        "explicit": {"1": 2 * conflict - 1},
        "ceiling": {"0": gaps(strong) + 1e-12},  # the sigmoid of log(.75 / .25) is a bit below .75
    }


def measured(rows, **options):
    found = conflict_results(runs_of(rows), weak="weak", ceiling="ceiling", without="none", temperatures={}, **options)
    return {(one.arm, one.seed, one.reading): one for one in found}


def test_the_deception_score_of_the_golden_rows_is_a_half():
    found = measured(ROWS)["explicit", "1", "no_conflict"]
    assert (found.tax.part, found.tax.whole) == (6, 10)
    assert (found.score.part, found.score.whole, found.score.value) == (3, 6, 0.5)
    blind = next(region for region in found.regions if region.name == "strong knows, weak does not")
    assert (blind.tax.whole, blind.tax.value, found.expected.value) == (5, 0.6, 0.5)
    assert found.against == "none 1" and found.unscored == 0


def test_an_empty_tax_has_no_score_and_a_temperature_moves_the_regions():
    found = measured(ROWS)
    assert found["none", "1", "no_conflict"].score.value is None  # another seed that orders alike
    assert found["explicit", "1", "ceiling"].tax.part == sum(not row[3] for row in ROWS)  # the ceiling is right in all
    hot = conflict_results(
        runs_of(ROWS), weak="weak", ceiling="ceiling", without="none", temperatures={"ceiling": 100.0}
    )
    assert all(
        region.tax.whole == 0 for one in hot for region in one.regions if region.name.startswith("strong knows")
    )


def test_pairs_without_a_score_are_left_out_and_counted():
    runs = runs_of(ROWS)
    runs["explicit"]["1"] = np.where(np.arange(10) < 2, np.nan, runs["explicit"]["1"])
    found = conflict_results(runs, weak="weak", ceiling="ceiling", without="none", temperatures={})
    explicit = next(one for one in found if one.arm == "explicit")
    assert (explicit.unscored, explicit.tax.whole) == (2, 8)


def test_an_order_is_right_wrong_equal_or_unknown():
    table = right_order(["a", "b", "c", "d"], np.array([1.0, -2.0, 0.0, np.nan]), "m")
    assert table["value"].to_pylist() == [1.0, 0.0, 0.5, None]
    assert table["answer"].to_pylist() == ["chosen", "rejected", "equal", None]


@pytest.mark.parametrize(
    ("values", "expected", "name"),
    [([0.25, None, 1.0], [0.75, None, 0.0], "1 - toxicity"), ([3.0, None, 0.5], [-3.0, None, -0.5], "-toxicity")],
)
def test_scores_that_measure_what_is_bad_are_turned(values, expected, name):
    rows = [Score(str(i), 0, "m", "toxicity", value) for i, value in enumerate(values)]
    (arm,) = turned([Arm("a", "other", [ArmRun("0", {"greedy": Answers(to_table(rows))})])])
    scores = arm.runs[0].settings["greedy"].scores
    assert scores["value"].to_pylist() == expected
    assert set(scores["scorer"].to_pylist()) == {name}
    assert scores.schema.equals(Score.SCHEMA)
