"""The better model's response wins where a score agrees: the filter of self-reinforcement.

With the log-probabilities of the tuned model, or its own verdicts (a judge with ``mode: preference``), a model drops
the pairs in which it does not prefer its own response. No gold answer is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.rule import BETTER_AND_WORSE, SCORED, Input, ScoreRule
from w2s_align.pairing.selection import Selection, by_source, declined_by_side
from w2s_align.pairing.settings import Filters


class Confirmed(ScoreRule):
    """the better model's response wins where its score is the higher one"""

    name: ClassVar[str] = "confirmed"
    inputs: ClassVar[tuple[Input, ...]] = (*BETTER_AND_WORSE, SCORED[1])

    margin: float = Field(0.0, ge=0)
    """Least difference of the scores."""

    def choose(
        self, tables: Sequence[pa.Table], prompts: pa.Table, filters: Filters, seed: int
    ) -> tuple[Candidates, Selection]:
        """Join the scores to the responses of both models, and select."""
        *sides, scores = tables
        candidates = make_candidates(prompts, sides, scores, scorer=self.scorer, filters=filters)
        return candidates, self.select(candidates, seed)

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair the k-th usable response of one side with the k-th of the other where the score agrees."""
        import polars as pl

        every = by_source(candidates)
        gap = pl.col("score_chosen") - pl.col("score_rejected")
        pairs = every.pairs.filter((gap > 0) & (gap >= self.margin))
        chosen = candidates.frame.filter(pl.col("source") == 0)
        refused = pl.col("prompt").is_in(every.pairs["prompt"].unique().implode())
        reason = pl.when(refused).then(pl.lit("not confirmed by the score")).otherwise("reason")
        return Selection(pairs, declined_by_side(pairs, chosen, candidates).with_columns(reason=reason))


def confirmed(
    better: pa.Table,
    worse: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    margin: float = 0.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the better model's response win where a score agrees; all other pairs are dropped.

    Source: self-reinforcement (https://arxiv.org/abs/2405.04086); docs/methods/self_reinforcement.md.

    Args:
        better: Responses of the better model, e.g. the tuned one.
        worse: Responses of the worse model, e.g. the one that it was tuned from.
        scores: Scores of both (:class:`w2s_align.records.Score`).
        prompts: The prompts.
        margin: Least difference of the scores; equal scores never make a pair.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`; or ``margin`` does not fit.
    """
    return Confirmed.of(margin=margin, scorer=scorer).make([better, worse, scores], prompts, options)
