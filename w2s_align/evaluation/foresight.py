"""What a fused target would be worth, told from the student's own responses before anything is trained.

Responses drawn from the student, weighted by how much more likely the target finds them, are a sample of the target:
self-normalized importance sampling (Owen, "Monte Carlo theory, methods and examples", chapter 9, equation 9.6). It
works where the target still writes what the student writes now and then; the effective sample size says how far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2s_align.errors import UserError

FEW = 50.0
"""Effective responses below which a prediction is called unsure: a share then has a standard error of 7 points."""
RESAMPLES = 2000
"""Bootstrap resamples of the problems."""


@dataclass(frozen=True)
class Prediction:
    """The predicted accuracy of one target.

    Attributes:
        factor: What the contrasts' alphas were multiplied by.
        accuracy: Share of right responses.
        low: Lower end of its 95% interval, over problems.
        high: Upper end.
        effective: Effective sample size, in responses.
    """

    factor: float
    accuracy: float
    low: float
    high: float
    effective: float

    @property
    def unsure(self) -> bool:
        """Whether too few responses carry it."""
        return self.effective < FEW


@dataclass(frozen=True)
class Direction:
    """Whether the contrasts prefer the student's right responses to its wrong ones.

    Attributes:
        share: Share of (right, wrong) couples of one problem in which the right response has the larger delta, equal
            ones counted half.
        low: Lower end of its 95% interval, over problems.
        high: Upper end.
        problems: Problems with right and wrong responses.
        strength: Mean difference of the deltas, right less wrong, in nats.
        longer: The same share for the longer response instead of the larger delta: what length alone prefers.
    """

    share: float
    low: float
    high: float
    problems: int
    strength: float
    longer: float


def predict(
    problems: list[str], right: list[float], log_ratios: list[float], factor: float, seed: int = 0
) -> Prediction:
    """Predict the accuracy of a target.

    Args:
        problems: The problem of each response.
        right: What each response is worth, 0 to 1.
        log_ratios: Log-probability under the target less that under the student.
        factor: Which target it is.
        seed: Seed of the bootstrap.

    Raises:
        UserError: There is no response, or a score is no share.
    """
    if not problems:
        raise UserError("There is no response to predict from.", fix="Give scored responses of the student.")
    if min(right) < 0 or max(right) > 1:
        raise UserError(
            f"Scores go from {min(right):g} to {max(right):g}.",
            "An accuracy is predicted from scores between 0 (wrong) and 1 (right).",
            "Give the scores of an answer check.",
        )
    weights = np.exp(np.array(log_ratios) - max(log_ratios))
    worth, groups = np.array(right, dtype=float), np.unique(problems, return_inverse=True)[1]
    number = int(groups.max()) + 1
    hits = np.bincount(groups, weights * worth, number)
    total = np.bincount(groups, weights, number)
    counts = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    drawn = (counts @ hits) / np.maximum(counts @ total, 1e-300)
    low, high = np.quantile(drawn, [0.025, 0.975])
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return Prediction(factor, float(hits.sum() / total.sum()), float(low), float(high), effective)


def direction(
    problems: list[str], right: list[float], deltas: list[float], tokens: list[int], seed: int = 0
) -> Direction | None:
    """Say whether contrasts prefer right responses.

    Args:
        problems: The problem of each response.
        right: What each is worth; above one half is right.
        deltas: The contrasts' sum over each.
        tokens: Length of each.
        seed: Seed of the bootstrap.

    Returns:
        None where no problem has both right and wrong responses.
    """
    places: dict[str, list[int]] = {}
    for place, problem in enumerate(problems):
        places.setdefault(problem, []).append(place)
    won, longer, gained = [], [], []
    for rows in places.values():
        good, bad = ([i for i in rows if (right[i] > 0.5) is side] for side in (True, False))
        if good and bad:
            pairs = [(i, j) for i in good for j in bad]
            won.append(float(np.mean([_more(deltas[i], deltas[j]) for i, j in pairs])))
            longer.append(float(np.mean([_more(tokens[i], tokens[j]) for i, j in pairs])))
            gained.append(float(np.mean([deltas[i] - deltas[j] for i, j in pairs])))
    if not won:
        return None
    shares: NDArray[np.float64] = np.array(won)
    counts = np.random.default_rng(seed).multinomial(len(shares), np.full(len(shares), 1 / len(shares)), RESAMPLES)
    low, high = np.quantile(counts @ shares / len(shares), [0.025, 0.975])
    return Direction(
        float(shares.mean()), float(low), float(high), len(won), float(np.mean(gained)), float(np.mean(longer))
    )


def _more(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)
