"""The pair rules: each says which two responses of a prompt make a pair, or why a prompt has none.

A rule reads :class:`~w2s_align.pairing.candidates.Candidates` and returns a :class:`Selection`: pairs as row numbers,
best first within their prompt, and one reason for every prompt that it declines. Rules see lengths, scores and the
names of models and never a gold answer. They work on whole columns; the order of the input rows does not matter to
any of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from w2s_align.errors import UserError
from w2s_align.pairing.candidates import Candidates

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Selection:
    """What a rule chose.

    Attributes:
        pairs: ``prompt``, ``chosen`` and ``rejected`` (rows of the responses), ``score_chosen``, ``score_rejected``;
            within a prompt the rows stand in the order in which the rule prefers them.
        declined: ``prompt`` and ``reason``, one row for each prompt without pairs.
    """

    pairs: pl.DataFrame
    declined: pl.DataFrame


def by_model_order(candidates: Candidates) -> Selection:
    """Pair the k-th usable response of source 0 (chosen) with the k-th usable response of source 1 (rejected)."""
    import polars as pl

    place = pl.int_range(pl.len()).over("prompt", "source").alias("place")
    frame = candidates.frame.select("prompt", "source", "row", place, "score")
    chosen = frame.filter(pl.col("source") == 0).select("prompt", "place", chosen="row", score_chosen="score")
    rejected = frame.filter(pl.col("source") == 1).select("prompt", "place", rejected="row", score_rejected="score")
    pairs = chosen.join(rejected, on=["prompt", "place"], maintain_order="left").drop("place")
    no_chosen = ~pl.col("prompt").is_in(chosen["prompt"].implode())
    reason = pl.when(no_chosen).then(pl.lit("no chosen response")).otherwise(pl.lit("no rejected response"))
    return Selection(pairs, prompts_without(pairs, candidates).with_columns(reason=reason))


def in_random_order(
    frame: pl.DataFrame, candidates: Candidates, seed: int, key: tuple[str, ...] = ("chosen", "rejected")
) -> pl.DataFrame:
    """Shuffle rows within their prompts; the order depends on the seed, the prompt's id, the models and the samples
    only."""
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
    import polars as pl

    salt = seed.to_bytes(8, "little", signed=True)
    digests = b"".join(hashlib.blake2b(label.encode(), digest_size=8, key=salt).digest() for label in labels)
    import numpy as np

    return pl.Series("draw", np.frombuffer(digests, dtype="<u8"))


def prompts_without(pairs: pl.DataFrame, candidates: Candidates) -> pl.DataFrame:
    """Return the prompts that have no pair, as one column ``prompt``."""
    import polars as pl

    everything = pl.DataFrame({"prompt": pl.int_range(candidates.prompts.num_rows, dtype=pl.UInt32, eager=True)})
    return everything.join(pairs.select("prompt").unique(), on="prompt", how="anti", maintain_order="left")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not one of those allowed."""
    if value not in allowed:
        raise UserError(f"{name} cannot be {value!r}.", fix=f"Use one of: {', '.join(allowed)}.")
