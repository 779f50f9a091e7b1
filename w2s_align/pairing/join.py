"""Several sets of pairs as one: what an earlier set has is left out, then each gives its share or its number.

Reads tables of the Pair schema, works on whole columns; texts are compared only where near-duplicates are looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import LENGTHS, Pairs
from w2s_align.pairing.counts import Counts, count_dropped
from w2s_align.pairing.decontaminate import user_texts
from w2s_align.pairing.dropped import DROPPED, EXAMPLES, EXCERPT_CHARS
from w2s_align.pairing.duplicates import near_duplicates
from w2s_align.records import pair_columns

if TYPE_CHECKING:
    import polars as pl

SAME_PAIR = "the same pair is in an earlier set"
SAME_PROMPT = "near-duplicate of a prompt in an earlier set"
NOT_DRAWN = "not drawn"


@dataclass(frozen=True)
class PairSet:
    """One of the sets.

    Attributes:
        name: What the audit calls it.
        table: Rows of :class:`w2s_align.records.Pair`, perhaps with ``PAIR_TERMS``.
        lengths: Rows of :data:`w2s_align.pairing.assemble.LENGTHS`, one for each row of ``table``.
    """

    name: str
    table: pa.Table
    lengths: pa.Table


def join_pairs(
    sets: Sequence[PairSet],
    *,
    counts: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    near_duplicate_prompts: float | None = None,
    seed: int = 0,
) -> Pairs:
    """Join sets of pairs.

    Args:
        sets: The sets; of what several have, the first keeps it.
        counts: Pairs to draw of each set. Default: all.
        weights: Share of each set in the whole instead, of any sum; the whole is as large as it can be without a pair
            twice.
        near_duplicate_prompts: Drop pairs whose prompt shares at least this part of its runs of 3 words with a prompt
            of an earlier set; 1 for those that differ in case, punctuation or white space alone.
        seed: Seed of the draw.

    Returns:
        The pairs, set after set; ``tasks`` is the name of each pair's set.

    Raises:
        UserError: A set has fewer pairs than are to be drawn, or there are not as many counts or weights as sets.
    """
    import polars as pl

    table = pa.concat_tables(pair_columns([one.table for one in sets]))
    lengths = pa.concat_tables([one.lengths.cast(LENGTHS) for one in sets])
    owner = np.repeat(np.arange(len(sets)), [one.table.num_rows for one in sets])
    frame = pl.DataFrame(pl.from_arrow(table.select(["prompt_id", "chosen", "rejected"])))
    frame = frame.with_columns(owner=pl.Series(owner), content=pl.struct("prompt_id", "chosen", "rejected").hash())
    reasons = frame.select(
        pl.when(pl.col("owner") > pl.col("owner").min().over("content")).then(pl.lit(SAME_PAIR)).alias("reason")
    ).to_series()
    if near_duplicate_prompts is not None:
        again = _repeated(frame.with_columns(reason=reasons), table, near_duplicate_prompts)
        reasons = pl.select(
            pl.when(again & reasons.is_null()).then(pl.lit(SAME_PROMPT)).otherwise(reasons)
        ).to_series()
    repeated = np.flatnonzero(reasons.is_not_null().to_numpy())
    available = [np.flatnonzero((owner == i) & reasons.is_null().to_numpy()) for i in range(len(sets))]
    sizes = _sizes([one.name for one in sets], [len(rows) for rows in available], counts, weights)
    drawn = [
        np.sort(np.random.default_rng((seed, i)).choice(rows, size, replace=False)) if size < len(rows) else rows
        for i, (rows, size) in enumerate(zip(available, sizes, strict=True))
    ]
    kept = np.concatenate([np.zeros(0, np.int64), *drawn])
    made = table.take(pa.array(kept))
    dropped = _dropped(table, repeated, reasons)
    lost = {unit: dict(found) for unit, found in count_dropped(dropped).items()}
    if left := sum(len(rows) for rows in available) - len(kept):
        lost.setdefault("pair", {})[NOT_DRAWN] = left
    prompts, others = frame["prompt_id"].n_unique(), len(set(made["prompt_id"].to_pylist()))
    if prompts > others:
        lost["prompt"] = {"no pair was kept": prompts - others}
    tasks = pa.chunked_array([pa.array([sets[i].name for i in owner[kept]], pa.string())])
    return Pairs(
        made,
        dropped,
        Counts({"prompt": prompts, "pair": table.num_rows}, {"prompt": others, "pair": len(kept)}, lost),
        lengths.take(pa.array(kept)),
        tasks,
    )


def _repeated(frame: pl.DataFrame, table: pa.Table, threshold: float) -> pl.Series:
    """Say of each pair whether its prompt nearly repeats one of an earlier set."""
    import polars as pl

    prompts = frame.with_row_index("at").filter(pl.col("reason").is_null())
    prompts = prompts.unique(["owner", "prompt_id"], keep="first", maintain_order=True).select(
        "at", "owner", "prompt_id"
    )
    texts = user_texts(pa.table({"messages": table["prompt"].take(prompts["at"].to_arrow())}))
    found = pl.DataFrame(pl.from_arrow(near_duplicates(texts, threshold=threshold)))
    # The first row of a group is in the earliest of its sets.
    across = found.filter(prompts["owner"].gather(found["row"]) > prompts["owner"].gather(found["kept"]))
    bad = prompts[across["row"].to_list()].select("owner", "prompt_id", again=pl.lit(True))
    return frame.join(bad, on=["owner", "prompt_id"], how="left", maintain_order="left")["again"].fill_null(False)


def _sizes(
    names: Sequence[str], available: Sequence[int], counts: Sequence[int] | None, weights: Sequence[float] | None
) -> list[int]:
    """Return how many pairs to draw of each set."""
    given = counts if counts is not None else weights
    if given is not None and len(given) != len(names):
        raise UserError(
            f"There are {len(names)} sets and {len(given)} counts or weights.", fix="Give one for each set."
        )
    if counts is not None:
        for name, wanted, there in zip(names, counts, available, strict=True):
            if wanted > there:
                raise UserError(
                    f"{name} has {there:,} pairs that no earlier set has, and {wanted:,} are to be drawn.",
                    fix=f"Draw at most {there:,}, or use weights.",
                )
        return list(counts)
    if weights is not None:
        whole = min(there / weight for there, weight in zip(available, weights, strict=True) if weight > 0)
        return [min(there, round(whole * weight)) for there, weight in zip(available, weights, strict=True)]
    return list(available)


def _dropped(table: pa.Table, rows: np.ndarray[tuple[int], np.dtype[np.int64]], reasons: pl.Series) -> pa.Table:
    """Return the pairs that an earlier set has as rows of ``DROPPED``, the first of each reason with its prompt."""
    found = table.take(pa.array(rows))
    shown: dict[str, int] = {}
    excerpts: list[str | None] = []
    why = [reasons[int(row)] for row in rows]
    for at, reason in enumerate(why):
        shown[reason] = shown.get(reason, 0) + 1
        prompt = found["prompt"][at].as_py()[-1]["content"] if shown[reason] <= EXAMPLES else None
        excerpts.append(None if prompt is None else f"prompt: {prompt[:EXCERPT_CHARS]}")
    sides = zip(found["chosen_model"].to_pylist(), found["rejected_model"].to_pylist(), strict=True)
    columns = {
        "prompt_id": found["prompt_id"],
        "unit": pa.array(["pair"] * len(rows), pa.string()),
        "reason": pa.array(why, pa.string()),
        "detail": pa.array([f"{better} over {worse}" for better, worse in sides], pa.string()),
        "excerpt": pa.array(excerpts, pa.string()),
    }
    return pa.table(columns).cast(DROPPED)
