"""What training again would change: the uncertainty of training seeds beside that of problems.

An arm that was trained with several seeds stands for a method; the next seed gives another model. Its mean over runs
therefore has two sources of error: which problems were asked, and which seeds were drawn. An interval over problems
alone covers the effect of the *models*, not of the method: where the true effect is 0 and seeds differ by 5 points, it
claims a gain in 12% of studies with three seeds.

The combined interval is the method of variance estimates recovery (Zou and Donner 2008, doi 10.1002/sim.3095): the
distances from the estimate to the ends of independent intervals are added in squares. The seeds' part is a t interval
over the runs' means, from which the noise that they have only because the problems are finite is taken away first: it
is in the problems' part already. Chosen among five ways by simulation; measured by ``scripts/check_coverage.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SeedPart:
    """How much the mean over an arm's runs would change with other seeds.

    Attributes:
        variance: Variance of the mean over runs that is due to the draw of seeds.
        freedom: Degrees of freedom of that estimate: runs minus 1.
    """

    variance: float
    freedom: int


def seed_part(runs: Floats, weights: Floats | None = None) -> SeedPart | None:
    """Estimate the seeds' part of the variance of an arm's mean.

    Args:
        runs: One row per run, one column per problem; a problem that some run lacks (NaN) is left out.
        weights: Weight of each problem in the mean; they are made to sum to 1. Equal by default.

    Returns:
        None for a single run: nothing can be said of other seeds.
    """
    if len(runs) < 2:
        return None
    known = np.isfinite(runs).all(axis=0)
    x = runs[:, known]
    if not x.shape[1]:
        return None
    w = np.ones(x.shape[1]) if weights is None else np.asarray(weights, dtype=float)[known]
    w = w / w.sum()
    means = x @ w
    noise = float((w**2 * (x - means[:, None]).var(axis=0, ddof=1)).sum())
    between = max(0.0, float(means.var(ddof=1)) - noise)
    return SeedPart(between / len(runs), len(runs) - 1)


def widened(
    value: float, low: float, high: float, parts: Sequence[SeedPart], level: float, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    """Add the seeds' part to an interval over problems.

    Args:
        value: The estimate.
        low: Lower end over problems alone.
        high: Upper end over problems alone.
        parts: Seeds' parts of the arms in the estimate: one, or two for a difference.
        level: Confidence level.
        bounds: What the ends may not pass, or None.
    """
    extra = sum(stats.t.ppf(0.5 + level / 2, part.freedom) ** 2 * part.variance for part in parts)
    if extra <= 0:
        return low, high
    low, high = value - math.sqrt((value - low) ** 2 + extra), value + math.sqrt((high - value) ** 2 + extra)
    return (low, high) if bounds is None else (max(low, bounds[0]), min(high, bounds[1]))


def p_with_seeds(value: float, p: float, parts: Sequence[SeedPart]) -> float:
    """Return the two-sided p-value of "no difference" over problems and seeds.

    It is the level at which :func:`widened` would just reach 0, with the problems' part taken as the normal
    interval that has the given p-value.

    Args:
        value: The difference.
        p: Its p-value over problems alone.
        parts: Seeds' parts of both arms.
    """
    if p >= 1 or value == 0 or not any(part.variance > 0 for part in parts):
        return p
    # A p-value of 0 has no quantile; the smallest positive float stands for it.
    error = abs(value) / float(stats.norm.isf(max(p, 5e-324) / 2))

    def excess(log_p: float) -> float:
        tail = math.exp(log_p) / 2
        seeds = sum(stats.t.isf(tail, part.freedom) ** 2 * part.variance for part in parts)
        return float(stats.norm.isf(tail)) ** 2 * error**2 + float(seeds) - value**2

    lowest, highest = math.log(max(p, 1e-300)), math.log(1 - 1e-12)
    if excess(highest) > 0:
        return 1.0
    if excess(lowest) <= 0:
        return p
    return math.exp(float(optimize.brentq(excess, lowest, highest)))


def detectable(mde: float | None, parts: Sequence[SeedPart], level: float, power: float = 0.8) -> float | None:
    """Return the minimum detectable effect over problems and seeds.

    Args:
        mde: Over problems alone; None stays None.
        parts: Seeds' parts of both arms.
        level: Confidence level.
        power: Share of studies in which the effect is found.
    """
    if mde is None:
        return None
    extra = sum(
        (stats.t.ppf(0.5 + level / 2, part.freedom) + stats.t.ppf(power, part.freedom)) ** 2 * part.variance
        for part in parts
    )
    return math.sqrt(mde**2 + float(extra))
