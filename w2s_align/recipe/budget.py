"""Budgets of labels: what money buys of weak and of exact labels, as the points of a sweep.

    budgets: [16, 64, 256]            # in prices of an exact label
    weak_prices: [0.1]
    shares: [1, 0.8, 0.6, 0.4, 0.2, 0.05, 0]
    weak: [weak_items.number]         # the options of a recipe that take the two numbers
    exact: [exact_items.number]

Source: Balancing Label Quantity and Quality (arXiv 2410.13215) and its public code; docs/methods/label_budget.md has
check values. Plain values in, plain values out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from w2s_align.errors import Problem, UserError
from w2s_align.records import Settings

SHARES = (0.8, 0.6, 0.4, 0.2, 0.05)
"""Shares of a budget that the public code spends on exact labels."""
ROUNDING = 1e-9
"""What is left of a budget may be 12.999...96 prices for 13: rounding must not cost a label."""

Positive = Annotated[float, Field(gt=0)]
Number = Annotated[int, Field(ge=0)]


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
            weak = int((budget - exact) / price + ROUNDING)
            if most_exact is None or exact <= most_exact:
                found.append(Purchase(budget, share, weak, exact))
    return found


class Budget(Settings):
    """A file of budgets: which purchases are tried, and which options of the recipe they set."""

    budgets: list[Positive] = Field(min_length=1)
    """Budgets, in prices of an exact label."""
    weak_prices: list[Positive] = Field(min_length=1)
    """Prices of a weak label; each has a frontier of its own."""
    shares: list[Annotated[float, Field(ge=0, le=1)]] = Field([1, *SHARES, 0], min_length=1)
    """Shares of each budget that are spent on exact labels."""
    also: list[tuple[Number, Number]] = []
    """Further purchases: numbers of weak and of exact labels."""
    most_weak: Number | None = None
    """Purchases of more weak labels are left out: there are no more items."""
    most_exact: Number | None = None
    """Purchases of more exact labels are left out."""
    weak: list[str] = Field(min_length=1)
    """Options that take the number of weak labels, as step.field."""
    exact: list[str] = Field(min_length=1)
    """Options that take the number of exact labels."""
    pools: list[str] = []
    """Options that take the share of weak labels among all that are bought: `share` of the two halves of a pool."""
    no_weak: dict[str, Any] = {}
    """Values that a purchase without weak labels sets in place of those above; `step: null` leaves out a step."""
    no_exact: dict[str, Any] = {}
    """The same for a purchase without exact labels."""

    @field_validator("weak", "exact", "pools")
    @classmethod
    def _names_options(cls, value: list[str]) -> list[str]:
        for path in value:
            if "." not in path:
                raise ValueError(f"{path} is not an option; write step.field, e.g. weak_items.number")
        return value

    def bought(self, price: float) -> list[Purchase]:
        """Return the purchases at a price, each once: of small budgets several shares may buy the same."""
        also = [Purchase(exact + weak * price, 0.0, weak, exact) for weak, exact in self.also]
        found: dict[tuple[int, int], Purchase] = {}
        for one in [*purchases(self.budgets, price, self.shares, most_exact=self.most_exact), *also]:
            if one.weak + one.exact and (self.most_weak is None or one.weak <= self.most_weak):
                found.setdefault((one.weak, one.exact), one)
        return list(found.values())

    def values(self, purchase: Purchase) -> dict[str, Any]:
        """Return the values of options that make a purchase."""
        weak, exact = dict.fromkeys(self.weak, purchase.weak), dict.fromkeys(self.exact, purchase.exact)
        if not purchase.weak:
            return {**exact, **self.no_weak}
        if not purchase.exact:
            return {**weak, **self.no_exact}
        share = purchase.weak / (purchase.weak + purchase.exact)
        return {**weak, **exact, **dict.fromkeys(self.pools, share)}


def parse_budget(data: Mapping[str, Any], name: str) -> Budget:
    """Return a file of budgets, checked.

    Args:
        data: Its values.
        name: What messages call it.

    Raises:
        UserError: With everything that is wrong with it, or that it buys nothing.
    """
    try:
        budget = Budget.model_validate(dict(data))
    except ValidationError as error:
        problems = [
            Problem(f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}.", where=name)
            for item in error.errors(include_url=False)
        ]
        raise UserError.all(problems) from None
    if not any(budget.bought(price) for price in budget.weak_prices):
        raise UserError(f"{name} buys nothing.", fix="Raise the budgets, or most_weak and most_exact.")
    return budget
