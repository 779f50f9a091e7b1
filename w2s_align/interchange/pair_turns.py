"""Preference data whose responses hold several turns: where the prompt ends, and what each side answers.

Reads frames of ``pair_layouts.py``; looks at each row by itself, and gives a reason to one that cannot be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from w2s_align.interchange.columns import Layout
from w2s_align.records import MESSAGES, is_response, shared_turns

if TYPE_CHECKING:
    import polars as pl

    from w2s_align.records import Message

NO_ASSISTANT = "a response does not begin and end with the assistant's turn"
"""What rows are counted under of which a side breaks off, or begins, with somebody else."""
UNKNOWN_TURN = "a turn without a known role and a text"
"""What rows are counted under in which a turn is not text, or of a role that nobody knows."""


def split_turns(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """Find the prompt of each row, and the turns of its responses.

    Whole chats on both sides share their prompt: what both begin with, up to a turn of the user or a tool. A response
    that begins with the assistant's turn answers the prompt's own column.

    Args:
        frame: ``prompt``, ``asked`` and the columns of the sides.
        layout: Any layout but ratings, whose responses are texts.

    Returns:
        The frame with ``prompt``, ``reason`` (null for a row that can be read) and ``<side>_turns``.
    """
    import polars as pl

    sides = ("completion",) if layout == "labels" else ("chosen", "rejected")
    found = [_split(row, sides) for row in frame.select("prompt", "asked", *sides).iter_rows(named=True)]
    if layout == "labels":
        unlabeled = pl.when(pl.col("label").is_null()).then(pl.lit("no completion with a label"))
    else:
        unlabeled = pl.lit(None, pl.String)
    columns = {
        name: pl.Series(pl.from_arrow(pa.array([row.get(name) for row in found], MESSAGES)))
        for name in ("prompt", *(f"{side}_turns" for side in sides))
    }
    reasons = pl.Series([row.get("reason") for row in found], dtype=pl.String)
    return frame.with_columns(**columns, reason=reasons).with_columns(reason=pl.coalesce(unlabeled, "reason"))


def _split(row: dict[str, Any], sides: tuple[str, ...]) -> dict[str, Any]:
    """Return the prompt and the turns of the sides of one row, or the reason why there are none."""
    prompt: list[Message] | None = row["prompt"]
    responses: list[list[Message]] = [row[side] or [] for side in sides]
    if not all(responses):
        return {"prompt": prompt, "reason": f"no {' or no '.join(sides)} response"}
    if any(turn["role"] is None or turn["content"] is None for turns in responses for turn in turns):
        return {"prompt": prompt, "reason": UNKNOWN_TURN}
    begins = {turns[0]["role"] == "assistant" for turns in responses}
    if begins == {True, False}:
        return {"prompt": prompt, "reason": "one side is a whole chat, the other one a response alone"}
    if begins == {False}:
        shared = shared_turns(responses[0], responses[-1])
        if not shared:
            return {"prompt": prompt, "reason": "the chats share no turn that could be their prompt"}
        if prompt is not None and row["asked"] not in [turn["content"] for turn in responses[0][:shared]]:
            return {"prompt": prompt, "reason": "the chats do not contain the prompt"}
        prompt, responses = responses[0][:shared], [turns[shared:] for turns in responses]
    if not all(turns and turns[-1]["role"] == "assistant" and is_response(turns) for turns in responses):
        return {"prompt": prompt, "reason": NO_ASSISTANT}
    return {"prompt": prompt, **{f"{side}_turns": turns for side, turns in zip(sides, responses, strict=True)}}
