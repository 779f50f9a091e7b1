"""What a pair rule chose, and what the rules share: random order, ties, cycles, and why a prompt has no pair.

Rules see lengths, scores and the names of models, and never a gold answer. They work on whole columns; the order of
the input rows does not matter to any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from w2s_align.pairing.candidates import Candidates

if TYPE_CHECKING:
    import polars as pl

PAIR_COLUMNS = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected")
"""Columns of the pairs of a :class:`Selection`."""


@dataclass(frozen=True)
class Selection:
    """What a rule chose.

    Attributes:
        pairs: :data:`PAIR_COLUMNS`, where ``prompt`` is a row of the prompts, and ``chosen`` and ``rejected`` are rows
            of the responses; a column ``rule`` names the rule of each pair where it is not the same for all. Within a
            prompt the pairs are in the order in which the rule prefers them.
        declined: ``prompt`` and ``reason``, one row for each prompt without pairs.
        comparisons: For a rule that reads a judge's verdicts, the number of comparisons by outcome.
    """

    pairs: pl.DataFrame
    declined: pl.DataFrame
    comparisons: Mapping[str, int] = field(default_factory=dict)


def one_by_one(chosen: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Pair the k-th chosen row of a prompt with its k-th rejected row.

    Args:
        chosen: ``prompt``, ``row`` and ``score`` of the responses that win.
        rejected: The same of those that lose.
    """
    import polars as pl

    place = pl.int_range(pl.len()).over("prompt").alias("place")
    left = chosen.select("prompt", place, chosen="row", score_chosen="score")
    right = rejected.select("prompt", place, rejected="row", score_rejected="score")
    return left.join(right, on=["prompt", "place"], maintain_order="left").select(PAIR_COLUMNS)


def by_source(candidates: Candidates) -> Selection:
    """Pair the k-th usable response of source 0 (chosen) with the k-th usable response of source 1 (rejected)."""
    import polars as pl

    chosen, rejected = (candidates.frame.filter(pl.col("source") == source) for source in (0, 1))
    pairs = one_by_one(chosen, rejected)
    return Selection(pairs, declined_by_side(pairs, chosen, candidates))


def declined_by_side(pairs: pl.DataFrame, chosen: pl.DataFrame, candidates: Candidates) -> pl.DataFrame:
    """Say which side the prompts without a pair lack, where it is fixed who stands on which side.

    Args:
        pairs: The pairs.
        chosen: The responses that could be chosen.
        candidates: Where the prompts are.
    """
    import polars as pl

    has_chosen = pl.col("prompt").is_in(chosen["prompt"].unique().implode())
    reason = pl.when(has_chosen).then(pl.lit("no rejected response")).otherwise(pl.lit("no chosen response"))
    return prompts_without(pairs, candidates).with_columns(reason=reason)


def declined_by_score(pairs: pl.DataFrame, candidates: Candidates, otherwise: str) -> pl.DataFrame:
    """Say why prompts have no pair under a rule that compares scores.

    Args:
        pairs: The pairs.
        candidates: The scored responses.
        otherwise: The reason where there are several responses with different scores.
    """
    import polars as pl

    spread = candidates.frame.group_by("prompt").agg(n=pl.len(), spread=pl.col("score").max() - pl.col("score").min())
    reason = (
        pl.when(pl.col("n").is_null())
        .then(pl.lit("no response"))
        .when(pl.col("n") == 1)
        .then(pl.lit("one response only"))
        .when(pl.col("spread") == 0)
        .then(pl.lit("all scores equal"))
        .otherwise(pl.lit(otherwise))
    )
    rest = prompts_without(pairs, candidates).join(spread, on="prompt", how="left", maintain_order="left")
    return rest.select("prompt", reason=reason)


def prompts_without(pairs: pl.DataFrame, candidates: Candidates) -> pl.DataFrame:
    """Return the prompts that have no pair, as one column ``prompt``."""
    import polars as pl

    everything = pl.DataFrame({"prompt": pl.int_range(candidates.prompts.num_rows, dtype=pl.UInt32, eager=True)})
    return everything.join(pairs.select("prompt").unique(), on="prompt", how="anti", maintain_order="left")


def over(chosen: pl.DataFrame, rejected: pl.DataFrame, margin: float) -> pl.DataFrame:
    """Pair one chosen with one rejected row of each prompt where their scores differ by the margin, and at all.

    Args:
        chosen: One row per prompt: ``prompt``, ``row`` and ``score``.
        rejected: The same of the side that loses.
        margin: Least difference of the scores.
    """
    import polars as pl

    left = chosen.select("prompt", chosen="row", score_chosen="score")
    right = rejected.select("prompt", rejected="row", score_rejected="score")
    gap = pl.col("score_chosen") - pl.col("score_rejected")
    pairs = left.join(right, on="prompt", maintain_order="left").filter((gap > 0) & (gap >= margin))
    return pairs.select(PAIR_COLUMNS)


def extreme(candidates: Candidates, frame: pl.DataFrame, which: Literal["max", "min"], seed: int) -> pl.DataFrame:
    """Return one row per prompt: the one with the highest (``max``) or lowest (``min``) score, drawn among equals.

    Args:
        candidates: What ``frame`` was taken from.
        frame: ``prompt``, ``row`` and ``score`` of the responses to look at.
        which: The end of the scores.
        seed: Seed of the draw.
    """
    import polars as pl

    value = pl.col("score").max() if which == "max" else pl.col("score").min()
    tops = frame.filter(pl.col("score") == value.over("prompt"))
    alone = tops.select(pl.len().over("prompt") == 1).to_series()
    if alone.all():  # the usual case with real-valued scores: nothing to draw, and no label to hash per row
        return tops.sort("prompt")
    ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"]))
    drawn = tops.filter(~alone).join(
        candidates.frame.select("row", name=pl.concat_str("source", "model", "sample", separator="\x1f")), on="row"
    )
    labels = pl.select(pl.concat_str(ids.gather(drawn["prompt"]), drawn["name"], separator="\x1d")).to_series()
    drawn = drawn.drop("name").with_columns(draw=random_draws(labels, seed)).sort("prompt", "draw")
    drawn = drawn.unique("prompt", keep="first", maintain_order=True).drop("draw")
    return pl.concat([tops.filter(alone), drawn]).sort("prompt")


def in_cycles(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs that are part of a cycle of three: a over b, b over c, c over a."""
    second = pairs.select(rejected="chosen", third="rejected")
    closing = pairs.select(third="chosen", chosen="rejected")
    return (
        pairs.select("chosen", "rejected")
        .join(second, on="rejected")
        .join(closing, on=["chosen", "third"])
        .select("chosen", "rejected")
        .unique()
    )


def in_random_order(
    frame: pl.DataFrame, candidates: Candidates, seed: int, key: tuple[str, ...] = ("chosen", "rejected")
) -> pl.DataFrame:
    """Shuffle rows within their prompts.

    The order depends on the seed, the prompt's id, the models and the samples only, so that neither the order of the
    input nor other prompts change it.

    Args:
        frame: The rows, with a column ``prompt``.
        candidates: What they were taken from.
        seed: Seed of the order.
        key: What tells the rows of a prompt apart: both sides of a pair, or columns of a response.
    """
    import polars as pl

    if key == ("chosen", "rejected"):
        names = candidates.frame.select("row", name=pl.concat_str("source", "model", "sample", separator="\x1f"))
        named = frame
        for side in key:
            named = named.join(names.rename({"row": side, "name": f"{side}_name"}), on=side, maintain_order="left")
        label = pl.concat_str("chosen_name", "rejected_name", separator="\x1e")
    else:
        named = frame
        label = pl.concat_str(*key, separator="\x1f")
    ids = pl.DataFrame({"id": pl.from_arrow(candidates.prompts["id"])}).with_row_index("prompt")
    labels = named.join(ids, on="prompt", maintain_order="left").select(pl.concat_str("id", label, separator="\x1d"))
    return (
        frame.with_columns(draw=random_draws(labels.to_series(), seed))
        .sort("prompt", "draw", maintain_order=True)
        .drop("draw")
    )


def random_draws(labels: pl.Series, seed: int) -> pl.Series:
    """Return a uniform 64-bit number for every label: the same for the same seed and label on every machine."""
    import numpy as np
    import polars as pl

    # A keyed hash and not a random generator: a row keeps its draw when other rows come or go.
    salt = seed.to_bytes(8, "little", signed=True)
    digests = b"".join(hashlib.blake2b(label.encode(), digest_size=8, key=salt).digest() for label in labels)
    return pl.Series("draw", np.frombuffer(digests, dtype="<u8"))
