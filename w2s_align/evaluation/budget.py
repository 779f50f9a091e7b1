"""Label quantity against quality: what a budget buys, and which purchases no cheaper one beats.

Plain values in, plain values out. Source: Balancing Label Quantity and Quality (arXiv 2410.13215) and its public code;
docs/methods/label_budget.md has check values.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SHARES = (0.8, 0.6, 0.4, 0.2, 0.05)
"""Shares of a budget that the public code spends on exact labels."""
LEAST_GAIN = 0.002
"""Accuracy by which a point must beat all cheaper ones to be on the frontier."""
NEARBY = 0.05
"""Share of its cost within which no better point may lie."""


@dataclass(frozen=True)
class Purchase:
    """What a budget is spent on.

    Attributes:
        budget: The budget, in prices of an exact label.
        share: Share of it that is spent on exact labels.
        weak: Number of weak labels.
        exact: Number of exact labels.
    """

    budget: float
    share: float
    weak: int
    exact: int

    def cost(self, price: float) -> float:
        """Return what it costs.

        Args:
            price: Price of a weak label.
        """
        return self.exact + self.weak * price


def purchases(
    budgets: Iterable[float], price: float, shares: Sequence[float] = SHARES, *, most_exact: int | None = None
) -> list[Purchase]:
    """Return what budgets buy: int(share budget) exact labels, and weak ones for the rest.

    Args:
        budgets: Budgets, in prices of an exact label.
        price: Price of a weak label.
        shares: Shares of a budget that are spent on exact labels.
        most_exact: Purchases of more exact labels than there are items are left out.

    Raises:
        ValueError: A price, budget or share is out of range.
    """
    if not price > 0 or any(not 0 <= share <= 1 for share in shares):
        raise ValueError("a price is above 0, and a share lies between 0 and 1")
    found = []
    for budget in budgets:
        if not budget > 0:
            raise ValueError(f"a budget of {budget} buys nothing")
        for share in shares:
            exact = int(share * budget)
            # What is left may be 12.999...96 prices for 13: rounding must not cost a label.
            weak = int((budget - exact) / price + 1e-9)
            if most_exact is None or exact <= most_exact:
                found.append(Purchase(budget, share, weak, exact))
    return found


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of (cost, accuracy) that no cheaper or nearby one beats.

    By cost, a point is taken if it is better than the best so far by more than .002 and no better point lies within 5%
    of its cost.

    Args:
        points: Cost and accuracy of each.
    """
    found: list[tuple[float, float]] = []
    best = float("-inf")
    for cost, accuracy in sorted(points):
        near = any(c <= cost * (1 + NEARBY) and a > accuracy for c, a in points if c >= cost)
        if accuracy > best + LEAST_GAIN and not near:
            found.append((cost, accuracy))
            best = accuracy
    return found


def shuffled_errors(weak: Mapping[str, float], gold: Mapping[str, int], seed: int) -> dict[str, float]:
    """Return weak labels with the same errors at other items: as many and as large, but without structure.

    The salience control of the paper: e = abs(weak - gold) is permuted over the items; an item gets gold + e where it
    is of class 0, and gold - e where it is of class 1.

    Args:
        weak: Probability of class 1, by item.
        gold: Gold class, by item.
        seed: Seed of the permutation.
    """
    items = sorted(weak)
    errors = [abs(weak[item] - gold[item]) for item in items]
    random.Random(seed).shuffle(errors)
    return {item: gold[item] + e if gold[item] == 0 else gold[item] - e for item, e in zip(items, errors, strict=True)}
