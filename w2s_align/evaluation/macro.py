"""Several tasks in one number: the plain mean over tasks, with problems as the unit within each.

Every task counts the same, whatever its number of problems (as in the averages that papers print). A task can itself
be the plain mean over its subjects (MMLU's 57). Tasks and subjects are fixed, problems are drawn: the error comes from
the problems of each, never from the spread between them.

``tasks`` below is the number of each problem's task, of shape (problems,); or of its task and of its part of the task,
of shape (problems, 2), where the parts of a task count the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from w2s_align.evaluation.metrics import SMALL_GAP, gap_recovered, performance_gap_recovered
from w2s_align.evaluation.seeds import detectable, p_with_seeds, seed_part, widened
from w2s_align.evaluation.statistics import (
    FEW_PROBLEMS,
    LEVEL,
    RESAMPLES,
    Floats,
    Interval,
    PairedDifference,
    bootstrap_means,
    mean_interval,
    paired_difference,
    sign_flip_test,
)

Estimated = TypeVar("Estimated", bound=Interval)


def macro_interval(
    values: ArrayLike,
    tasks: NDArray[np.int64],
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean over tasks with its interval.

    Args:
        values: One number per problem; NaN where there is none.
        tasks: Number of each problem's task.
        bounds: Least and greatest possible value.
        level: Confidence level.
        resamples: Bootstrap resamples, where there is one task alone.
        seed: Seed of the resampling, where there is one task alone.

    Returns:
        Over the tasks that have a number; with one task the interval of :func:`mean_interval`.
    """
    x = np.asarray(values, dtype=float)
    strata = _strata(x, tasks)
    if len(strata.parts) < 2:
        return mean_interval(x, bounds=bounds, level=level, resamples=resamples, seed=seed)
    mean, low, high = _stratified(strata, bounds, level)
    return Interval(mean, low, high, sum(map(len, strata.parts)), f"{strata.words}, stratified t")


def macro_mean(values: ArrayLike, tasks: NDArray[np.int64]) -> float:
    """Return the plain mean over the tasks that have a number; NaN when none has."""
    strata = _strata(np.asarray(values, dtype=float), tasks)
    return strata.mean if strata.parts else math.nan


def over_seeds(found: Estimated, runs: Sequence[Floats], options: Mapping[str, Any]) -> Estimated:
    """Add the uncertainty of training seeds to an interval or a difference over problems.

    Args:
        found: What :func:`macro_interval` or :func:`macro_difference` gave.
        runs: The values of the arm, or of both arms: runs x problems each. An arm with one run adds nothing: it stands
            for that model alone.
        options: ``tasks``, ``bounds`` and ``level`` as those functions take them.
    """
    tasks = options["tasks"]
    parts = [part for values in runs if (part := seed_part(values, _weights(values, tasks))) is not None]
    if found.value is None or found.low is None or found.high is None or not any(part.variance for part in parts):
        return found
    level, bounds = options["level"], options["bounds"]
    if isinstance(found, PairedDifference) and bounds is not None:
        bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    low, high = widened(found.value, found.low, found.high, parts, level, bounds)
    method = f"{found.method}, and {'/'.join(str(part.freedom + 1) for part in parts)} training seeds (t)"
    if not isinstance(found, PairedDifference):
        return replace(found, low=low, high=high, method=method)
    p = None if found.p is None else p_with_seeds(found.value, found.p, parts)
    return replace(found, low=low, high=high, method=method, p=p, mde=detectable(found.mde, parts, level))


def _weights(runs: Floats, tasks: NDArray[np.int64]) -> Floats:
    """Return each problem's weight in the plain mean over tasks; 0 for a problem that a run lacks."""
    known = np.isfinite(runs).all(axis=0)
    strata = _strata(np.where(known, 0.0, np.nan), tasks)
    weights = np.zeros(runs.shape[1])
    weights[known] = strata.per_problem * strata.tasks
    return weights


def macro_difference(
    first: ArrayLike,
    second: ArrayLike,
    tasks: NDArray[np.int64],
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compare two arms by their mean over tasks, on the same problems.

    The test flips the signs of the differences, each weighted so that all tasks count the same.

    Args:
        first: One number per problem, NaN where it has none.
        second: The same problems.
        tasks: Number of each problem's task.
        bounds: Bounds of one arm's values.
        level: Confidence level.
        resamples: Bootstrap resamples, where there is one task alone.
        seed: Seed of the drawn signs.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    d = a - b
    strata = _strata(d, tasks)
    if len(strata.parts) < 2:
        return paired_difference(a, b, bounds=bounds, level=level, resamples=resamples, seed=seed)
    widest = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    mean, low, high = _stratified(strata, widest, level)
    known = np.concatenate(strata.parts)
    shares = [part * (w / len(part)) for part, w in zip(strata.parts, strata.weights, strict=True)]
    weighted = np.concatenate(shares) * len(known)
    p, test = sign_flip_test(weighted, seed=seed)
    z = float(stats.norm.ppf(0.5 + level / 2) + stats.norm.ppf(0.8))
    return PairedDifference(
        mean,
        low,
        high,
        len(known),
        f"paired, {strata.words}, stratified t",
        p,
        f"{test}, {'tasks' if strata.tasks > 1 else 'subjects'} weigh the same",
        z * _error(strata, widest)[0],
        int((known > 1e-9).sum()),
        int((known < -1e-9).sum()),
    )


def macro_gap_recovered(
    weak: ArrayLike,
    student: ArrayLike,
    ceiling: ArrayLike,
    tasks: NDArray[np.int64],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Gap recovered by the means over tasks: (student - weak) / (ceiling - weak) of plain means over tasks.

    Problems are resampled within their tasks, for the three arms together. With one task that is
    :func:`~w2s_align.evaluation.metrics.performance_gap_recovered`, whose guards hold here too.

    Args:
        weak: One number per problem for the lower end.
        student: The same problems, for the arm that is judged.
        ceiling: The same problems, for the upper end.
        tasks: Number of each problem's task.
        level: Confidence level.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.
    """
    columns = np.column_stack([np.asarray(arm, dtype=float) for arm in (weak, student, ceiling)])
    strata = _strata(columns, tasks)
    parts = strata.parts
    if len(parts) < 2:
        return performance_gap_recovered(*columns.T, level=level, resamples=resamples, seed=seed)
    total = sum(map(len, parts))
    differences = replace(strata, parts=[part[:, 2] - part[:, 0] for part in parts])
    gap, low, high = _stratified(differences, (-1.0, 1.0), level)
    if low is None or high is None or low <= 0:
        reason = f"not defined: the gap between its ends, {gap:.3f} as a {strata.words}, has an interval"
        return Interval(None, None, None, total, f"{reason} that touches 0 ({low:.3f} to {high:.3f})")
    value = float(gap_recovered(np.average([part.mean(axis=0) for part in parts], axis=0, weights=strata.weights)))
    if min(map(len, parts)) < 2 or total < FEW_PROBLEMS:
        return Interval(value, None, None, total, f"no interval: {total} problems in {strata.words} are too few")
    rng = np.random.default_rng(seed)
    means = [bootstrap_means(part, resamples, rng) for part in parts]
    drawn = np.average(means, axis=0, weights=strata.weights)
    ends = np.nanquantile(gap_recovered(drawn), [0.5 - level / 2, 0.5 + level / 2])
    method = f"{strata.words}, bootstrap within each, arms resampled jointly"
    if gap < SMALL_GAP:
        method += f"; the gap is only {100 * gap:.1f} points"
    return Interval(value, float(ends[0]), float(ends[1]), total, method)


@dataclass(frozen=True)
class _Strata:
    """Numbers by task, or by part of a task.

    Attributes:
        parts: The known numbers of each.
        weights: Weight of each in the mean; they add up to 1.
        per_problem: Weight of each known number in the mean, in the order of the problems.
        tasks: How many tasks there are.
    """

    parts: list[Floats]
    weights: Floats
    per_problem: Floats
    tasks: int

    @property
    def mean(self) -> float:
        """The mean over tasks."""
        return float(np.dot(self.weights, [part.mean() for part in self.parts]))

    @property
    def words(self) -> str:
        """What the mean is over."""
        if self.tasks == 1:
            return f"mean of {len(self.parts)} subjects"
        parts = "" if len(self.parts) == self.tasks else f" ({len(self.parts)} tasks and subjects)"
        return f"mean of {self.tasks} tasks{parts}"


def _strata(x: Floats, tasks: NDArray[np.int64]) -> _Strata:
    """Split numbers by task or by part of a task; rows of several columns are known where all of them are."""
    known = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    kinds, index = np.unique(tasks.reshape(len(tasks), -1)[known], axis=0, return_inverse=True)
    index = index.reshape(-1)
    _, task, count = np.unique(kinds[:, 0], return_inverse=True, return_counts=True)
    weights = 1.0 / (len(count) * count[task.reshape(-1)]) if len(kinds) else np.zeros(0)
    size = np.bincount(index, minlength=len(kinds))
    parts = [x[known][index == kind] for kind in range(len(kinds))]
    return _Strata(parts, weights, (weights / size)[index] if len(kinds) else np.zeros(0), len(count))


def _stratified(
    strata: _Strata, bounds: tuple[float, float] | None, level: float
) -> tuple[float, float | None, float | None]:
    mean = strata.mean
    error, freedom = _error(strata, bounds)
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * error
    if bounds is None:
        return mean, mean - half, mean + half
    return mean, max(bounds[0], mean - half), min(bounds[1], mean + half)


def _error(strata: _Strata, bounds: tuple[float, float] | None) -> tuple[float, float]:
    """Return the standard error of the mean over tasks, and its degrees of freedom (Welch-Satterthwaite).

    A task whose problems are all alike shows no spread; it is given the one of the 95% bound on how often an unseen
    problem is different.
    """
    width = 1.0 if bounds is None else (bounds[1] - bounds[0]) / (2 if bounds[0] < 0 else 1)
    squares, freedoms = [], []
    for part, weight in zip(strata.parts, strata.weights, strict=True):
        n = len(part)
        spread = float(part.std(ddof=1)) if n > 1 else 0.0
        if spread < 1e-9:
            share = 1 - 0.05 ** (1 / n)
            spread = width * math.sqrt(share * (1 - share)) if n > 1 else width
        squares.append((weight * spread) ** 2 / n)
        freedoms.append(max(n - 1, 1))
    total = sum(squares)
    freedom = total**2 / sum(square**2 / f for square, f in zip(squares, freedoms, strict=True))
    return math.sqrt(total), max(freedom, 1.0)
