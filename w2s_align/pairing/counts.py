"""How many rows went in, how many are left, and why the others were dropped: by unit and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    import pyarrow as pa

Unit: TypeAlias = Literal["row", "prompt", "response", "pair"]
"""What is counted: rows of another tool's file, prompts, responses, and pairs of them."""

OVER_THE_CAP = "over pairs_per_prompt"
"""Reason of the pairs beyond ``pairs_per_prompt``; they are counted and not listed, as most rules find many."""


@dataclass(frozen=True)
class Counts:
    """What came of some rows.

    For every unit ``given`` = ``kept`` + all of ``dropped``, with two exceptions: the ``tied`` control makes pairs
    that the rule did not find, and a selection leaves out responses with which nothing is wrong.

    Attributes:
        given: Number of each unit that went in; of pairs, those that the rule found.
        kept: Number of each unit that is left; of prompts, those with a pair (or a kept response); of responses, those
            that a rule could choose from.
        dropped: For each unit the number by reason.
        comparisons: A judge's comparisons by outcome; empty for other rules.
        noticed: What reading another tool's data met without dropping a row, and in how many rows: columns that were
            not read, scores that were not believed.
    """

    given: Mapping[Unit, int]
    kept: Mapping[Unit, int]
    dropped: Mapping[Unit, Mapping[str, int]] = field(default_factory=dict)
    comparisons: Mapping[str, int] = field(default_factory=dict)
    noticed: Mapping[str, int] = field(default_factory=dict)

    def lost(self, unit: Unit, reason: str | None = None) -> int:
        """Return how many were dropped, for one reason or for all."""
        reasons = self.dropped.get(unit, {})
        return sum(reasons.values()) if reason is None else reasons.get(reason, 0)

    def totals(self) -> dict[str, int]:
        """Return what went in and what is left as a person reads it, without the reasons."""
        lines: dict[str, int] = {}
        for unit in get_args(Unit):
            if unit in self.given:
                lines |= {f"{unit}s": self.given[unit], f"{unit}s kept": self.kept[unit]}
        return lines | ({"comparisons": sum(self.comparisons.values())} if self.comparisons else {})

    def lines(self) -> dict[str, int]:
        """Return all numbers as a person reads them, for a card or an error."""
        lines = self.totals()
        for unit, reasons in self.dropped.items():
            lines |= {f"{unit}s dropped: {reason}": number for reason, number in reasons.items()}
        lines |= {f"comparisons: {outcome}": number for outcome, number in self.comparisons.items()}
        return lines | {f"rows with {what}": number for what, number in self.noticed.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("comparisons", "noticed")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Counts:
        """Return the counts behind :meth:`to_json`."""
        return cls(**values)


def count_dropped(dropped: pa.Table, over_the_cap: int = 0) -> dict[Unit, dict[str, int]]:
    """Count dropped rows by unit and reason.

    Args:
        dropped: Rows of :data:`w2s_align.pairing.dropped.DROPPED`.
        over_the_cap: Pairs that were left out because their prompt has enough of them.
    """
    import polars as pl

    groups = pl.DataFrame(pl.from_arrow(dropped)).group_by("unit", "reason").len().sort("unit", "reason")
    counts: dict[Unit, dict[str, int]] = {}
    for unit, reason, number in groups.iter_rows():
        counts.setdefault(unit, {})[reason] = number
    if over_the_cap:
        counts.setdefault("pair", {})[OVER_THE_CAP] = over_the_cap
    return counts
