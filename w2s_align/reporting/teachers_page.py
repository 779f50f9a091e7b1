"""Which teacher makes the fewest wrong steps, as a page."""

from __future__ import annotations

from collections.abc import Mapping

from w2s_align.evaluation.step_errors import StepErrors, ranked
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.text import DASH, Words

SHARE = Words("share")
_HEADER = [
    "solutions of",
    "wrong steps, pooled",
    "95% interval",
    "mean of ratios",
    "wrong answers",
    "solutions",
    "steps",
]
_HOW = (
    "Wrong steps, pooled: wrong steps / steps of all solutions together, with an interval over solutions. Mean of "
    "ratios: the mean over solutions of their own share. At equal shares of wrong answers a student learns more from "
    "solutions with fewer wrong steps (arXiv 2410.20533), so that the first in the table is the teacher to choose."
)


def teachers_article(title: str, teachers: Mapping[str, StepErrors], by: str) -> Article:
    """Return the page that ranks sets of solutions by their step-wise error.

    Args:
        title: Name of the step.
        teachers: The errors of each set, by name.
        by: Who counted the steps.
    """
    order = ranked(teachers)
    best = teachers[order[0]]
    uncounted = sum(errors.uncounted for errors in teachers.values())
    lede = (
        f"{SHARE.value(best.pooled)} of their steps are wrong. Steps were counted by {by}."
        if best.pooled is not None
        else ""
    )
    return Article(
        title,
        f"Fewest wrong steps: {order[0]}" if best.pooled is not None else "No step was counted",
        lede,
        [Section("Errors", [_HOW], (), [Table(_HEADER, [_row(name, teachers[name]) for name in order])])],
        {"teachers": {name: teachers[name].to_json() for name in order}},
        caveats=[f"The steps of {uncounted} solutions could not be counted."] if uncounted else [],
    )


def _row(name: str, errors: StepErrors) -> list[str]:
    shares = [
        DASH if value is None else SHARE.value(value)
        for value in (errors.pooled, errors.mean_of_ratios, errors.outcome)
    ]
    interval = DASH if errors.low is None else SHARE.interval(errors.low, errors.high)
    return [name, shares[0], interval, shares[1], shares[2], f"{errors.solutions:,}", f"{errors.steps:,}"]
