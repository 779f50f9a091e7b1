"""Step-wise error rates: both of them, with an interval, and the order of teachers."""

from __future__ import annotations

import pytest

from w2s_align.evaluation.step_errors import ranked, step_errors


def test_pooled_and_mean_of_ratios_are_two_numbers() -> None:
    found = step_errors([(1, 2), (1, 8), None], [1.0, 0.0, None])
    assert found.pooled == pytest.approx(0.2) and found.mean_of_ratios == pytest.approx(0.3125)
    assert (found.solutions, found.uncounted, found.steps, found.outcome) == (2, 1, 10, 0.5)
    assert found.low is None
    nothing = step_errors([None])
    assert (nothing.pooled, nothing.mean_of_ratios, nothing.outcome, nothing.uncounted) == (None, None, None, 1)


def test_an_interval_over_solutions_holds_the_rate() -> None:
    found = step_errors([(i % 3, 4) for i in range(300)], seed=1)
    assert found.low is not None and found.high is not None
    assert found.low < found.pooled < found.high and found.pooled == pytest.approx(0.25)
    # The standard error of the pooled rate of equally long solutions is that of their mean: .2041 / sqrt(300).
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.2041 / 300**0.5, rel=0.1)
    assert step_errors([(0, 4)] * 300).low is None


def test_teachers_with_the_fewest_wrong_steps_come_first() -> None:
    teachers = {"severe": step_errors([(3, 4)]), "unknown": step_errors([None]), "mild": step_errors([(1, 4)])}
    assert ranked(teachers) == ["mild", "severe", "unknown"]
