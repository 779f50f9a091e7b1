"""An answer check decides: a right response beats a wrong one."""

from __future__ import annotations

from typing import ClassVar, Unpack

import pyarrow as pa

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import Selection, in_random_order, one_by_one, prompts_without


class Correctness(ScoreRule):
    """a right response beats a wrong one"""

    name: ClassVar[str] = "correctness"

    right_at: float = 1.0
    """A response is right from this score on."""

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair right responses with wrong ones in random order; every response is used once."""
        import polars as pl

        frame = in_random_order(candidates.frame, candidates, seed, key=("model", "sample"))
        right = pl.col("score") >= self.right_at
        chosen, rejected = frame.filter(right), frame.filter(~right)
        pairs = one_by_one(chosen, rejected)
        reason = (
            pl.when(pl.col("prompt").is_in(chosen["prompt"].implode()))
            .then(pl.lit("all right"))
            .when(pl.col("prompt").is_in(rejected["prompt"].implode()))
            .then(pl.lit("all wrong"))
            .otherwise(pl.lit("no response"))
        )
        return Selection(pairs, prompts_without(pairs, candidates).with_columns(reason=reason))


def correctness(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    right_at: float = 1.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let an answer check decide: a right response beats a wrong one; which of several is drawn with the seed.

    Prompts with only right or only wrong responses have no pair (docs/methods/answer_checks.md).

    Args:
        responses: Candidates of all models.
        scores: Their scores by an answer check.
        prompts: The prompts.
        right_at: A response is right when its score is at least this.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`. The ``tied`` control pairs two right responses.

    Raises:
        UserError: See :class:`Options`.
    """
    return Correctness.of(right_at=right_at, scorer=scorer).make([responses, scores], prompts, options)
