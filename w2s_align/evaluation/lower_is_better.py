"""Scores that measure what is bad, such as toxicity, turned so that all that compares arms can read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from w2s_align.evaluation.arms import Answers, Arm


def turned(arms: Sequence[Arm]) -> list[Arm]:
    """Return arms whose scores measure what is bad with scores that measure what is good.

    A value v becomes 1 - v where all values of all arms are shares, else -v; the scorer's name says which. Differences
    change their sign, the gap recovered does not: (W - S) / (W - C) = (S - W) / (C - W).

    Args:
        arms: The arms.
    """
    answers = [found for arm in arms for run in arm.runs for found in run.settings.values()]
    known = [value for found in answers for value in found.scores["value"].to_pylist() if value is not None]
    whole, sign = (1.0, "1 - ") if all(0 <= value <= 1 for value in known) else (0.0, "-")

    def turn(found: Answers) -> Answers:
        scores = found.scores
        values = [None if value is None else whole - value for value in scores["value"].to_pylist()]
        names = [f"{sign}{name}" for name in scores["scorer"].to_pylist()]
        for name, column in (("value", values), ("scorer", names)):
            place = scores.schema.get_field_index(name)
            scores = scores.set_column(place, scores.schema.field(name), [column])
        return replace(found, scores=scores)

    return [
        replace(
            arm,
            runs=[
                replace(run, settings={name: turn(found) for name, found in run.settings.items()}) for run in arm.runs
            ],
        )
        for arm in arms
    ]
