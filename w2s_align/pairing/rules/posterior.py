"""Pairs by the probability that each response is right: of a label model, a reward model on that scale, a judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import ScoreRule
from w2s_align.pairing.selection import PAIR_COLUMNS, Selection, declined_by_score

if TYPE_CHECKING:
    import polars as pl


class Posterior(ScoreRule):
    """the response that is more probably right wins; scores are probabilities"""

    name: ClassVar[str] = "posterior"

    margin: float = Field(0.0, ge=0)
    """Least difference of the scores."""
    least_preference: float = Field(0.5, ge=0.5, lt=1)
    """Least probability that the chosen response is the better one, given that one of the two is right and the other
    wrong. Of chosen p and rejected q it is p(1-q) / (p(1-q) + q(1-p))."""

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair responses of a prompt whose probabilities differ enough, the surest pair first.

        Raises:
            UserError: A score is no probability.
        """
        import polars as pl

        frame = candidates.frame.select("prompt", "row", "score")
        _refuse_no_probabilities(frame["score"])
        upper = frame.rename({"row": "chosen", "score": "score_chosen"})
        lower = frame.rename({"row": "rejected", "score": "score_rejected"})
        chosen, rejected = pl.col("score_chosen"), pl.col("score_rejected")
        pairs = (
            upper.lazy()
            .join(lower.lazy(), on="prompt", maintain_order="left_right")
            .filter((chosen > rejected) & (chosen - rejected >= self.margin))
            .with_columns(sure=preference(chosen, rejected), strict=chosen * (1 - rejected))
            .filter(pl.col("sure") >= self.least_preference)
            .collect()
        )
        pairs = pairs.sort("prompt", "strict", descending=[False, True], maintain_order=True)
        return Selection(pairs.select(PAIR_COLUMNS), declined_by_score(pairs, candidates, "too close to call"))


def preference(chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    """Return the probability that the chosen response is the better one, given that exactly one of the two is right.

    Args:
        chosen: Probability that the chosen response is right.
        rejected: Probability that the rejected one is.
    """
    import polars as pl

    won, lost = chosen * (1 - rejected), rejected * (1 - chosen)
    return pl.when(won + lost > 0).then(won / (won + lost)).otherwise(0.5)


def _refuse_no_probabilities(scores: pl.Series) -> None:
    outside = int(((scores < 0) | (scores > 1)).sum())
    if outside:
        raise UserError(
            f"{outside:,} scores are no probabilities: they lie outside 0 to 1.",
            fix="Use rule: score_gap, or make probabilities first: {kind: combine, method: label_model, ...}.",
        )


def posterior(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    margin: float = 0.0,
    least_preference: float = 0.5,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the response win that is more probably right, the surest pair of a prompt first.

    The surest pair is the one whose chosen response is right and whose rejected one is wrong with the highest
    probability, if responses are right independently of each other.

    Args:
        responses: Candidates of all models.
        scores: The probability that each is right, e.g. of ``combine(..., "label_model")``.
        prompts: The prompts.
        margin: Least difference of the probabilities; equal ones never make a pair.
        least_preference: Least probability that the chosen response is the better one, given that one of the two is
            right and the other wrong.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`; a score lies outside 0 to 1, or an option does not fit.
    """
    rule = Posterior.of(margin=margin, least_preference=least_preference, scorer=scorer)
    return rule.make([responses, scores], prompts, options)
