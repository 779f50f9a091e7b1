"""The controls of any pair rule, by one switch: what happens when the pairs carry no delta, or the wrong one?

``reversed`` swaps chosen and rejected. ``tied`` keeps the chosen side and takes as the rejected side another response
of the same quality, so that there is no delta (the "3 over 3" run of the delta learning paper, section 3,
https://arxiv.org/abs/2507.06187; docs/methods/delta_learning.md). ``shuffled`` swaps half of the pairs by a coin that
is seeded with the prompt's id, so that labels carry no information.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import pyarrow as pa
import pyarrow.compute as pc

from w2s_align.errors import UserError
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.selection import in_random_order, random_draws

if TYPE_CHECKING:
    import polars as pl

Control: TypeAlias = Literal["none", "reversed", "tied", "shuffled"]
CONTROLS: tuple[Control, ...] = get_args(Control)

_SIDES = (
    ("chosen", "rejected"),
    ("chosen_model", "rejected_model"),
    ("chosen_sample", "rejected_sample"),
    ("score_chosen", "score_rejected"),
)
"""Columns of a pair that trade places when it is reversed."""


def reverse(pairs: pa.Table) -> pa.Table:
    """Swap the two sides of every pair; the delta changes its sign. Reversing twice gives the table back.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
    """
    table = pairs
    for left, right in _SIDES:
        table = _set(table, left, pairs[right])
        table = _set(table, right, pairs[left])
    table = _set(table, "delta", pc.negate(pairs["delta"]))
    names = pairs["rule"]
    was = pc.ends_with(names, "+reversed")
    back = pc.replace_substring_regex(names, r"\+reversed$", "")
    forth = pc.binary_join_element_wise(names, pa.scalar("+reversed"), "")
    return _set(table, "rule", pc.if_else(was, back, forth))


def _set(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), values)


def swap_half(pairs: pl.DataFrame, candidates: Candidates, seed: int) -> pl.DataFrame:
    """Swap the sides of each selected pair by a fair coin, seeded with the prompt's id and the pair's place there."""
    import polars as pl

    ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"]))
    place = pairs.select(pl.int_range(pl.len()).over("prompt")).to_series()
    labels = pl.select(pl.concat_str(ids.gather(pairs["prompt"]), place, separator="\x1d")).to_series()
    heads = random_draws(labels, seed) % 2 == 0
    swapped = pairs.rename({"chosen": "rejected", "rejected": "chosen"})
    swapped = swapped.rename({"score_chosen": "score_rejected", "score_rejected": "score_chosen"}).select(
        pairs.columns
    )
    return pairs.select(
        pl.when(heads).then(swapped[column]).otherwise(pl.col(column)).alias(column) for column in pairs.columns
    )


def tie(pairs: pl.DataFrame, candidates: Candidates, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Replace the rejected side of each pair by another response of the same quality as the chosen one.

    Same quality is: the same score (all scores, for a rule that ranks by several), for a rule that used scores; else
    the same source and model as the chosen response (another sample of it). The partner has another text; which one
    it is is drawn with the seed.

    Args:
        pairs: The pairs that the rule made.
        candidates: Where partners are looked for.
        seed: Seed of the draw.

    Returns:
        The tied pairs, and the prompts (``prompt``, ``reason``) for which there is no partner.

    Raises:
        UserError: There is no partner for any pair.
    """
    import polars as pl

    frame = candidates.frame
    levels = [name for name in frame.columns if name.startswith("score_")]  # of a rule that ranks by several scores
    scored = bool(levels or pairs["score_chosen"].is_not_null().any())
    quality = levels or ["score"] if scored else ["source", "model"]
    kept = pairs.drop("rejected", "score_rejected").columns
    own = frame.select(chosen="row", own_digest="digest", **{f"own_{name}": name for name in quality})
    others = frame.select("prompt", "digest", *quality, rejected="row")
    options = pairs.select(kept).join(own, on="chosen", maintain_order="left")
    options = options.join(others, on="prompt", maintain_order="left_right")
    same = pl.all_horizontal(pl.col(f"own_{name}").eq_missing(pl.col(name)) for name in quality)
    options = options.filter(same & (pl.col("digest") != pl.col("own_digest")))
    options = options.with_columns(score_rejected="score_chosen").select(pairs.columns)
    tied = in_random_order(options, candidates, seed).unique("chosen", keep="first", maintain_order=True)
    if pairs.height and not tied.height:
        raise UserError(
            "The tied control cannot be made: no prompt has a second response of the same quality as the chosen one.",
            why="Tied pairs have two different responses with the same score."
            if scored
            else "Tied pairs have two different samples of the chosen model, and it answered every prompt only once.",
            fix="Score more samples per prompt."
            if scored
            else "Generate the chosen responses with n: 2 or more and a temperature above 0.",
        )
    missing = pairs.select("prompt").unique().join(tied.select("prompt").unique(), on="prompt", how="anti")
    return tied, missing.sort("prompt").with_columns(reason=pl.lit("no second response of the same quality"))
