"""Rows of steps that only handle rows, before they run."""

from __future__ import annotations

from collections.abc import Sequence

from w2s_align.estimates.costs import StepEstimate
from w2s_align.estimates.rows import estimate_rows
from w2s_align.steps.combine import Combine
from w2s_align.steps.label_errors import LabelErrorsStep


def test_scorers_of_the_same_responses_are_combined_into_one_score_each() -> None:
    def sources(place: str) -> Sequence[StepEstimate]:
        return [StepEstimate(4000, True)] * 20 if place == "scores" else []

    found = estimate_rows(Combine(scores=["$a"] * 20), sources)
    assert (found.rows, found.exact) == (4000, False)


def test_label_errors_leave_at_most_the_pairs_that_there_were() -> None:
    def sources(place: str) -> Sequence[StepEstimate]:
        return {"pairs": [StepEstimate(500, True)], "ensemble": [StepEstimate(4000, True)]}.get(place, [])

    found = estimate_rows(LabelErrorsStep(pairs="$p", ensemble=["$a"]), sources)
    assert (found.rows, found.exact) == (500, False)
