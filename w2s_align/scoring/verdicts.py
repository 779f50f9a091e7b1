"""The shape that all scorers share: batches of prompts and responses in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa


@dataclass(frozen=True)
class Verdicts:
    """What a scorer says about a batch.

    Attributes:
        values: One value per row; None where the response could not be scored.
        details: The reason of every None; else what the scorer saw, e.g. the extracted answer.
    """

    values: list[float | None]
    details: list[str]

    @classmethod
    def of(cls, rows: Iterable[tuple[float | None, str]]) -> Verdicts:
        """Make verdicts of (value, detail) rows."""
        pairs = list(rows)
        return cls([value for value, _ in pairs], [detail for _, detail in pairs])


BatchScorer: TypeAlias = Callable[[pa.Table, pa.Table], Verdicts]
"""Takes prompts and responses, aligned row by row."""
