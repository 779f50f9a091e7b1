"""Filters that look at prompts: pairs of prompts that contain an evaluation item, or that repeat another prompt.

They come last, so that of several alike prompts one that has a pair is kept, and no text is compared for nothing.
Reads the pairs that are left, returns those to keep and those to drop with reason and note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.decontaminate import Items, Leaks, find_leaks, user_texts
from w2s_align.pairing.duplicates import near_duplicates
from w2s_align.pairing.settings import Filters

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def filter_prompts(
    pairs: pl.DataFrame, candidates: Candidates, filters: Filters, evaluations: Mapping[str, Items] | None
) -> tuple[pl.DataFrame, pl.DataFrame, Leaks | None]:
    """Split pairs by what their prompts are.

    Args:
        pairs: The pairs, with a column ``prompt``.
        candidates: Where the prompts are.
        filters: ``near_duplicate_prompts`` is read.
        evaluations: Items of evaluation sets by their names, which no prompt may contain (see ``decontaminate.py``).

    Returns:
        The pairs kept, the pairs dropped with ``reason`` and ``note``, and the leaks (None when none were looked for).
    """
    import polars as pl

    bad = pl.DataFrame(schema={"prompt": pl.UInt32, "reason": pl.String, "note": pl.String})
    leaks = None
    prompts = pairs.select(pl.col("prompt").unique().sort())
    if evaluations:
        leaks = find_leaks(_texts(prompts, candidates), evaluations)
        bad = _contaminated(prompts, leaks)
        prompts = prompts.join(bad, on="prompt", how="anti", maintain_order="left")
    if filters.near_duplicate_prompts is not None:
        found = near_duplicates(_texts(prompts, candidates), threshold=filters.near_duplicate_prompts)
        bad = pl.concat([bad, _repeated(prompts, pl.DataFrame(pl.from_arrow(found)), candidates)])
    if not bad.height:
        return pairs, pairs.head(0).with_columns(reason=pl.lit(""), note=pl.lit("")), leaks
    return (
        pairs.join(bad, on="prompt", how="anti", maintain_order="left"),
        pairs.join(bad, on="prompt", how="inner", maintain_order="left"),
        leaks,
    )


def _texts(prompts: pl.DataFrame, candidates: Candidates) -> pa.ChunkedArray:
    return user_texts(candidates.prompts.select(["messages"]).take(prompts["prompt"].to_arrow()))


def _contaminated(prompts: pl.DataFrame, leaks: Leaks) -> pl.DataFrame:
    """Return the prompts that contain an item, each with the item that it contains the largest share of."""
    import polars as pl

    worst = pl.DataFrame(pl.from_arrow(leaks.table)).sort(
        "row", "score", "evaluation", "item", descending=[False, True, False, False]
    )
    worst = worst.unique("row", keep="first", maintain_order=True)
    share = (100 * pl.col("score")).round(0).cast(pl.Int32)
    return worst.select(
        prompts["prompt"].gather(worst["row"]).alias("prompt"),
        reason=pl.lit("contaminated"),
        note=pl.format("{}% of the words of item {} of {}", share, "item", "evaluation"),
    )


def _repeated(prompts: pl.DataFrame, found: pl.DataFrame, candidates: Candidates) -> pl.DataFrame:
    """Return the prompts that repeat an earlier one, each with the one that stays for it."""
    import polars as pl

    kept = prompts["prompt"].gather(found["kept"])
    ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"].take(kept.to_arrow())), dtype=pl.String)
    return found.select(
        prompts["prompt"].gather(found["row"]).alias("prompt"),
        reason=pl.lit("near-duplicate prompt"),
        note=pl.format("repeats {} (Jaccard index {})", ids, pl.col("jaccard").round(2)),
    )
