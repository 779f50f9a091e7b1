"""The higher score wins wherever two responses of a prompt differ by enough."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import PAIR_COLUMNS, Selection, declined_by_score, in_random_order

Pick: TypeAlias = Literal["largest", "smallest", "random"]


class ScoreGap(ScoreRule):
    """the higher score wins where scores differ by at least margin"""

    name: ClassVar[str] = "score_gap"

    margin: float = Field(0.0, ge=0)
    """Least difference of the scores."""
    pick: Pick = "largest"
    """Which gap of several to take first."""

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair all responses of a prompt whose scores differ by at least the margin, and at all."""
        import polars as pl

        frame = candidates.frame.select("prompt", "row", "score")
        upper = frame.rename({"row": "chosen", "score": "score_chosen"})
        lower = frame.rename({"row": "rejected", "score": "score_rejected"})
        gap = pl.col("score_chosen") - pl.col("score_rejected")
        everything = upper.lazy().join(lower.lazy(), on="prompt", maintain_order="left_right").with_columns(gap=gap)
        pairs = everything.filter((pl.col("gap") > 0) & (pl.col("gap") >= self.margin)).collect()
        if self.pick == "random":
            pairs = in_random_order(pairs, candidates, seed)
        else:
            pairs = pairs.sort("prompt", "gap", descending=[False, self.pick == "largest"], maintain_order=True)
        declined = declined_by_score(pairs, candidates, "gap below the margin")
        return Selection(pairs.select(PAIR_COLUMNS), declined)


def score_gap(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    margin: float = 0.0,
    pick: Pick = "largest",
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let a score decide: the higher score beats the lower when they differ by at least ``margin``.

    Args:
        responses: Candidates of all models.
        scores: Their scores (:class:`w2s_align.records.Score`).
        prompts: The prompts.
        margin: Least difference, in the unit of the score; equal scores never make a pair.
        pick: Of several pairs of one prompt, first the one with the ``largest`` or ``smallest`` gap, or a ``random``
            one.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`. The ``tied`` control pairs two responses with the same score.

    Raises:
        UserError: See :class:`Options`; or ``pick`` or ``margin`` does not fit.
    """
    return ScoreGap.of(margin=margin, pick=pick, scorer=scorer).make([responses, scores], prompts, options)
