"""Pairs from a model's own confidence: stage II of weak-to-strong reasoning (Yang, Ma, Liu 2024; w2s_reasoning.md
1.3).

The strong model answers every prompt several times; the share of its most common final answer is its confidence.
Where it is sure, it judges the weak model's answer: agreement makes the weak response the chosen side, disagreement
the rejected one. No gold answer is read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Pairs
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.pairs import Options, finished, options_filters
from w2s_align.pairing.rules.model_rules import Selection, in_random_order, prompts_without
from w2s_align.scoring.votes import AnswerKind, final_answers

if TYPE_CHECKING:
    import polars as pl


def self_confidence(
    own: pa.Table,
    weak: pa.Table,
    prompts: pa.Table,
    *,
    keep_at: float = 0.6,
    reject_at: float = 0.8,
    answer: AnswerKind = "number",
    **options: Unpack[Options],
) -> Pairs:
    """Let the strong model's majority answer decide on which side of the pair the weak response stands.

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
        **options: See :class:`~w2s_align.pairing.pairs.Options`; the paper's ``pairs_per_prompt`` is 1 for GSM8K and
            3 for MATH. The ``tied`` control takes as partner a response whose answer has the same share.
    """
    if not 0 < keep_at <= reject_at <= 1:
        raise UserError(
            f"keep_at {keep_at} and reject_at {reject_at} do not fit together.",
            fix="Use 0 < keep_at <= reject_at <= 1.",
        )
    candidates = make_candidates(prompts, [own, weak], filters=options_filters(options))
    candidates, votes = with_answers(candidates, answer)
    selection = by_self_confidence(candidates, votes, keep_at, reject_at, options.get("seed", 0))
    return finished("self_confidence", candidates, selection, options)


def with_answers(candidates: Candidates, answer: AnswerKind) -> tuple[Candidates, pl.DataFrame]:
    """Add to every usable response its final ``answer``, and as its ``score`` the share of the strong model's samples
    that gave it; return the votes as well."""
    import polars as pl

    answers = pl.Series("answer", pl.from_arrow(final_answers(candidates.responses, answer)))
    votes = vote_shares(candidates, answers)
    shares = votes.select("prompt", "answer", score="share")
    frame = candidates.frame.drop("score").with_columns(answer=answers.gather(candidates.frame["row"]))
    frame = frame.join(shares, on=["prompt", "answer"], how="left", maintain_order="left")
    return replace(candidates, frame=frame.with_columns(pl.col("score").fill_null(0.0))), votes


def by_self_confidence(
    candidates: Candidates, votes: pl.DataFrame, keep_at: float, reject_at: float, seed: int
) -> Selection:
    """Apply the rule of :func:`self_confidence` to what :func:`with_answers` gives: source 0 is the strong model,
    source 1 the weak one."""
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
    tiny = 1e-9  # shares are ratios of whole numbers: 0.6 of 10 is kept however it is rounded
    case = case.with_columns(
        case=pl.when(pl.col("weak").is_null())
        .then(pl.lit("no weak response"))
        .when(pl.col("confidence") < keep_at - tiny)
        .then(pl.lit("low confidence"))
        .when(pl.col("top") == "")
        .then(pl.lit("majority has no answer"))
        .when(pl.col("weak_answer") == pl.col("top"))
        .then(pl.lit("agree"))
        .when(pl.col("confidence") >= reject_at - tiny)
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


def vote_shares(candidates: Candidates, answers: pl.Series) -> pl.DataFrame:
    """Return for each prompt and answer its ``share`` of the strong model's samples and its ``first`` sample.

    All samples vote, also those that cannot be part of a pair: a sample that was cut at the token limit has no answer,
    and that is part of the model's confidence.
    """
    import polars as pl

    unusable = candidates.faults.filter(pl.col("reason").is_in(["failed", "empty", "truncated"]))
    columns = ["prompt", "source", "sample", "row"]
    voters = pl.concat([candidates.frame.select(columns), unusable.select(columns)]).filter(pl.col("source") == 0)
    voters = voters.with_columns(answer=answers.gather(voters["row"]))
    counts = voters.group_by("prompt", "answer").agg(n=pl.len(), first=pl.col("sample").min())
    return counts.with_columns(share=pl.col("n") / pl.col("n").sum().over("prompt"))


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
