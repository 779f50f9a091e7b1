"""Win rate against a reference, controlled for length: what a judge would prefer if both answers were equally long.

Reads preferences (0 loss, 1 win) and length differences, returns plain numbers. Judges like long answers; the raw win
rate of a model that merely became wordier therefore rises, and this one does not.

The model is that of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475), without its instruction difficulty:

    logit P(win) = theta + phi * tanh(length difference / its standard deviation)
    length-controlled win rate = sigmoid(theta), which is P(win) at a difference of 0

Simplified against the published program: (1) no instruction difficulty, a table of the authors' own that is fitted on
other models' results and belongs to their 805 instructions and their judge; (2) phi has a weak normal prior in place
of a cross-validated L1 penalty and of extra rows with a reference cut and stretched on purpose; theta has none, so the
model reproduces the raw win rate. Numbers compare between arms here, and are not those of the public leaderboard;
:mod:`published_length_control` has its fit, for those who have its data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from w2s_align.evaluation.statistics import LEVEL, Floats, Interval, mean_interval

PRIOR = 0.1
"""Weight of phi squared over two in the fit: nothing beside a hundred problems, and keeps phi finite on a few."""
EXTREME = 0.10
"""A length-controlled win rate this far from the raw one, and a quarter of the way to 0 or 1, is a warning."""
METRIC = "length_controlled"
"""The metric of a task that counts by its length-controlled win rate."""


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate.

    Attributes:
        estimate: The win rate with an interval over problems.
        raw: Mean preference, with its interval.
        theta: Log-odds of a win at equal lengths; infinite where every comparison is won or lost.
        phi: Change of the log-odds by length, from equal lengths to a much longer answer; 0 where it cannot be seen.
        preferences: One number per problem: the mean preference for its answers; NaN where it has none.
        values: One number per problem, NaN where it has none, whose mean is the win rate and whose spread is its
            error: the win rate plus the problem's influence on it. Single values can lie outside 0 to 1.
    """

    estimate: Interval
    raw: Interval
    theta: float
    phi: float
    preferences: Floats
    values: Floats


def length_controlled_win_rate(
    preferences: ArrayLike,
    length_differences: ArrayLike,
    *,
    problems: ArrayLike | None = None,
    prior: float = PRIOR,
    level: float = LEVEL,
    seed: int = 0,
) -> LengthControlled:
    """Fit the model at the head of this file.

    Args:
        preferences: Of each answer: 1 where it is preferred to the reference, 0 where the reference is, between them
            for ties and for orders that contradict each other. NaN where the judge could not be read: left out.
        length_differences: Length of the answer minus that of the reference, in characters.
        problems: Number of each answer's problem, from 0; every problem counts the same. Default: one answer each.
        prior: Weight of the prior on phi.
        level: Confidence level.
        seed: Seed of the resampling of problems.

    Raises:
        ValueError: The arrays do not fit together, or a preference is outside 0 to 1.
    """
    y, delta = np.asarray(preferences, dtype=float), np.asarray(length_differences, dtype=float)
    place = np.arange(len(y)) if problems is None else np.asarray(problems, dtype=np.int64)
    if y.ndim != 1 or y.shape != delta.shape or y.shape != place.shape:
        raise ValueError(f"preferences {y.shape}, lengths {delta.shape} and problems {place.shape} differ in shape")
    total = int(place.max()) + 1 if len(place) else 0
    values = np.full(total, np.nan)
    raw = np.full(total, np.nan)
    known = np.isfinite(y) & np.isfinite(delta)
    y, delta, place = y[known], delta[known], place[known]
    if ((y < 0) | (y > 1)).any():
        raise ValueError("a preference lies between 0 and 1")
    counts = np.bincount(place, minlength=total)
    asked = counts > 0
    weights = 1.0 / counts[place]
    raw[asked] = np.bincount(place, weights=y * weights, minlength=total)[asked]
    before = mean_interval(raw, level=level, seed=seed)
    theta = phi = 0.0
    if not asked.any() or (y.min() == y.max() and y.min() in (0, 1)):
        values, theta = raw, float(special.logit(before.value)) if before.value is not None else 0.0
    else:
        spread = float(delta.std(ddof=1)) if len(delta) > 1 else 0.0
        bent = np.tanh(delta / spread) if spread > 0 else np.zeros_like(delta)
        theta, phi = _fit(y, bent, weights, prior)
        rate = float(special.expit(theta))
        predicted = special.expit(theta + phi * bent)
        rows = np.column_stack([np.ones_like(bent), bent])
        curvature = (rows * (weights * predicted * (1 - predicted))[:, None]).T @ rows + np.diag([0.0, prior])
        pull = rows @ np.linalg.solve(curvature, [1.0, 0.0]) * weights * (y - predicted)
        influence = rate * (1 - rate) * asked.sum() * np.bincount(place, weights=pull, minlength=total)[asked]
        values[asked] = rate + influence - influence.mean()
    return LengthControlled(mean_interval(values, level=level, seed=seed), before, theta, phi, raw, values)


def _fit(y: Floats, bent: Floats, weights: Floats, prior: float) -> tuple[float, float]:
    """Return theta and phi at the minimum of the weighted cross-entropy plus the prior (convex, two numbers)."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        theta, phi = parameters
        logit = theta + phi * bent
        error = weights * (special.expit(logit) - y)
        value = float(weights @ (np.logaddexp(0.0, logit) - y * logit)) + 0.5 * prior * phi**2
        return value, np.array([error.sum(), error @ bent + prior * phi])

    found = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500})
    return float(found.x[0]), float(found.x[1])


def is_extreme(raw: float | None, controlled: float | None) -> bool:
    """Return whether control moves a win rate so far that the published program doubts its own fit."""
    if raw is None or controlled is None:
        return False
    room = raw if controlled < raw else 1 - raw
    return abs(controlled - raw) > max(EXTREME, room / 4)


def of_task(scores: pa.Table, ids: pa.Array, mask: NDArray[np.bool_], seed: int = 0) -> LengthControlled | None:
    """Control the scores of a judged task for length.

    Args:
        scores: Rows of ``Score.SCHEMA``; the task's have a ``length_difference``, or no value.
        ids: All problems.
        mask: Which of them are the task's.
        seed: Seed of the resampling.

    Returns:
        One value for each problem of the task; None when a scored row does not say its length.
    """
    own = ids.filter(pa.array(mask))
    scores = scores.filter(pc.is_in(scores["prompt_id"], value_set=own))
    where = pc.index_in(scores["prompt_id"], value_set=own).to_numpy()
    values = scores["value"].to_numpy().astype(float)
    lengths = pc.cast(scores["length_difference"], pa.float64()).to_numpy().astype(float)  # NaN where it is null
    if bool((np.isfinite(values) & ~np.isfinite(lengths)).any()):
        return None
    return length_controlled_win_rate(values, lengths, problems=where, seed=seed)
