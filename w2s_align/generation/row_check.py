"""What a row of the journal must be, so that it can become a row of ``Response.SCHEMA``.

Checked where an answer enters the journal and where a journal is read again: earlier versions wrote rows that no
Parquet file can hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, get_args

from w2s_align.records import FinishReason, valid_unicode

COUNTS = ("prompt_tokens", "completion_tokens")
"""Columns that hold a number of tokens."""
LARGEST_COUNT = 2**31 - 1
"""Counts are 32-bit integers in ``Response.SCHEMA``."""
LARGEST_SEED = 2**63 - 1
"""Seeds are 64-bit integers there."""
TEXTS = ("text", "reasoning", "error", "thought")
"""Columns that hold a text or nothing."""
ROW_COLUMNS = frozenset({*TEXTS, *COUNTS, "finish_reason", "seed", "logprob"})
"""Columns of every response in a journal; the others of the schema follow from the row number."""


def check_count(value: Any, name: str) -> int:
    """Return a number of tokens.

    Raises:
        ValueError: It is no number that a column of counts can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
        raise ValueError(f"{name} is {shown(value)}, not a number of tokens")
    return value


def check_logprob(value: Any) -> float:
    """Return a log-probability.

    Raises:
        ValueError: It is not a finite number.
    """
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond the largest float
        pass
    raise ValueError(f"the log-probability is {shown(value)}, not a finite number")


def row_fault(columns: Mapping[str, Any], required: Collection[str] = ROW_COLUMNS) -> str | None:
    """Say why a row of a journal cannot become a row of ``Response.SCHEMA``; None if it can.

    Args:
        columns: The row.
        required: Columns that it must have.
    """
    missing = [name for name in required if name not in columns]
    if missing:
        return f"it has no {', '.join(sorted(missing))}"
    try:
        for name in COUNTS:
            if name in columns:
                check_count(columns[name], name)
        if columns.get("logprob") is not None:
            check_logprob(columns["logprob"])
    except ValueError as error:
        return str(error)
    for name in TEXTS:
        value = columns.get(name)
        if value is not None and (not isinstance(value, str) or valid_unicode(value) != value):
            return f"{name} is {shown(value)}, not a text"
    if "finish_reason" in columns and columns["finish_reason"] not in get_args(FinishReason):
        return f"finish_reason is {shown(columns['finish_reason'])}"
    seed = columns.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or abs(seed) > LARGEST_SEED):
        return f"seed is {shown(seed)}, not a 64-bit number"
    return None


def shown(value: Any) -> str:
    """Return a value of unknown type and size for a message."""
    if isinstance(value, (list, dict)):  # repr of a deep one overflows the stack
        return f"a {'list' if isinstance(value, list) else 'mapping'}"
    if isinstance(value, int) and abs(value) > LARGEST_SEED:  # str of 5,000 digits raises an error
        return "a number beyond 64 bits"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."
