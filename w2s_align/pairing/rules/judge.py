"""A pairwise judge decides: the response that won in both orders beats the one that lost in both.

Comparisons in which the two orders contradict each other, tie, or could not be read make no pair and are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Unpack

import pyarrow as pa

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.rule import CANDIDATES, Input, Rule
from w2s_align.pairing.selection import Selection, in_cycles, in_random_order, prompts_without
from w2s_align.pairing.settings import Filters
from w2s_align.scoring.judge_scores import comparisons

if TYPE_CHECKING:
    import polars as pl

REASONS = {
    "flip": "the order of the two decided",
    "half tie": "a tie in one order",
    "tie": "a tie",
    "unreadable": "unreadable verdict",
}
"""What an outcome without a winner is called where a prompt ends without a pair; of several the first."""

NOT_USABLE = "of a response that is not usable"
"""Outcome of a comparison with a response that was set aside, or whose prompt is not there."""


class Judge(Rule):
    """the response that a pairwise judge prefers in both orders wins"""

    name: ClassVar[str] = "judge"
    inputs: ClassVar[tuple[Input, ...]] = (CANDIDATES, Input("scores", "verdicts", "Their scores.", many=True))

    def choose(
        self, tables: Sequence[pa.Table], prompts: pa.Table, filters: Filters, seed: int
    ) -> tuple[Candidates, Selection]:
        """Say which usable responses were compared, give each its share of won comparisons as a score, and select."""
        import polars as pl

        responses, verdicts = tables
        candidates = make_candidates(prompts, [responses], filters=filters)
        every = comparisons(verdicts)
        compared = _with_rows(candidates, every)
        shares = pl.concat(
            [compared.select("left", "value"), compared.select(left="right", value=1 - pl.col("value"))]
        ).group_by("left")
        frame = candidates.frame.drop("score").join(
            shares.agg(score=pl.col("value").mean()),
            left_on="row",
            right_on="left",
            how="left",
            maintain_order="left",
        )
        candidates = replace(candidates, frame=frame)
        outcomes = dict(compared["outcome"].value_counts().sort("outcome").iter_rows())
        if every.height > compared.height:
            outcomes[NOT_USABLE] = every.height - compared.height
        return candidates, replace(_by_verdict(candidates, compared, seed), comparisons=outcomes)


def judge(responses: pa.Table, verdicts: pa.Table, prompts: pa.Table, **options: Unpack[Options]) -> Pairs:
    """Let a pairwise judge decide, where it says the same in both orders.

    Meant for two candidates per prompt. With more, every comparison with a winner makes a pair, except those in a
    cycle of three (a over b over c over a); of the pairs of one prompt the clearer ones come first, equals in random
    order. Scores are the share of the verdicts (1 and 0 when the judge was asked once per order), ``counts`` has the
    comparisons by outcome. Verdicts of several judges are taken together. No gold answer is read. Why both orders:
    docs/methods/judges.md, after https://arxiv.org/abs/2406.07791.

    Args:
        responses: The candidates that were judged.
        verdicts: Rows of :data:`w2s_align.scoring.judge_scores.VERDICTS`, mode ``pairwise``.
        prompts: The prompts.
        **options: See :class:`Options`. The ``tied`` control takes as partner a response that won the same share of
            its comparisons.

    Raises:
        UserError: See :class:`Options`; or the verdicts are not of a pairwise judge.
    """
    return Judge().make([responses, verdicts], prompts, options)


def _by_verdict(candidates: Candidates, compared: pl.DataFrame, seed: int) -> Selection:
    """Pair winners with losers.

    Args:
        candidates: The responses.
        compared: ``prompt``, ``left`` and ``right`` (rows of the responses), ``outcome`` and ``value`` of each
            comparison.
        seed: Seed of the order of equals.
    """
    import polars as pl

    value = pl.col("value")
    wins = compared.filter(pl.col("outcome") == "win").select(
        "prompt", chosen="left", rejected="right", score_chosen=value, score_rejected=1 - value
    )
    losses = compared.filter(pl.col("outcome") == "loss").select(
        "prompt", chosen="right", rejected="left", score_chosen=1 - value, score_rejected=value
    )
    decided = pl.concat([wins, losses])
    cyclic = in_cycles(decided)
    pairs = decided.join(cyclic, on=["chosen", "rejected"], how="anti", maintain_order="left")
    pairs = in_random_order(pairs, candidates, seed)
    pairs = pairs.sort("prompt", "score_chosen", descending=[False, True], maintain_order=True)
    return Selection(pairs, _declined(pairs, candidates, compared))


def _declined(pairs: pl.DataFrame, candidates: Candidates, compared: pl.DataFrame) -> pl.DataFrame:
    """Say why prompts have no pair."""
    import polars as pl

    sizes = candidates.frame.group_by("prompt").agg(n=pl.len())
    outcomes = compared.group_by("prompt").agg(pl.col("outcome").unique())
    rest = prompts_without(pairs, candidates).join(sizes, on="prompt", how="left", maintain_order="left")
    rest = rest.join(outcomes, on="prompt", how="left", maintain_order="left")
    reason = (
        pl.when(pl.col("n").is_null())
        .then(pl.lit("no response"))
        .when(pl.col("n") == 1)
        .then(pl.lit("one response only"))
        .when(pl.col("outcome").is_null())
        .then(pl.lit("not judged"))
        .when(pl.col("outcome").list.set_intersection(["win", "loss"]).list.len() > 0)
        .then(pl.lit("a cycle of verdicts"))
    )
    for outcome, name in REASONS.items():
        reason = reason.when(pl.col("outcome").list.contains(outcome)).then(pl.lit(name))
    return rest.select("prompt", reason=reason)


def _with_rows(candidates: Candidates, table: pl.DataFrame) -> pl.DataFrame:
    """Say which usable responses were compared: ``prompt``, ``left``, ``right``, ``outcome``, ``value``."""
    import polars as pl

    ids = pl.DataFrame({"prompt_id": pl.from_arrow(candidates.prompts["id"])}).with_row_index("prompt")
    rows = candidates.frame.select("prompt", "model", "sample", "row").join(ids, on="prompt", maintain_order="left")
    left = rows.rename({"row": "left"})
    right = rows.drop("prompt").rename({"row": "right", "model": "other_model", "sample": "other_sample"})
    table = table.join(left, on=["prompt_id", "model", "sample"], maintain_order="left")
    table = table.join(right, on=["prompt_id", "other_model", "other_sample"], maintain_order="left")
    return table.select("prompt", "left", "right", "outcome", "value").sort("prompt", "left", "right")
