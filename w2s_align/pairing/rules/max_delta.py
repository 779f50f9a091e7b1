"""Of the two models whose scores lie furthest apart the better one wins on every prompt."""

from __future__ import annotations

from typing import ClassVar, Unpack

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import Selection, declined_by_side, one_by_one


class MaxDelta(ScoreRule):
    """of the two models that are furthest apart the better one wins everywhere"""

    name: ClassVar[str] = "max_delta"

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Find the two models with the largest mean difference of scores, and pair their responses.

        The difference of two models is the mean, over the prompts that both answered, of the difference of their mean
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
        top = gaps.sort("gap", "model", "model_other", descending=[True, False, False]).row(0, named=True)
        chosen = candidates.frame.filter(pl.col("model") == top["model"])
        rejected = candidates.frame.filter(pl.col("model") == top["model_other"])
        pairs = one_by_one(chosen, rejected)
        return Selection(pairs, declined_by_side(pairs, chosen, candidates))


def max_delta(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, scorer: str | None = None, **options: Unpack[Options]
) -> Pairs:
    """Let the better of the two models that lie furthest apart win on every prompt.

    No source defines a rule of this name. Decided here: the gap of the *generators* is made as large as the models
    allow, as Olmo 3 does on purpose (https://arxiv.org/abs/2512.13961, section 5.3; docs/methods/pair_rules.md). The
    scores choose the two models (largest mean difference over the prompts that both answered; of equals the first by
    name) and nothing else, so single pairs may have a negative delta. The largest gap of single *responses* is
    ``best_worst``.

    Args:
        responses: Candidates of several models.
        scores: Their scores.
        prompts: The prompts.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`; or no two models have scored responses to the same prompt.
    """
    return MaxDelta.of(scorer=scorer).make([responses, scores], prompts, options)
