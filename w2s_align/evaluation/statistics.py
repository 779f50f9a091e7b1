"""Statistics over problems: intervals, paired tests, minimum detectable effect.

The unit of analysis is the problem, never the sample: several answers to one problem are first averaged into one
number, and every interval and test is over those numbers. Reads arrays, returns plain values; every random draw has a
seed.

Which interval, and why (coverage measured by scripts/check_coverage.py):
  one answer per problem     Wilson's score interval, the standard for a share of independent yes/no results.
  several, 30+ problems      BCa bootstrap over problems; a t interval covers less where accuracy is near 0 or 1. For
                             shares never narrower than the next one, which covers more at the ends.
  several, < 30 problems     Wilson with the effective number of answers (shares) or t (anything else): a bootstrap of
                             a dozen problems is too narrow.
  all problems alike         the exact bound for "no exception in N problems": zero spread is not zero uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
"""An array of numbers, mostly one per problem."""

LEVEL = 0.95
"""Confidence level, as in most papers."""
RESAMPLES = 10_000
"""Bootstrap resamples: BCa looks for its ends far out in the tails, where fewer would be coarse."""
FEW_PROBLEMS = 30
"""Below this the bootstrap's intervals cover less than they say (scripts/check_coverage.py)."""
EXACT_FLIPS = 16
"""Up to so many problems all 2**16 sign patterns are enumerated; above that they are drawn."""
FLIPS = 20_000
"""Drawn sign patterns: p-values below 0.05 are then exact to about 0.002."""
_TIE = 1e-9  # sums that differ by less are the same number, computed in another order


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: The estimate; None when there is nothing to estimate from.
        low: Lower end; None when no honest interval exists (e.g. one problem and an unbounded score).
        high: Upper end.
        problems: How many problems it rests on.
        method: How the interval was made, e.g. ``BCa bootstrap``; the reason when there is none.
    """

    value: float | None
    low: float | None
    high: float | None
    problems: int
    method: str


@dataclass(frozen=True)
class PairedDifference(Interval):
    """Difference of two arms on the same problems (first minus second), with a test of "no difference".

    Attributes:
        p: Two-sided p-value; None when there is no problem that both arms have.
        test: How ``p`` was made.
        mde: Minimum detectable effect: see :func:`minimum_detectable_effect`.
        better: Problems where the first arm is better.
        worse: Problems where it is worse.
    """

    p: float | None = None
    test: str = ""
    mde: float | None = None
    better: int = 0
    worse: int = 0


def wilson(successes: float, trials: float, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval for a share (Wilson 1927).

    Args:
        successes: Right answers.
        trials: All answers; may be an effective number.
        level: Confidence level.

    Raises:
        ValueError: There is no trial.
    """
    if trials <= 0:
        raise ValueError("an interval needs at least one trial")
    z = float(stats.norm.ppf(0.5 + level / 2))
    return _score_interval(successes / trials, trials, z)


def _score_interval(share: float, trials: float, quantile: float) -> tuple[float, float]:
    shrink = 1 + quantile**2 / trials
    centre = (share + quantile**2 / (2 * trials)) / shrink
    half = quantile / shrink * math.sqrt(share * (1 - share) / trials + quantile**2 / (4 * trials**2))
    # at 0 and 1 the formula gives the end itself, up to rounding
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)


def _effective_wilson(x: Floats, level: float) -> tuple[float, float]:
    """Return Wilson's interval with as many answers as independent ones would give this error, and a t quantile."""
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x))
    return _score_interval(mean, mean * (1 - mean) / error**2, float(stats.t.ppf(0.5 + level / 2, len(x) - 1)))


def mean_interval(
    values: ArrayLike,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean over problems with its interval; see the head of this file for the choice of method.

    Args:
        values: One number per problem: the share of right answers, or any score. NaN marks a problem without a scored
            answer; it is left out.
        bounds: The least and the greatest possible value, or None when there is none (e.g. a count of sentences).
        level: Confidence level.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.
    """
    x = _known(values)
    n = len(x)
    if n == 0:
        return Interval(None, None, None, 0, "no scored problem")
    mean = float(x.mean())
    share = bounds == (0.0, 1.0)
    if share and _yes_or_no(x):
        return Interval(mean, *wilson(float(x.sum()), n, level), n, "Wilson")
    if _constant(x):
        return Interval(mean, *_alike(mean, n, bounds, level), n, _alike_method(n, bounds))
    if n >= FEW_PROBLEMS:
        low, high = bca_interval(x[:, None], _mean_of_first, level, resamples, seed)
        if share:  # near 0 and 1 the bootstrap sees too few of the rare answers
            least = _effective_wilson(x, level)
            low, high = min(low, least[0]), max(high, least[1])
        return Interval(mean, low, high, n, "BCa bootstrap, never narrower than Wilson" if share else "BCa bootstrap")
    if share:
        return Interval(mean, *_effective_wilson(x, level), n, "Wilson, effective number of answers")
    quantile = float(stats.t.ppf(0.5 + level / 2, n - 1))
    error = float(x.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, *_clip(mean - quantile * error, mean + quantile * error, bounds), n, "t")


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compare two arms on the same problems.

    Args:
        first: One number per problem, NaN where it has none.
        second: The same problems in the same order. Problems that lack either number are left out.
        bounds: Bounds of one arm's values, as in :func:`mean_interval`.
        level: Confidence level of the interval.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling and of drawn sign flips.

    Returns:
        Mean of first minus second. The test is the exact McNemar test when every value is 0 or 1, else the sign-flip
        permutation test.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"the two arms need one number per problem each, got shapes {a.shape} and {b.shape}")
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    d = a - b
    n = len(d)
    if n == 0:
        return PairedDifference(None, None, None, 0, "no problem that both arms have", test="none")
    widest = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    better, worse = int((d > _TIE).sum()), int((d < -_TIE).sum())
    low: float | None
    high: float | None
    if _constant(d):
        low, high = _alike(float(d.mean()), n, widest, level)
        method = _alike_method(n, widest)
    elif n >= FEW_PROBLEMS:
        low, high = bca_interval(d[:, None], _mean_of_first, level, resamples, seed)
        method = "paired BCa bootstrap"
    else:
        half = float(stats.t.ppf(0.5 + level / 2, n - 1) * d.std(ddof=1)) / math.sqrt(n)
        low, high = _clip(float(d.mean()) - half, float(d.mean()) + half, widest)
        method = "paired t"
    if _yes_or_no(a) and _yes_or_no(b):
        p, test = mcnemar_exact(better, worse), "exact McNemar"
    else:
        p, test = sign_flip_test(d, seed=seed)
    mde = minimum_detectable_effect(d, alpha=1 - level)
    return PairedDifference(float(d.mean()), low, high, n, method, p, test, mde, better, worse)


def sign_flip_test(differences: ArrayLike, *, flips: int = FLIPS, seed: int = 0) -> tuple[float, str]:
    """Two-sided sign-flip permutation test of "the differences are symmetric around 0".

    Under no difference each problem's sign is a coin toss. All patterns are enumerated for at most 16 problems with a
    difference; otherwise ``flips`` patterns are drawn and p = (1 + as extreme) / (1 + drawn), which is never 0.

    Args:
        differences: One number per problem; NaN is left out.
        flips: Patterns that are drawn.
        seed: Seed of the draw.

    Returns:
        The p-value and the name of the test.
    """
    d = _known(differences)
    size = np.abs(d[np.abs(d) > _TIE])
    if len(size) == 0:
        return 1.0, "sign flips, no difference anywhere"
    observed = abs(float(d.sum()))
    if len(size) <= EXACT_FLIPS:
        patterns = (np.arange(2 ** len(size))[:, None] >> np.arange(len(size))) & 1
        sums = (2.0 * patterns - 1.0) @ size
        return float((np.abs(sums) >= observed - _TIE).mean()), "sign flips, exact"
    rng = np.random.default_rng(seed)
    extreme = sum(int((np.abs(sums) >= observed - _TIE).sum()) for sums in _flipped_sums(size, flips, rng))
    return (1 + extreme) / (1 + flips), f"sign flips, {flips:,} drawn"


def _flipped_sums(size: Floats, flips: int, rng: np.random.Generator) -> Iterator[Floats]:
    level, count = np.unique(np.round(size, 12), return_counts=True)
    for drawn in _batches(flips, len(level)):
        if len(level) < len(size) / 4:
            # Problems with the same |difference| are interchangeable: one draw says how many of them are positive.
            sums = np.zeros(drawn)
            for size_of, problems in zip(level, count, strict=True):
                sums += size_of * (2.0 * rng.binomial(problems, 0.5, size=drawn) - problems)
            yield sums
        else:
            yield (2.0 * rng.integers(0, 2, size=(drawn, len(size)), dtype=np.int8) - 1.0) @ size


def mcnemar_exact(better: int, worse: int) -> float:
    """Exact McNemar test: two-sided p-value from the problems that only one of two arms solves (McNemar 1947)."""
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse, 0.5).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for testing several hypotheses at once (Holm 1979); None stays None and is not counted."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(known):
        running = max(running, min(1.0, p * (len(known) - rank)))
        adjusted[i] = running
    return adjusted


def minimum_detectable_effect(differences: ArrayLike, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Return the true difference that a comparison on this many problems would find with the given power.

    (z of 1 - alpha/2 + z of power) * standard error of the paired difference. Where hardly any problem differs, the
    observed spread understates what another set of problems would show, so the spread is never taken below that of the
    95% upper bound on "how often the arms differ" when they never did.

    Args:
        differences: One number per problem; NaN is left out.
        alpha: Level of the two-sided test.
        power: Probability of finding the difference.

    Returns:
        In the unit of the differences; None for fewer than 2 problems.
    """
    d = _known(differences)
    if len(d) < 2:
        return None
    unseen = 1 - 0.05 ** (1 / len(d))
    scale = float(np.abs(d).max()) or 1.0
    spread = max(float(d.std(ddof=1)), scale * math.sqrt(unseen))
    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return z * spread / math.sqrt(len(d))


def _mean_of_first(means: Floats) -> Floats:
    return means[..., 0]


def bca_interval(
    rows: Floats, statistic: Callable[[Floats], Floats], level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """BCa bootstrap interval (Efron 1987) for a function of column means; ``rows`` is problems x columns.

    Written out instead of scipy.stats.bootstrap because its cost there grows with problems x resamples. Problems with
    the same row are interchangeable, and with n answers a problem has few possible rows, so a resample is one
    multinomial draw of how often each distinct row occurs. Tested against scipy's.

    Args:
        rows: Problems x columns.
        statistic: Takes column means, for any number of resamples; returns one number for each.
        level: Confidence level.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.
    """
    n = len(rows)
    distinct, count = np.unique(rows, axis=0, return_counts=True)
    replicates = statistic(bootstrap_means(rows, resamples, np.random.default_rng(seed)))
    replicates = replicates[np.isfinite(replicates)]
    mean = rows.mean(axis=0)
    estimate = statistic(mean)
    below = (replicates < estimate - _TIE).mean() + 0.5 * (np.abs(replicates - estimate) <= _TIE).mean()
    bias = stats.norm.ppf(np.clip(below, 1 / (2 * len(replicates)), 1 - 1 / (2 * len(replicates))))
    without = statistic((n * mean - distinct) / (n - 1))
    pull = np.average(without, weights=count) - without
    cubed, squared = float(count @ pull**3), float(count @ pull**2)
    skew = cubed / (6 * squared**1.5) if squared > 0 else 0.0
    z = bias + stats.norm.ppf([0.5 - level / 2, 0.5 + level / 2])
    low, high = np.quantile(replicates, stats.norm.cdf(bias + z / (1 - skew * z)))
    return float(low), float(high)


def bootstrap_means(rows: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Return the column means of every resample of the rows: resamples x columns.

    Args:
        rows: Problems x columns.
        resamples: How many are drawn.
        rng: What draws them.
    """
    n = len(rows)
    distinct, count = np.unique(rows, axis=0, return_counts=True)
    return np.concatenate(
        [
            rng.multinomial(n, count / n, size=size) @ distinct / n
            if len(distinct) < n / 4
            else rows[rng.integers(0, n, size=(size, n), dtype=np.int32)].mean(axis=1)
            for size in _batches(resamples, n)
        ]
    )


def _batches(total: int, width: int) -> list[int]:
    """Split ``total`` draws of ``width`` numbers so that one batch stays below about 32 MB."""
    size = max(1, min(total, 4_000_000 // width))
    return [min(size, total - start) for start in range(0, total, size)]


def _alike(
    value: float, problems: int, bounds: tuple[float, float] | None, level: float
) -> tuple[float | None, float | None]:
    """Bound the mean when all problems gave ``value``: at most a share q of unseen problems is different."""
    if bounds is None:
        return None, None
    q = 1 - ((1 - level) / 2) ** (1 / problems)
    return value - q * (value - bounds[0]), value + q * (bounds[1] - value)


def _alike_method(problems: int, bounds: tuple[float, float] | None) -> str:
    what = "no interval" if bounds is None else "exact bound"
    return f"{what}: {problems} problem{'s' if problems > 1 else ''}, all alike"


def _known(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float).ravel()
    return x[np.isfinite(x)]


def _yes_or_no(x: Floats) -> bool:
    return bool(np.isin(x, (0.0, 1.0)).all())


def _constant(x: Floats) -> bool:
    return float(np.ptp(x)) <= _TIE


def _clip(low: float, high: float, bounds: tuple[float, float] | None) -> tuple[float, float]:
    return (low, high) if bounds is None else (max(low, bounds[0]), min(high, bounds[1]))
