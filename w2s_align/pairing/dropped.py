"""The list of everything that was lost on the way: responses, pairs, and prompts that ended with nothing, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.filters import with_sides

if TYPE_CHECKING:
    import polars as pl

DROPPED = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("excerpt", pa.string()),
    ]
)
"""What was lost: a ``row`` of an imported file, a ``response``, a ``pair``, or a whole ``prompt`` (that ended with no
pair), and why. The first few rows of each reason show their texts as ``excerpt``."""
EXAMPLES = 3
"""Rows of each reason that show their texts: enough to see what a filter does, and the table stays small."""
EXCERPT_CHARS = 300
"""Characters of each text that are shown: a few lines of a terminal."""


def dropped_rows(candidates: Candidates, declined: pl.DataFrame, removed: pl.DataFrame | None) -> pa.Table:
    """List everything that was lost: responses, pairs, and prompts that ended without anything.

    Args:
        candidates: The usable and the unusable responses.
        declined: ``prompt`` and ``reason`` of the lost prompts.
        removed: ``prompt``, ``chosen``, ``rejected`` and ``reason`` of the lost pairs.

    Returns:
        Rows of :data:`DROPPED`.
    """
    import polars as pl

    faults = candidates.faults.sort("prompt", "source", "model", "sample", nulls_last=True)
    stray = pl.Series("stray", pl.from_arrow(candidates.responses["prompt_id"])).gather(faults["row"])
    detail = pl.format("{} #{}", "model", "sample")
    unit = pl.lit("response").alias("unit")
    parts = [faults.select(unit, "prompt", "reason", detail=detail, stray=stray, first="row")]
    if removed is not None:
        notes = removed.with_columns(note=pl.lit(None, pl.String)) if "note" not in removed.columns else removed
        sides = with_sides(notes.select("prompt", "chosen", "rejected", "reason", "note"), candidates)
        detail = pl.format("{} #{} over {} #{}", "chosen_model", "chosen_sample", "rejected_model", "rejected_sample")
        detail = pl.concat_str(detail, "note", separator=": ", ignore_nulls=True)
        unit = pl.lit("pair").alias("unit")
        parts.append(sides.select(unit, "prompt", "reason", detail=detail, first="chosen", second="rejected"))
    # A prompt without enough usable responses lacks them for a reason: the faults of its responses.
    missing = pl.col("reason").str.contains(r"^no (\w+ )?response$|^one response only$")
    why = faults.group_by("prompt").agg(why=pl.col("reason").unique().sort().str.join(", "))
    prompts = declined.join(why, on="prompt", how="left", maintain_order="left").sort("prompt", maintain_order=True)
    detail = pl.when(missing).then(pl.col("why")).fill_null("")
    parts.append(prompts.select(pl.lit("prompt").alias("unit"), "prompt", "reason", detail=detail))
    empty = {"prompt": pl.UInt32, "stray": pl.String, "first": pl.Int64, "second": pl.Int64}
    parts = [
        part.with_columns(pl.lit(None, kind).alias(n) for n, kind in empty.items() if n not in part.columns).cast(
            empty
        )
        for part in parts
    ]
    everything = pl.concat(parts, how="diagonal")
    everything = everything.with_columns(excerpt=_excerpts(everything, candidates))
    ids = pl.DataFrame({"id": pl.from_arrow(candidates.prompts["id"])}).with_row_index("prompt")
    everything = everything.join(ids, on="prompt", how="left", maintain_order="left")
    everything = everything.select(
        pl.coalesce("id", "stray").alias("prompt_id"), "unit", "reason", "detail", "excerpt"
    )
    again = candidates.refused.select(
        "prompt_id",
        "reason",
        unit=pl.lit("prompt"),
        detail=pl.lit(""),
        excerpt=pl.lit(None, pl.String),
    ).select(everything.columns)
    return pl.concat([everything, again]).to_arrow().cast(DROPPED)


def _excerpts(dropped: pl.DataFrame, candidates: Candidates) -> pl.Series:
    """Return the beginning of the prompt and of the responses for the first few rows of each unit and reason."""
    import polars as pl

    place = pl.int_range(pl.len()).over("unit", "reason")
    shown = dropped.with_row_index("at").filter(place < EXAMPLES).select("at", "prompt", "first", "second")
    found: list[str | None] = []
    for _, prompt, first, second in shown.iter_rows():
        lines = []
        if prompt is not None:
            lines.append(("prompt", candidates.prompts["messages"][prompt].as_py()[-1]["content"]))
        names = ("response", "") if second is None else ("chosen", "rejected")
        for name, row in zip(names, (first, second), strict=True):
            text = None if row is None else candidates.responses["text"][row].as_py()
            lines += [] if text is None else [(name, text)]
        found.append("\n".join(f"{name}: {_cut(text)}" for name, text in lines) or None)
    column = pl.Series("excerpt", [None], pl.String).new_from_index(0, dropped.height)
    return column.scatter(shown["at"], pl.Series(found, dtype=pl.String)) if shown.height else column


def _cut(text: str) -> str:
    return text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]}\N{HORIZONTAL ELLIPSIS}"
