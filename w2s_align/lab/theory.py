"""Delta learning in logistic regression: the closed form, and a simulation that has to agree with it.

A student and two teachers are directions in R^d; inputs are standard normal, and labels are hard. All that matters
is how far each points along the truth (its cosine) and how much of its error it shares. Reads plain numbers, returns
plain numbers; numpy alone.

The reconstruction is ours, from section 6 of arXiv 2507.06187: preference tuning on "better teacher's
label over worse teacher's label" moves the student along v = c/|c| - r/|r| (c, r: the teachers), so that after time t

    cosine(t) = (norm * start + t * gap) / sqrt(norm**2 + 2 * t * norm * pull + t**2 * spread)

with gap = better - worse, pull = v . student/|student| and spread = |v|**2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Method = Literal["delta", "dpo", "reversed", "sft"]
METHODS: tuple[Method, ...] = ("delta", "dpo", "reversed", "sft")
"""Linear preference objective, DPO's own loss, the linear one with the teachers swapped, SFT on the better teacher."""


@dataclass(frozen=True)
class Geometry:
    """A student, a better and a worse teacher, by their cosines with the truth.

    Attributes:
        start: Cosine of the untouched student.
        better: Cosine of the better teacher.
        worse: Cosine of the worse teacher.
        shared: Share of each teacher's error direction that is the student's own error direction; the rest of the two
            teachers' errors is orthogonal. 0: independent errors.
        norm: Length of the student's vector.
    """

    start: float = 0.8
    better: float = 0.6
    worse: float = 0.3
    shared: float = 0.0
    norm: float = 1.0

    @property
    def gap(self) -> float:
        """How much better the better teacher is."""
        return self.better - self.worse

    @property
    def pull(self) -> float:
        """How far the update points along the student itself."""
        return self._with_student(self.better) - self._with_student(self.worse)

    @property
    def spread(self) -> float:
        """Squared length of the update."""
        between = self.better * self.worse + self.shared**2 * _error(self.better) * _error(self.worse)
        return 2 - 2 * between

    def _with_student(self, teacher: float) -> float:
        return self.start * teacher + self.shared * _error(self.start) * _error(teacher)

    def cosine(self, time: float | Floats) -> Floats:
        """Return the student's cosine with the truth after training for ``time`` on the linear objective."""
        t = np.asarray(time, dtype=float)
        length = np.sqrt(self.norm**2 + 2 * t * self.norm * self.pull + t**2 * self.spread)
        cosine: Floats = (self.norm * self.start + t * self.gap) / length
        return cosine

    @property
    def improves(self) -> bool:
        """Whether the first step helps."""
        return self.gap > self.start * self.pull

    @property
    def best_time(self) -> float:
        """When the student is best; 0 when the first step hurts."""
        above = self.norm * (self.gap - self.start * self.pull)
        below = self.start * self.spread - self.gap * self.pull
        return max(0.0, above / below) if below > 0 else math.inf if above > 0 else 0.0

    @property
    def best_cosine(self) -> float:
        """The cosine at :attr:`best_time`."""
        if not math.isfinite(self.best_time):
            return self.limit
        return float(self.cosine(self.best_time))

    @property
    def limit(self) -> float:
        """The limit of the cosine for long training; teachers with the same direction give no update."""
        return self.gap / math.sqrt(self.spread) if self.spread > 0 else self.start

    @property
    def sft_slope(self) -> float:
        """Sign of what the first step of SFT on the better teacher does to the cosine (negative: it hurts)."""
        return self.better - self.start * self._with_student(self.better)

    def vectors(self, dimension: int) -> tuple[Floats, Floats, Floats]:
        """Return student, better and worse teacher as vectors; the truth is the first axis, the student's error the
        second."""
        if dimension < 4:
            raise ValueError("truth, the student's error and one error of each teacher need 4 dimensions")
        own = math.sqrt(1 - self.shared**2)
        student, better, worse = np.zeros((3, dimension))
        student[:2] = self.norm * np.array([self.start, _error(self.start)])
        better[[0, 1, 2]] = self.better, self.shared * _error(self.better), own * _error(self.better)
        worse[[0, 1, 3]] = self.worse, self.shared * _error(self.worse), own * _error(self.worse)
        return student, better, worse


def _error(cosine: float) -> float:
    return math.sqrt(1 - cosine**2)


def accuracy(cosine: float | Floats) -> Floats:
    """Return the share of labels that a direction with this cosine gets right: 1 - arccos(cosine) / pi."""
    share: Floats = 1 - np.arccos(np.clip(cosine, -1, 1)) / math.pi
    return share


def simulate(
    geometry: Geometry,
    *,
    dimension: int = 500,
    batch: int = 8192,
    steps: int = 100,
    time_step: float = 0.01,
    beta: float = 1.0,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[Method, Floats]:
    """Train by stochastic gradient ascent, every step on fresh inputs, all methods on the same ones.

    Args:
        geometry: Student and teachers.
        dimension: Dimensions of the inputs.
        batch: Inputs of a step.
        steps: Steps.
        time_step: Time of a step: the learning rate is ``time_step * sqrt(2 pi)``, for DPO times 2 / beta, which makes
            all objectives but SFT's move alike at the start.
        beta: DPO's beta.
        seed: Seed of the inputs.
        progress: Called with the steps done, all steps, and a note.

    Returns:
        By method, the student's cosine with the truth before the first and after every step.
    """
    rng = np.random.default_rng(seed)
    start, better, worse = (v.astype(np.float32) for v in geometry.vectors(dimension))
    weights = {method: start.copy() for method in METHODS}
    paths = {method: np.empty(steps + 1) for method in METHODS}
    rate = time_step * math.sqrt(2 * math.pi)
    for step in range(steps + 1):
        for method, theta in weights.items():
            paths[method][step] = theta[0] / np.linalg.norm(theta)
        if step == steps:
            break
        x = rng.standard_normal((batch, dimension), dtype=np.float32)
        outputs = x @ np.stack([better, worse, weights["sft"], weights["dpo"] - start], axis=1)
        label, other = (outputs[:, :2] >= 0).astype(np.float32).T
        sign = label - other  # 0 where the teachers agree: these inputs carry no gradient
        fitted = sign / (1 + np.exp(beta * sign * outputs[:, 3]))
        residual = label - 1 / (1 + np.exp(-outputs[:, 2]))
        linear, dpo, sft = np.stack([sign, 2 * fitted, residual]) @ x / batch
        for method, gradient in (("delta", linear), ("dpo", dpo), ("reversed", -linear), ("sft", sft)):
            weights[method] += np.float32(rate) * gradient
        if progress:
            progress(step + 1, steps, f"shared error {geometry.shared:g}, seed {seed}")
    return paths


def chance_of_improvement(geometry: Geometry, dimension: int, *, errors_alike: float = 0.0) -> float:
    """Return the probability that the first step helps when the teachers' errors point anywhere.

    The normal approximation: Phi(gap * sqrt((1 - start^2)(d - 1)) / (start * sqrt(2 - better^2 - worse^2 - alike))).

    Args:
        geometry: Cosines of student and teachers; its ``shared`` is not used, since errors are random here.
        dimension: Dimensions of the inputs.
        errors_alike: Cosine between the two teachers' errors: what they get wrong together cancels in the delta.
    """
    b, w = _error(geometry.better), _error(geometry.worse)
    width = geometry.start * math.sqrt(b**2 + w**2 - 2 * errors_alike * b * w)
    if width == 0:
        return 1.0 if geometry.gap > 0 else 0.0
    z = geometry.gap * _error(geometry.start) * math.sqrt(dimension - 1) / width
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def sampled_improvement(
    geometry: Geometry, dimension: int, *, errors_alike: float = 0.0, draws: int = 20_000, seed: int = 0
) -> float:
    """Return the share of randomly drawn teacher pairs whose first step helps.

    Only the components of the teachers' errors along the student's error matter; they are drawn from their exact
    distribution (first coordinates of uniform points on spheres), so that ten thousand dimensions cost nothing.

    Args:
        geometry: As in :func:`chance_of_improvement`.
        dimension: Dimensions of the inputs, at least 4.
        errors_alike: As in :func:`chance_of_improvement`.
        draws: Teacher pairs.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    better = _first_coordinate(rng, dimension - 1, draws)
    rest = np.sqrt(1 - better**2) * _first_coordinate(rng, dimension - 2, draws)
    worse = errors_alike * better + math.sqrt(1 - errors_alike**2) * rest
    if errors_alike == 0:
        worse = _first_coordinate(rng, dimension - 1, draws)
    along = _error(geometry.better) * better - _error(geometry.worse) * worse
    pull = geometry.start * geometry.gap + _error(geometry.start) * along
    return float((geometry.gap > geometry.start * pull).mean())


def _first_coordinate(rng: np.random.Generator, dimension: int, draws: int) -> Floats:
    """Draw the first coordinate of uniform points on the unit sphere in ``dimension`` dimensions."""
    first = rng.standard_normal(draws)
    return first / np.sqrt(first**2 + rng.chisquare(dimension - 1, draws))
