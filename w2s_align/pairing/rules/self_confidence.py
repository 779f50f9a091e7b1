"""A model's own confidence decides: stage II of weak-to-strong reasoning.

The strong model answers every prompt several times; the share of its most common final answer is its confidence.
Where it is sure, it judges the weak model's answer: agreement makes the weak response the chosen side, disagreement
the rejected one. No gold answer is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates, make_candidates, vote_shares
from w2s_align.pairing.rule import Input, Rule
from w2s_align.pairing.selection import Selection, in_random_order, prompts_without
from w2s_align.pairing.settings import Filters
from w2s_align.scoring.votes import AnswerKind, Comparison, final_answers

if TYPE_CHECKING:
    import polars as pl

TINY = 1e-9
"""Shares are ratios of whole numbers: 0.6 of 10 is kept however it is rounded."""


class SelfConfidence(Rule):
    """what the strong model's majority answer is sure of (weak-to-strong reasoning, stage II)"""

    name: ClassVar[str] = "self_confidence"
    inputs: ClassVar[tuple[Input, ...]] = (
        Input("own", "responses", "Several samples of the strong model for each prompt (10 at temperature 1)."),
        Input("weak", "responses", "One response of the weak model for each prompt."),
    )

    keep_at: float = Field(0.6, gt=0, le=1)
    """Least share of the strong model's majority answer for any pair."""
    reject_at: float = Field(0.8, gt=0, le=1)
    """Least share of it at which a weak response with another answer is rejected."""
    answer: AnswerKind = "number"
    """What final answers look like."""
    compare: Comparison = "value"
    """When answers are the same: by value, or only where they are written alike, as in the source."""
    mark: str | None = Field(None, min_length=1)
    """What must stand before a final answer, e.g. "####". Default: it is found as by an answer check."""

    newer: ClassVar[tuple[str, ...]] = ("compare", "mark")

    def check(self) -> None:
        """Refuse a confidence that rejects and does not keep."""
        if self.keep_at > self.reject_at:
            raise UserError(f"keep_at {self.keep_at:g} is above reject_at {self.reject_at:g}.", fix="Swap them.")

    def choose(
        self, tables: Sequence[pa.Table], prompts: pa.Table, filters: Filters, seed: int
    ) -> tuple[Candidates, Selection]:
        """Let the own samples vote, and select."""
        candidates = make_candidates(prompts, tables, filters=filters)
        candidates, votes = _with_answers(candidates, self.answer, self.compare, self.mark)
        return candidates, _by_confidence(candidates, votes, self.keep_at, self.reject_at, seed)


def self_confidence(
    own: pa.Table,
    weak: pa.Table,
    prompts: pa.Table,
    *,
    keep_at: float = 0.6,
    reject_at: float = 0.8,
    answer: AnswerKind = "number",
    compare: Comparison = "value",
    mark: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the strong model's majority answer decide on which side of the pair the weak response stands.

    Stage II of weak-to-strong reasoning (https://arxiv.org/abs/2407.13647); docs/methods/weak_to_strong_reasoning.md.

    1. The majority answer is the most common one of all own samples (of equals the one seen first); its share is the
       confidence. A sample without an answer counts as the answer "".
    2. Confidence below ``keep_at``, or the majority has no answer: no pair.
    3. The weak answer equals the majority: chosen is the weak response, rejected are own samples with other answers,
       drawn at random; there are none: no pair ("too easy").
    4. It does not, and the confidence is at least ``reject_at``: chosen are own samples with the majority answer,
       drawn at random and with different texts, rejected is the weak response.
    5. Else: no pair.

    Scores of the pair are the vote shares of both sides' answers.

    Args:
        own: Several samples of the strong model per prompt (the paper: 10 at temperature 1).
        weak: One response of the weak model per prompt (the paper: greedy).
        prompts: The prompts.
        keep_at: Least confidence of any pair.
        reject_at: Least confidence at which a disagreeing weak response is rejected.
        answer: What final answers look like.
        compare: When answers are the same: by ``value``, or written alike as in the source (``text``).
        mark: What must stand before a final answer, e.g. ``####``; None to look for one as answer checks do.
        **options: See :class:`Options`; the paper's ``pairs_per_prompt`` is 1 for GSM8K and
            3 for MATH. The ``tied`` control takes as partner a response whose answer has the same share.

    Raises:
        UserError: See :class:`Options`; or ``keep_at`` and ``reject_at`` do not fit together.
    """
    rule = SelfConfidence.of(keep_at=keep_at, reject_at=reject_at, answer=answer, compare=compare, mark=mark)
    return rule.make([own, weak], prompts, options)


def _with_answers(
    candidates: Candidates, answer: AnswerKind, compare: Comparison, mark: str | None
) -> tuple[Candidates, pl.DataFrame]:
    """Add to every usable response its final ``answer``, and as ``score`` the share of the strong model's samples
    that gave it; return the votes as well."""
    import polars as pl

    answers = pl.Series(
        "answer", pl.from_arrow(final_answers(candidates.responses, answer, mark=mark, compare=compare))
    )
    votes = vote_shares(candidates, answers)
    shares = votes.select("prompt", "answer", score="share")
    frame = candidates.frame.drop("score").with_columns(answer=answers.gather(candidates.frame["row"]))
    frame = frame.join(shares, on=["prompt", "answer"], how="left", maintain_order="left")
    return replace(candidates, frame=frame.with_columns(pl.col("score").fill_null(0.0))), votes


def _by_confidence(
    candidates: Candidates, votes: pl.DataFrame, keep_at: float, reject_at: float, seed: int
) -> Selection:
    """Apply the rule to what :func:`_with_answers` gives: source 0 is the strong model, source 1 the weak one."""
    import polars as pl

    usable = candidates.frame
    own = in_random_order(usable.filter(pl.col("source") == 0), candidates, seed, key=("model", "sample"))
    own = own.unique(["prompt", "digest"], keep="first", maintain_order=True)
    weak = (
        usable.filter(pl.col("source") == 1)
        .sort("prompt", "sample")
        .unique("prompt", keep="first", maintain_order=True)
    )
    sure = votes.sort("prompt", "share", "first", descending=[False, True, False])
    sure = sure.unique("prompt", keep="first", maintain_order=True).select("prompt", top="answer", confidence="share")
    case = sure.join(
        weak.select("prompt", weak="row", weak_answer="answer", weak_share="score"), on="prompt", how="left"
    )
    case = case.with_columns(
        case=pl.when(pl.col("weak").is_null())
        .then(pl.lit("no weak response"))
        .when(pl.col("confidence") < keep_at - TINY)
        .then(pl.lit("low confidence"))
        .when(pl.col("top") == "")
        .then(pl.lit("majority has no answer"))
        .when(pl.col("weak_answer") == pl.col("top"))
        .then(pl.lit("agree"))
        .when(pl.col("confidence") >= reject_at - TINY)
        .then(pl.lit("disagree"))
        .otherwise(pl.lit("unsure disagreement"))
    )
    both = own.join(case, on="prompt", maintain_order="left")
    over_other = both.filter((pl.col("case") == "agree") & (pl.col("answer") != pl.col("top"))).select(
        "prompt", chosen="weak", rejected="row", score_chosen="weak_share", score_rejected="score"
    )
    over_weak = both.filter((pl.col("case") == "disagree") & (pl.col("answer") == pl.col("top"))).select(
        "prompt", chosen="row", rejected="weak", score_chosen="score", score_rejected="weak_share"
    )
    pairs = pl.concat([over_other, over_weak]).sort("prompt", maintain_order=True)
    return Selection(pairs, _declined(candidates, case, pairs))


def _declined(candidates: Candidates, case: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Say why prompts have no pair."""
    import polars as pl

    rest = prompts_without(pairs, candidates).join(case, on="prompt", how="left", maintain_order="left")
    reason = (
        pl.when(pl.col("case").is_null())
        .then(pl.lit("no own response"))
        .when(pl.col("case") == "agree")
        .then(pl.lit("too easy"))
        .when(pl.col("case") == "disagree")
        .then(pl.lit("no usable majority response"))
        .otherwise("case")
    )
    return rest.select("prompt", reason=reason)
