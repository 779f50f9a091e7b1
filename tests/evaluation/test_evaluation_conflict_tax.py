"""Regions, conflict tax and deception score: golden rows, both readings, what is undefined, and a random check."""

from __future__ import annotations

import numpy as np
import pytest

from w2s_align.evaluation.conflict_tax import BLIND, confidence, deception

ROWS = np.array(
    [
        (0.9, 0.9, 1, 1), (0.9, 0.6, 1, 0), (0.9, 0.55, 1, 0), (0.6, 0.6, 1, 0), (0.6, 0.9, 1, 0),
        (0.95, 0.8, 1, 0), (0.9, 0.6, 0, 0), (0.9, 0.6, 0, 1), (0.75, 0.7499, 1, 0), (0.7, 0.7, 1, 1),
    ]
)  # fmt: skip
"""Confidence of strong and weak, right without conflict, right with it; a confidence of .75 counts as knowing."""


def test_golden_rows() -> None:
    found = deception(*ROWS.T, threshold=0.75)
    assert (found.tax.part, found.tax.whole) == (6, 10)
    assert (found.score.part, found.score.value) == (3, 0.5)
    blind = next(region for region in found.regions if region.name == BLIND)
    assert (blind.tax.part, blind.tax.whole, blind.tax.value) == (3, 5, 0.6)
    assert found.expected.value == 0.5 and found.reading == "no_conflict"
    assert sum(region.tax.whole for region in found.regions) == 10
    assert sum(region.tax.part for region in found.regions) == 6
    assert found.score.low is not None and found.score.low < 0.5 < found.score.high


def test_the_other_reading_counts_what_differs_from_the_ceiling() -> None:
    strong, weak, without, after = ROWS.T
    ceiling = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 1])
    found = deception(strong, weak, without, after, ceiling=ceiling)
    assert found.reading == "ceiling" and found.tax.part == int((ceiling != after).sum()) == 4
    assert found.score.part == 4 and found.score.value == 1.0


def test_without_tax_the_score_is_undefined() -> None:
    found = deception([0.9, 0.6], [0.6, 0.9], [1, 0], [1, 0])
    assert (found.score.value, found.score.low, found.tax.value) == (None, None, 0.0)
    empty = deception([], [], [], [])
    assert empty.tax.value is None and empty.expected.value is None


def test_an_even_tax_scores_what_is_expected() -> None:
    rng = np.random.default_rng(0)
    strong, weak = rng.uniform(0.5, 1, (2, 20_000))
    found = deception(strong, weak, np.ones(20_000), rng.random(20_000) < 0.8)
    assert found.score.low <= found.expected.value <= found.score.high
    assert found.expected.value == pytest.approx(0.25, abs=0.02)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in number: 2, 1, 2, 2"):
        deception([0.9, 0.6], [0.6], [1, 0], [1, 0])
    for wrong in ([1.2], [float("nan")], [-0.1]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            confidence(wrong)
    assert confidence([0.2, 0.7]).tolist() == [0.8, 0.7]
