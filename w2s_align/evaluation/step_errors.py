"""How wrong solutions are: by their final answers, and step by step. Which teacher to learn from.

A set of solutions has an outcome error rate (wrong final answers / solutions) and a step-wise error rate, which is two
numbers: pooled (wrong steps / steps of all solutions together) and the mean of the solutions' own ratios. The pooled
one is that of He, Yin and Peng (https://arxiv.org/abs/2410.20533); docs/methods/guiding_through_complexity.md. Reads
plain numbers, returns plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from w2s_align.evaluation.statistics import FEW_PROBLEMS, LEVEL, RESAMPLES, Floats, bca_interval


@dataclass(frozen=True)
class StepErrors:
    """The errors of one set of solutions.

    Attributes:
        solutions: Solutions whose steps were counted.
        uncounted: Solutions whose steps could not be counted.
        steps: Their steps.
        outcome: Share of wrong final answers among those that were checked; None where none was.
        pooled: Wrong steps / steps; None where there is no step.
        low: Lower end of its 95% interval over solutions; None for fewer solutions than an interval needs.
        high: Upper end.
        mean_of_ratios: Mean over solutions of wrong steps / steps.
    """

    solutions: int
    uncounted: int
    steps: int
    outcome: float | None
    pooled: float | None
    low: float | None
    high: float | None
    mean_of_ratios: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def step_errors(
    counts: Sequence[tuple[int, int] | None], right: Sequence[float | None] = (), *, seed: int = 0
) -> StepErrors:
    """Return the error rates of a set of solutions.

    Args:
        counts: For each solution its wrong steps and its steps; None where they could not be counted.
        right: For each solution 1 where its final answer is right; None where nobody knows. Empty: of none.
        seed: Seed of the interval.
    """
    rows = np.asarray([count for count in counts if count is not None], dtype=float).reshape(-1, 2)
    known = [value for value in right if value is not None]
    low: float | None = None
    high: float | None = None
    if len(rows) >= FEW_PROBLEMS and rows[:, 0].any():
        low, high = bca_interval(rows, _ratio, LEVEL, RESAMPLES, seed)
    return StepErrors(
        solutions=len(rows),
        uncounted=len(counts) - len(rows),
        steps=int(rows[:, 1].sum()),
        outcome=1 - sum(value >= 1 for value in known) / len(known) if known else None,
        pooled=float(_ratio(rows.sum(axis=0))) if len(rows) else None,
        low=low,
        high=high,
        mean_of_ratios=float((rows[:, 0] / rows[:, 1]).mean()) if len(rows) else None,
    )


def ranked(teachers: Mapping[str, StepErrors]) -> list[str]:
    """Return teachers with the fewest wrong steps first, by the pooled rate; those without one come last."""
    return sorted(teachers, key=lambda name: (teachers[name].pooled is None, teachers[name].pooled or 0.0, name))


def _ratio(means: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.asarray(means[..., 0] / means[..., 1])
    return ratio
