"""Filters: which selected pairs are not worth training on, and why a row was dropped.

The first filter that holds names the reason. Responses that cannot be used at all (failed, empty, truncated, flagged
by a text filter) are set aside earlier, in ``candidates.py``, because a rule must not choose them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2s_align.errors import UserError
from w2s_align.pairing.candidates import CHUNK_ROWS, Candidates, normalized
from w2s_align.pairing.selection import random_draws
from w2s_align.pairing.settings import Filters
from w2s_align.pairing.shingles import UNSPACED

if TYPE_CHECKING:
    import polars as pl

Floats: TypeAlias = NDArray[np.float64]
TINY = 1e-12
"""Shares are ratios of whole numbers: one that equals a cut is kept however it is rounded."""


def filter_pairs(pairs: pl.DataFrame, candidates: Candidates, filters: Filters) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split selected pairs into those kept and those dropped (with a column ``reason``)."""
    import polars as pl

    wide = with_sides(pairs, candidates)
    checks: list[tuple[str, pl.Expr | pl.Series]] = []
    if filters.identical:
        checks.append(("identical", pl.col("chosen_digest") == pl.col("rejected_digest")))
    seen = pl.struct("prompt", "chosen_digest", "rejected_digest").is_first_distinct()
    checks.append(("repeated pair", ~seen))
    if filters.max_length_gap is not None:
        checks.append(("length gap", _gap(wide, filters.length_unit).abs() > filters.max_length_gap))
    delta = pl.col("score_chosen") - pl.col("score_rejected")
    if filters.min_delta is not None:
        checks.append(("delta too small", delta < filters.min_delta))
    if filters.max_delta is not None:
        checks.append(("delta too large", delta > filters.max_delta))
    if filters.near_identical is not None:
        checks.append(("near-identical", _word_overlap(wide, candidates) >= filters.near_identical))
    reason: pl.Expr = pl.lit(None, dtype=pl.String)
    for name, holds in reversed(checks):
        reason = pl.when(holds).then(pl.lit(name)).otherwise(reason)
    if filters.sides == "chosen":
        reason = pl.coalesce("chosen_flag", reason)
    wide = wide.with_columns(reason=reason)
    kept = wide.filter(pl.col("reason").is_null()).select(pairs.columns)
    return kept, wide.filter(pl.col("reason").is_not_null()).select(*pairs.columns, "reason")


def match_lengths(
    pairs: pl.DataFrame, candidates: Candidates, filters: Filters, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Drop pairs until length tells nothing: as many with a longer as with a shorter chosen side, at every size of
    the gap.

    Gaps are matched within classes that double (1, 2 to 3, 4 to 7, ...); which pairs of the larger group stay is
    drawn with the seed. Pairs of equal length stay.
    """
    import polars as pl

    wide = with_sides(pairs, candidates)
    gap = _gap(wide, filters.length_unit)
    ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"])).gather(wide["prompt"])
    labels = pl.select(pl.concat_str(ids, wide["chosen_model"], wide["chosen_sample"], separator="\x1d")).to_series()
    wide = wide.with_columns(
        longer=gap.sign(), size=gap.abs().cast(pl.Float64).log(2).floor(), draw=random_draws(labels, seed)
    )
    place = pl.col("draw").rank("ordinal").over("size", "longer")
    longer = (pl.col("longer") > 0).sum().over("size")
    shorter = (pl.col("longer") < 0).sum().over("size")
    wide = wide.with_columns(stays=(pl.col("longer") == 0) | (place <= pl.min_horizontal(longer, shorter)))
    kept = wide.filter("stays").select(pairs.columns)
    lost = wide.filter(~pl.col("stays")).select(*pairs.columns, reason=pl.lit("length match"))
    return kept, lost


def balance_lengths(
    pairs: pl.DataFrame, candidates: Candidates, filters: Filters
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Drop pairs whose rejected side is longer by more than a share of its length: the share that best balances means.

    Step 7 of RLAIF-V as released (docs/methods/claims.md): of the shares r in 0, 0.02, ..., 0.98 the one is taken for
    which the pairs with ``(rejected - chosen) / rejected <= r`` have the smallest difference of mean lengths, relative
    to the mean of the rejected sides; of equals the largest, which keeps most. Where the chosen sides are longer in
    the mean it can do nothing, and drops nothing.
    """
    import polars as pl

    wide = with_sides(pairs, candidates)
    gap = -_gap(wide, filters.length_unit).to_numpy().astype(np.float64)
    rejected = wide[f"rejected_{filters.length_unit}"].to_numpy().astype(np.float64)
    stays = np.ones(len(gap), bool)
    if gap.sum() > 0:
        part = np.divide(gap, rejected, out=np.full(len(gap), -np.inf), where=rejected > 0)
        stays = part <= balancing_cut(part, gap, rejected)
    lost = pairs.filter(~stays).with_columns(reason=pl.lit("length balance", dtype=pl.String))
    return pairs.filter(stays), lost


def balancing_cut(part: Floats, gap: Floats, rejected: Floats) -> float:
    """Return the share at which cutting pairs balances the mean lengths of both sides best.

    Args:
        part: By how much the rejected side is longer, as a share of its own length.
        gap: The same in units of length.
        rejected: Length of the rejected side.
    """
    order = np.argsort(part, kind="stable")
    gaps, lengths = np.cumsum(gap[order]), np.cumsum(rejected[order])
    best, found = 0.98, np.inf
    for cut in np.arange(98, -1, -2) / 100:
        kept = int(np.searchsorted(part[order], cut + TINY, side="right"))
        off = abs(gaps[kept - 1]) / lengths[kept - 1] if kept and lengths[kept - 1] else np.inf
        if off < found - TINY:
            best, found = float(cut), off
    return best + TINY


def with_sides(pairs: pl.DataFrame, candidates: Candidates) -> pl.DataFrame:
    """Add the light columns of both sides to pairs, as ``chosen_<column>`` and ``rejected_<column>``."""
    columns = ["model", "sample", "chars", "tokens", "digest", "flag"]
    wide = pairs
    for side in ("chosen", "rejected"):
        own = candidates.frame.select("row", *columns).rename({"row": side, **{c: f"{side}_{c}" for c in columns}})
        wide = wide.join(own, on=side, how="left", maintain_order="left")
    return wide


def _gap(wide: pl.DataFrame, unit: str) -> pl.Series:
    """Return the length of the chosen side minus that of the rejected side."""
    import polars as pl

    gap = wide[f"chosen_{unit}"].cast(pl.Int64) - wide[f"rejected_{unit}"].cast(pl.Int64)
    if gap.has_nulls():
        raise UserError(
            f"The length in {unit} of {gap.null_count()} pairs is not known.",
            why="The responses have no completion_tokens.",
            fix="Set length_unit: chars, or give responses with token counts.",
        )
    return gap


def _word_overlap(wide: pl.DataFrame, candidates: Candidates) -> pl.Series:
    """Return the Jaccard index of the sets of words of both sides."""
    import polars as pl

    texts = candidates.responses["text"]
    parts = [pl.Series("overlap", [], pl.Float64)]
    for start in range(0, wide.height, CHUNK_ROWS):
        part = wide.slice(start, CHUNK_ROWS)
        words = pl.DataFrame(
            {
                side: normalized(pl.Series(pl.from_arrow(texts.take(part[side].to_arrow()))))
                .str.extract_all(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
                .list.unique()
                for side in ("chosen", "rejected")
            }
        )
        shared = pl.col("chosen").list.set_intersection("rejected").list.len()
        either = pl.col("chosen").list.set_union("rejected").list.len()
        parts.append(words.select(overlap=shared / either).to_series())
    return pl.concat(parts)
