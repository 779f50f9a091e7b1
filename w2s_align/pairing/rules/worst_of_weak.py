"""The best response of all models beats the worst response of some weak ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import Selection, declined_by_score, extreme, over


class WorstOfWeak(ScoreRule):
    """the best response of all beats the worst of the weak_models"""

    name: ClassVar[str] = "worst_of_weak"

    margin: float = Field(0.0, ge=0)
    """Least difference of the scores."""
    weak_models: list[str] = []
    """Models whose worst response is rejected."""

    def check(self) -> None:
        """Refuse a rule without weak models."""
        if not self.weak_models:
            raise UserError("The rule worst_of_weak needs weak_models.", fix="weak_models: [<model of the responses>]")

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair the best response of all with the worst response of the weak models."""
        import polars as pl

        known = set(candidates.frame["model"].unique())
        absent = sorted(set(self.weak_models) - known)
        if absent:
            raise UserError(
                f"No response is by the weak model {', '.join(absent)}.",
                fix=f"Name some of the models that wrote the responses: {', '.join(sorted(known))}.",
            )
        frame = candidates.frame.select("prompt", "row", "score", "model")
        weak = frame.filter(pl.col("model").is_in(self.weak_models))
        best, worst = extreme(candidates, frame, "max", seed), extreme(candidates, weak, "min", seed)
        pairs = over(best, worst, self.margin)
        declined = declined_by_score(pairs, candidates, "gap below the margin")
        without = ~pl.col("prompt").is_in(weak["prompt"].unique().implode()) & (pl.col("reason") != "no response")
        reason = pl.when(without).then(pl.lit("no weak response")).otherwise("reason")
        return Selection(pairs, declined.with_columns(reason=reason))


def worst_of_weak(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    weak_models: Collection[str],
    margin: float = 0.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the best response of all beat the worst response of some weak models.

    Olmo 3 has weak models among its candidates, too, and rejects the worst of all: that is ``best_worst``.

    Args:
        responses: Candidates of all models, weak ones among them.
        scores: Their scores.
        prompts: The prompts.
        weak_models: Names of the weak models, as in ``Response.model``.
        margin: Least difference of the two scores; equal scores never make a pair.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`; or no response is by one of the weak models.
    """
    rule = WorstOfWeak.of(margin=margin, weak_models=list(weak_models), scorer=scorer)
    return rule.make([responses, scores], prompts, options)
