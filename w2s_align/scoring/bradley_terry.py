"""Bradley-Terry strengths from pairwise verdicts: ``P(i beats j) = 1 / (1 + exp(strength_j - strength_i))``.

Reads weighted wins, fits by Newton's method (docs/methods/judges.md), and says where the data do not determine the
answer: items that were never compared, even indirectly, and items that never lost (or never won) against the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2s_align.errors import UserError

PRIOR = 0.01
"""Default weight of the squared strengths: the upper end of the usual 1e-4 to 1e-2 (docs/methods/judges.md)."""


@dataclass(frozen=True)
class Strengths:
    """The result of :func:`bradley_terry`.

    Attributes:
        values: Strength of each item in nats, their sum is zero within each group; times ``400 / ln 10`` it is on
            Elo's scale.
        groups: Items that are compared with each other, directly or through others. Strengths of items of different
            groups cannot be compared.
        separated: Some items beat others of their group without ever losing to them: only the prior keeps their
            distance finite, so the order counts and the size does not.
    """

    values: dict[str, float]
    groups: list[list[str]]
    separated: bool

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know, in words."""
        notes = []
        if len(self.groups) > 1:
            texts = ["{" + ", ".join(group) + "}" for group in self.groups]
            notes.append(f"No comparisons between {' and '.join(texts)}: their strengths cannot be compared.")
        if self.separated:
            notes.append("Some never lose to others: their order is known, the size of the difference is not.")
        return notes


def bradley_terry(wins: Sequence[tuple[str, str, float]], *, prior: float = PRIOR) -> Strengths:
    """Fit strengths to wins.

    Maximizes ``sum of weight * log P(winner beats loser) - prior * sum of strength**2``.

    Args:
        wins: Winner, loser and weight of each win. A tie is two wins of half the weight, one for each side.
        prior: Weight of the squared strengths, above 0: it keeps strengths finite where one side never loses.

    Raises:
        UserError: The prior is not positive, an item is compared with itself, or a weight is negative.
    """
    if not prior > 0:
        raise UserError(f"The prior {prior} is not above 0.", fix="Leave it out, or give 1e-4 to 1e-2.")
    for winner, loser, weight in wins:
        if winner == loser or not (weight >= 0 and math.isfinite(weight)):
            raise UserError(f"{winner} over {loser} with the weight {weight} is not a win.")
    items = sorted({item for winner, loser, _ in wins for item in (winner, loser)})
    index = {item: i for i, item in enumerate(items)}
    won = np.zeros((len(items), len(items)))
    for winner, loser, weight in wins:
        won[index[winner], index[loser]] += weight
    values = _fit(won, prior)
    together = _reachable(won + won.T)
    groups = [[items[j] for j in np.flatnonzero(row)] for i, row in enumerate(together) if np.argmax(row) == i]
    # Inside a group the likelihood has a maximum without a prior exactly when every item can be reached from every
    # other along wins (Ford 1957).
    separated = bool((together & ~_reachable(won)).any())
    return Strengths({item: float(value) for item, value in zip(items, values, strict=True)}, groups, separated)


def _fit(won: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Return the maximum of the penalized likelihood: a strictly concave function, so Newton's method finds it."""
    strengths = np.zeros(len(won))
    played = won + won.T

    def loss(values: NDArray[np.float64]) -> float:
        gaps = values[:, None] - values[None, :]
        return float((won * np.logaddexp(0, -gaps)).sum() + prior * (values**2).sum())

    for _ in range(100):
        chance = 1 / (1 + np.exp(np.clip(strengths[None, :] - strengths[:, None], -500, 500)))
        gradient = (played * chance - won).sum(1) + 2 * prior * strengths
        if np.abs(gradient).max(initial=0) < 1e-10:
            break
        weights = played * chance * (1 - chance)
        hessian = np.diag(weights.sum(1)) - weights + 2 * prior * np.eye(len(won))
        step, size, before = np.linalg.solve(hessian, gradient), 1.0, loss(strengths)
        while loss(strengths - size * step) > before and size > 1e-6:  # a whole step can go too far at first
            size /= 2
        strengths = strengths - size * step
    return strengths


def _reachable(edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which item is reached from which along edges of positive weight; every item reaches itself."""
    reached = (edges > 0) | np.eye(len(edges), dtype=bool)
    for _ in range(max(len(edges), 2).bit_length()):
        reached = reached | ((reached.astype(np.float32) @ reached.astype(np.float32)) > 0)
    return reached
