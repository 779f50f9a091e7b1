"""The pair rules that compare scores: which two responses of a prompt make a pair, or why a prompt has none.

Same contract as ``model_rules.py``: candidates in, a ``Selection`` out, whole columns at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing.candidates import Candidates, join_scores
from w2s_align.pairing.rules.model_rules import Selection, in_random_order, prompts_without, random_draws
from w2s_align.records import Settings

if TYPE_CHECKING:
    import polars as pl


def by_score_gap(candidates: Candidates, margin: float, pick: str, seed: int) -> Selection:
    """Pair responses of one prompt whose scores differ by at least ``margin`` (and by more than nothing).

    Args:
        candidates: Scored responses.
        margin: Least difference of the scores, in their own unit.
        pick: Which pairs come first: ``largest`` gap, ``smallest`` gap, or ``random``.
        seed: Seed of ``random``.
    """
    import polars as pl

    frame = candidates.frame.select("prompt", "row", "score")
    upper = frame.rename({"row": "chosen", "score": "score_chosen"})
    lower = frame.rename({"row": "rejected", "score": "score_rejected"})
    gap = pl.col("score_chosen") - pl.col("score_rejected")
    everything = upper.lazy().join(lower.lazy(), on="prompt", maintain_order="left_right").with_columns(gap=gap)
    pairs = everything.filter((pl.col("gap") > 0) & (pl.col("gap") >= margin)).collect()
    if pick == "random":
        pairs = in_random_order(pairs, candidates, seed)
    else:
        pairs = pairs.sort("prompt", "gap", descending=[False, pick == "largest"], maintain_order=True)
    return Selection(pairs.drop("gap"), _declined_by_score(pairs, candidates, "gap below the margin"))


def by_correctness(candidates: Candidates, right_at: float, seed: int) -> Selection:
    """Pair right responses (score at least ``right_at``) with wrong ones, in random order; every response is used
    once."""
    import polars as pl

    frame = candidates.frame.with_columns(right=pl.col("score") >= right_at)
    frame = in_random_order(frame, candidates, seed, key=("model", "sample"))
    place = pl.int_range(pl.len()).over("prompt", "right").alias("place")
    frame = frame.select("prompt", "right", "row", place, "score")
    chosen = frame.filter(pl.col("right")).select("prompt", "place", chosen="row", score_chosen="score")
    rejected = frame.filter(~pl.col("right")).select("prompt", "place", rejected="row", score_rejected="score")
    pairs = chosen.join(rejected, on=["prompt", "place"], maintain_order="left").drop("place")
    rest = prompts_without(pairs, candidates)
    reason = (
        pl.when(pl.col("prompt").is_in(chosen["prompt"].implode()))
        .then(pl.lit("all right"))
        .when(pl.col("prompt").is_in(rejected["prompt"].implode()))
        .then(pl.lit("all wrong"))
        .otherwise(pl.lit("no response"))
    )
    return Selection(pairs, rest.with_columns(reason=reason))


def by_best_worst(candidates: Candidates, margin: float, seed: int) -> Selection:
    """Pair the response with the highest score with the one with the lowest; equal scores are drawn with the seed."""
    import polars as pl

    frame = candidates.frame.select("prompt", "row", "score")
    chosen = _extreme(candidates, frame, "max", seed).select("prompt", chosen="row", score_chosen="score")
    rejected = _extreme(candidates, frame, "min", seed).select("prompt", rejected="row", score_rejected="score")
    gap = pl.col("score_chosen") - pl.col("score_rejected")
    pairs = chosen.join(rejected, on="prompt", maintain_order="left").filter((gap > 0) & (gap >= margin))
    return Selection(_ordered(pairs), _declined_by_score(pairs, candidates, "gap below the margin"))


def by_best_random(candidates: Candidates, seed: int) -> Selection:
    """Pair the response with the highest score with the others of lower score, in random order."""
    import polars as pl

    frame = candidates.frame.select("prompt", "row", "score")
    chosen = _extreme(candidates, frame, "max", seed).select("prompt", chosen="row", score_chosen="score")
    others = frame.rename({"row": "rejected", "score": "score_rejected"})
    pairs = chosen.join(others, on="prompt", maintain_order="left_right")
    pairs = in_random_order(pairs.filter(pl.col("score_rejected") < pl.col("score_chosen")), candidates, seed)
    return Selection(_ordered(pairs), _declined_by_score(pairs, candidates, "all scores equal"))


def by_worst_of_weak(candidates: Candidates, weak_models: Collection[str], margin: float, seed: int) -> Selection:
    """Pair the best response of all with the worst response of the weak models."""
    import polars as pl

    known = set(candidates.frame["model"].unique())
    absent = sorted(set(weak_models) - known)
    if absent or not weak_models:
        raise UserError(
            f"No response is by the weak model {', '.join(absent)}." if absent else "worst_of_weak needs weak_models.",
            fix=f"Name some of the models that wrote the responses: {', '.join(sorted(known))}.",
        )
    frame = candidates.frame.select("prompt", "row", "score", "model")
    weak = frame.filter(pl.col("model").is_in(list(weak_models)))
    chosen = _extreme(candidates, frame, "max", seed).select("prompt", chosen="row", score_chosen="score")
    rejected = _extreme(candidates, weak, "min", seed).select("prompt", rejected="row", score_rejected="score")
    gap = pl.col("score_chosen") - pl.col("score_rejected")
    pairs = chosen.join(rejected, on="prompt", maintain_order="left").filter((gap > 0) & (gap >= margin))
    declined = _declined_by_score(pairs, candidates, "gap below the margin")
    without = ~pl.col("prompt").is_in(weak["prompt"].unique().implode()) & (pl.col("reason") != "no response")
    reason = pl.when(without).then(pl.lit("no weak response")).otherwise("reason")
    return Selection(_ordered(pairs), declined.with_columns(reason=reason))


def by_max_delta(candidates: Candidates) -> Selection:
    """Find the two models with the largest mean difference of scores and let the better one win everywhere.

    The difference of two models is the mean over the prompts that both answered of the difference of their mean
    scores.
    """
    import polars as pl

    means = candidates.frame.group_by("prompt", "model").agg(pl.col("score").mean())
    both = means.join(means, on="prompt", suffix="_other").filter(pl.col("model") != pl.col("model_other"))
    gaps = both.group_by("model", "model_other").agg(gap=(pl.col("score") - pl.col("score_other")).mean())
    if not gaps.height:
        raise UserError(
            "max_delta needs scored responses of two models to the same prompts.",
            fix="Give the responses of several models in one table.",
        )
    best = gaps.sort("gap", "model", "model_other", descending=[True, False, False]).row(0, named=True)
    place = pl.int_range(pl.len()).over("prompt", "model").alias("place")
    frame = candidates.frame.select("prompt", "model", "row", "score", place)
    chosen = frame.filter(pl.col("model") == best["model"])
    rejected = frame.filter(pl.col("model") == best["model_other"])
    pairs = chosen.select("prompt", "place", chosen="row", score_chosen="score").join(
        rejected.select("prompt", "place", rejected="row", score_rejected="score"),
        on=["prompt", "place"],
        maintain_order="left",
    )
    has_chosen = pl.col("prompt").is_in(chosen["prompt"].unique().implode())
    reason = pl.when(has_chosen).then(pl.lit("no rejected response")).otherwise(pl.lit("no chosen response"))
    return Selection(_ordered(pairs), prompts_without(pairs, candidates).with_columns(reason=reason))


class Level(Settings):
    """One score of :func:`w2s_align.pairing.ranked_scores`."""

    scorer: str
    """Name of the scorer."""
    margin: float = Field(default=0.0, ge=0)
    """A difference up to this decides nothing."""
    unit: Literal["score", "std"] = "score"
    """Unit of the margin: that of the score, or the standard deviation of the score over all candidates."""
    lower_is_better: bool = False
    """The lower score wins."""


def with_levels(candidates: Candidates, scores: pa.Table, levels: Sequence[Level]) -> tuple[Candidates, list[float]]:
    """Add the score of each level to candidates as ``score_0``, ``score_1``, ..., and return the margins as well.

    Signs are turned so that higher is better. Margins in standard deviations are taken over the whole set, once: a
    margin that is taken anew from every batch drifts (verifiers.md 3).
    """
    import polars as pl

    frame = candidates.frame
    ids = pl.Series("prompt_id", pl.from_arrow(candidates.responses["prompt_id"]))
    frame = frame.with_columns(prompt_id=ids.gather(frame["row"]))
    margins = []
    for i, level in enumerate(levels):
        name = f"score_{i}"
        frame = join_scores(frame, scores, level.scorer, name)
        if level.lower_is_better:
            frame = frame.with_columns(-pl.col(name))
        spread = frame[name].std() or 0.0 if level.unit == "std" else 1.0
        margins.append(level.margin * spread)
    return replace(candidates, frame=frame.drop("prompt_id")), margins


def by_ranked_scores(candidates: Candidates, levels: Sequence[tuple[str, float]], seed: int) -> Selection:
    """Pair responses by several scores in order of importance: the first that differs by more than its margin decides.

    Candidates carry one column ``score_0``, ``score_1``, ... per level. Pairs that are part of a cycle of three (a
    over b over c over a, which thresholds allow) are left out. Of the pairs of one prompt those decided at the most
    important level come first, then those with the larger difference in units of the margin.

    Args:
        candidates: Responses with the scores of all levels.
        levels: Name and margin of each score, most important first.
        seed: Seed of the order of equals.
    """
    import polars as pl

    columns = [f"score_{level}" for level in range(len(levels))]
    frame = candidates.frame.select("prompt", "row", *columns)
    left = frame.rename({"row": "chosen", **{column: f"{column}_left" for column in columns}})
    right = frame.rename({"row": "rejected", **{column: f"{column}_right" for column in columns}})
    both = left.join(right, on="prompt", maintain_order="left_right").filter(pl.col("chosen") != pl.col("rejected"))
    level = pl.coalesce(
        pl.when((pl.col(f"{column}_left") - pl.col(f"{column}_right")).abs() > margin).then(pl.lit(i, dtype=pl.Int32))
        for i, (column, (_, margin)) in enumerate(zip(columns, levels, strict=True))
    )

    def at_level(side: str) -> pl.Expr:
        return pl.coalesce(pl.when(pl.col("level") == i).then(f"{c}_{side}") for i, c in enumerate(columns))

    decided = both.with_columns(level=level).filter(pl.col("level").is_not_null())
    decided = decided.with_columns(score_chosen=at_level("left"), score_rejected=at_level("right"))
    decided = decided.filter(pl.col("score_chosen") > pl.col("score_rejected"))
    decided = decided.select("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "level")
    cyclic = in_cycles(decided)
    pairs = decided.join(cyclic, on=["chosen", "rejected"], how="anti", maintain_order="left")
    gap = pl.col("score_chosen") - pl.col("score_rejected")
    unit = pl.Series([margin or 1.0 for _, margin in levels])
    pairs = in_random_order(pairs, candidates, seed)
    pairs = pairs.with_columns(size=gap / unit.gather(pairs["level"]))
    pairs = pairs.sort("prompt", "level", "size", descending=[False, False, True], maintain_order=True)
    names = pl.Series([f"ranked_scores:{name}" for name, _ in levels])
    pairs = pairs.with_columns(rule=names.gather(pairs["level"])).drop("level", "size")
    return Selection(pairs, _declined_by_score(pairs, candidates, "no level decides"))


def in_cycles(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs that are part of a cycle of three."""
    second = pairs.select(rejected="chosen", third="rejected")
    closing = pairs.select(third="chosen", chosen="rejected")
    return (
        pairs.select("chosen", "rejected")
        .join(second, on="rejected")
        .join(closing, on=["chosen", "third"])
        .select("chosen", "rejected")
        .unique()
    )


def _extreme(candidates: Candidates, frame: pl.DataFrame, which: str, seed: int) -> pl.DataFrame:
    """Return one row per prompt: that with the highest (``max``) or lowest (``min``) score, drawn among equals."""
    import polars as pl

    value = pl.col("score").max() if which == "max" else pl.col("score").min()
    tops = frame.filter(pl.col("score") == value.over("prompt"))
    alone = tops.select(pl.len().over("prompt") == 1).to_series()
    if alone.all():
        return tops.sort("prompt")
    ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"]))
    drawn = tops.filter(~alone).join(
        candidates.frame.select("row", name=pl.concat_str("source", "model", "sample", separator="\x1f")), on="row"
    )
    labels = pl.select(pl.concat_str(ids.gather(drawn["prompt"]), drawn["name"], separator="\x1d")).to_series()
    drawn = drawn.drop("name").with_columns(draw=random_draws(labels, seed)).sort("prompt", "draw")
    drawn = drawn.unique("prompt", keep="first", maintain_order=True).drop("draw")
    return pl.concat([tops.filter(alone), drawn]).sort("prompt")


def _ordered(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.select("prompt", "chosen", "rejected", "score_chosen", "score_rejected")


def _declined_by_score(pairs: pl.DataFrame, candidates: Candidates, otherwise: str) -> pl.DataFrame:
    """Say why prompts have no pair under a rule that compares scores."""
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
