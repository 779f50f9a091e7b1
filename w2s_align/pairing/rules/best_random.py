"""The best response of a prompt beats a random one of the others, as in Tülu 3."""

from __future__ import annotations

from typing import ClassVar, Unpack

import pyarrow as pa

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import PAIR_COLUMNS, Selection, declined_by_score, extreme, in_random_order


class BestRandom(ScoreRule):
    """the best response beats a random other (Tülu 3)"""

    name: ClassVar[str] = "best_random"

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair the response with the highest score with the others of lower score, in random order."""
        import polars as pl

        frame = candidates.frame.select("prompt", "row", "score")
        best = extreme(candidates, frame, "max", seed).select("prompt", chosen="row", score_chosen="score")
        others = frame.rename({"row": "rejected", "score": "score_rejected"})
        pairs = best.join(others, on="prompt", maintain_order="left_right")
        pairs = in_random_order(pairs.filter(pl.col("score_rejected") < pl.col("score_chosen")), candidates, seed)
        return Selection(pairs.select(PAIR_COLUMNS), declined_by_score(pairs, candidates, "all scores equal"))


def best_random(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, scorer: str | None = None, **options: Unpack[Options]
) -> Pairs:
    """Let the best response beat a random one of the others: the binarization of Tülu 3.

    Tülu 3 (https://arxiv.org/abs/2411.15124), section 5.2, rejects a random one of the other three. Decided here,
    where it is silent: of several best the chosen one is drawn with the seed, and others with the best score are never
    rejected, because such a pair carries no preference; a prompt on which all are equal has no pair.

    Args:
        responses: Candidates of all models.
        scores: Their scores.
        prompts: The prompts.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`.
    """
    return BestRandom.of(scorer=scorer).make([responses, scores], prompts, options)
