"""The best response of a prompt beats the worst."""

from __future__ import annotations

from typing import ClassVar, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import Selection, declined_by_score, extreme, over


class BestWorst(ScoreRule):
    """the best response beats the worst (Olmo 3, with weak models among the candidates)"""

    name: ClassVar[str] = "best_worst"

    margin: float = Field(0.0, ge=0)
    """Least difference of the scores."""

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair the response with the highest score with the one with the lowest; equal scores are drawn."""
        frame = candidates.frame.select("prompt", "row", "score")
        best, worst = extreme(candidates, frame, "max", seed), extreme(candidates, frame, "min", seed)
        pairs = over(best, worst, self.margin)
        return Selection(pairs, declined_by_score(pairs, candidates, "gap below the margin"))


def best_worst(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    margin: float = 0.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the best response of a prompt beat the worst: one pair per prompt, of the largest gap there is.

    Olmo 3 (https://arxiv.org/abs/2512.13961), section 5.3, puts weak models among the candidates and rejects the
    worst of all.

    Args:
        responses: Candidates of all models.
        scores: Their scores.
        prompts: The prompts.
        margin: Least difference of best and worst; equal scores never make a pair.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`; or ``margin`` is negative.
    """
    return BestWorst.of(margin=margin, scorer=scorer).make([responses, scores], prompts, options)
