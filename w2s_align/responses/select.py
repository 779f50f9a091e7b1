"""Choose responses to train on: by agreement of two models, by correctness, by a model's own confidence.

Reads responses (and scores), returns the responses kept, with the same list and counts of what was dropped as a pair
rule gives. Only :func:`select_correct` and :func:`select_incorrect` use scores; the others read no gold answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from w2s_align.pairing.candidates import Candidates, make_candidates, vote_shares
from w2s_align.pairing.counts import Counts, count_dropped
from w2s_align.pairing.dropped import dropped_rows
from w2s_align.pairing.selection import extreme, in_random_order, prompts_without, random_draws
from w2s_align.pairing.settings import Filters
from w2s_align.records import Response
from w2s_align.scoring.votes import AnswerKind, Comparison, final_answers

if TYPE_CHECKING:
    import polars as pl

FORMS: dict[Comparison, str] = {"value": "an answer that agrees by value", "text": "an answer that agrees as text"}
"""Both ways to compare answers, and how their counts are called."""


@dataclass(frozen=True)
class Selected:
    """Responses that were kept.

    Attributes:
        table: Rows of :class:`w2s_align.records.Response`, in the order of the prompts.
        dropped: Rows of :data:`w2s_align.pairing.dropped.DROPPED`.
        counts: What went in, what is left and what was dropped, of prompts and responses. A response that was not
            selected although nothing is wrong with it is neither kept nor dropped.
    """

    table: pa.Table
    dropped: pa.Table
    counts: Counts


def select_agreeing(
    first: pa.Table,
    second: pa.Table,
    prompts: pa.Table,
    *,
    keep: Literal["first", "second", "both"] = "first",
    answer: AnswerKind = "number",
    compare: Comparison = "value",
    mark: str | None = None,
    pad_to: int = 0,
    seed: int = 0,
    truncated: bool = False,
) -> Selected:
    """Keep prompts to which two models give the same final answer: stage I of weak-to-strong reasoning.

    Source: https://arxiv.org/abs/2407.13647; docs/methods/weak_to_strong_reasoning.md.

    Args:
        first: One response per prompt, e.g. of the weak model.
        second: One response per prompt, e.g. of the strong model with examples in its prompt.
        prompts: The prompts.
        keep: Whose responses to keep: of the ``first``, the ``second``, or ``both`` (two rows per prompt).
        answer: What final answers look like.
        compare: When two answers are the same: by ``value``, or written alike as in the source (``text``). How many
            are by either is in the counts.
        mark: What must stand before a final answer, e.g. ``####``; None to look for one as answer checks do.
        pad_to: When fewer prompts agree, add prompts that disagree, drawn with the seed, up to this number.
        seed: Seed of the padding.
        truncated: Also use responses that were cut at the token limit.
    """
    import polars as pl

    candidates = make_candidates(prompts, [first, second], filters=Filters(truncated=not truncated))
    frame = candidates.frame
    for form in FORMS:
        answers = pl.Series(form, pl.from_arrow(final_answers(candidates.responses, answer, mark=mark, compare=form)))
        frame = frame.with_columns(answers.gather(frame["row"]))
    frame = frame.unique(["prompt", "source"], keep="first", maintain_order=True).with_columns(answer=compare)
    sides = [frame.filter(pl.col("source") == i).select("prompt", "answer", "row", "value", "text") for i in (0, 1)]
    both = sides[0].join(sides[1], on="prompt", suffix="_second", maintain_order="left")
    agree = {name: (pl.col(name) == pl.col(f"{name}_second")) & (pl.col(name) != "") for name in FORMS}
    same = agree[compare]
    kept = both.filter(same)
    if kept.height < pad_to:
        rest = both.filter(~same)
        ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"])).gather(rest["prompt"])
        padding = rest.with_columns(draw=random_draws(ids, seed)).sort("draw").drop("draw")
        kept = pl.concat([kept, padding.head(pad_to - kept.height)])
    columns = {"first": ["row"], "second": ["row_second"], "both": ["row", "row_second"]}[keep]
    rows = pl.concat([kept.select("prompt", row=column) for column in columns]).sort("prompt", maintain_order=True)
    lost = prompts_without(rows, candidates)
    empty = pl.col("prompt").is_in(
        both.filter((pl.col("answer") == "") | (pl.col("answer_second") == ""))["prompt"].implode()
    )
    reason = (
        pl.when(~pl.col("prompt").is_in(sides[0]["prompt"].implode()))
        .then(pl.lit("no first response"))
        .when(~pl.col("prompt").is_in(sides[1]["prompt"].implode()))
        .then(pl.lit("no second response"))
        .when(empty)
        .then(pl.lit("no answer found"))
        .otherwise(pl.lit("answers differ"))
    )
    selected = _selected(candidates, rows, lost.with_columns(reason=reason))
    agreeing = {words: both.filter(agree[form]).height for form, words in FORMS.items()}
    return replace(selected, counts=replace(selected.counts, noticed=agreeing))


def select_all(responses: pa.Table, prompts: pa.Table) -> Selected:
    """Keep every usable response: what the other ways of selecting are held against.

    Args:
        responses: The responses.
        prompts: The prompts.
    """
    import polars as pl

    candidates = make_candidates(prompts, [responses])
    rows = candidates.frame.select("prompt", "row")
    return _selected(candidates, rows, prompts_without(rows, candidates).with_columns(reason=pl.lit("no response")))


def select_mixed(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    wrong_share: float,
    right_at: float = 1.0,
    scorer: str | None = None,
    seed: int = 0,
) -> Selected:
    """Keep one response of every prompt that has right and wrong ones, so that exactly a share of all is wrong.

    A set with a larger share has the same prompts, and wrong responses wherever one with a smaller share has them: of
    two sets only the responses that were exchanged differ. Source: https://arxiv.org/abs/2410.20533;
    docs/methods/guiding_through_complexity.md.

    Args:
        responses: Several responses per prompt.
        scores: Their scores (:class:`w2s_align.records.Score`).
        prompts: The prompts.
        wrong_share: Share of the prompts whose response is a wrong one; of their number the nearest whole one.
        right_at: A response is right from this score on.
        scorer: Which scorer's scores to use, when there are several.
        seed: Seed of every draw.

    Raises:
        UserError: A table lacks a column, or the scores are of several scorers.
    """
    import polars as pl

    candidates = make_candidates(prompts, [responses], scores, scorer=scorer)
    frame = in_random_order(candidates.frame, candidates, seed, key=("model", "sample"))
    frame = frame.with_columns(right=pl.col("score") >= right_at)
    sides = {right: frame.filter(pl.col("right") == right).unique("prompt", keep="first") for right in (True, False)}
    both = sides[True].select("prompt", right="row").join(sides[False].select("prompt", wrong="row"), on="prompt")
    ids = pl.Series("id", pl.from_arrow(candidates.prompts["id"])).gather(both["prompt"])
    both = both.with_columns(place=random_draws(ids, seed).rank("ordinal") - 1)
    is_wrong = pl.col("place") < int(wrong_share * both.height + 0.5)
    rows = both.select("prompt", row=pl.when(is_wrong).then("wrong").otherwise("right")).sort("prompt")
    reason = pl.lit("no response")
    for right, lacking in ((True, "all right"), (False, "all wrong")):
        has = pl.col("prompt").is_in(sides[right]["prompt"].implode())
        reason = pl.when(has).then(pl.lit(lacking)).otherwise(reason)
    return _selected(candidates, rows, prompts_without(rows, candidates).with_columns(reason=reason))


def select_correct(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, right_at: float = 1.0, scorer: str | None = None
) -> Selected:
    """Keep the responses whose score is at least ``right_at``: rejection sampling with an answer check.

    Args:
        responses: The responses.
        scores: Their scores (:class:`w2s_align.records.Score`).
        prompts: The prompts.
        right_at: A response is right from this score on.
        scorer: Which scorer's scores to use, when there are several.

    Raises:
        UserError: A table lacks a column, or the scores are of several scorers.
    """
    return _by_score(responses, scores, prompts, scorer, right_at, want_right=True)


def select_incorrect(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, right_at: float = 1.0, scorer: str | None = None
) -> Selected:
    """Keep the responses whose score is below ``right_at``; unscored ones are dropped, not taken for wrong.

    Args:
        responses: The responses.
        scores: Their scores (:class:`w2s_align.records.Score`).
        prompts: The prompts.
        right_at: A response is right from this score on.
        scorer: Which scorer's scores to use, when there are several.

    Raises:
        UserError: A table lacks a column, or the scores are of several scorers.
    """
    return _by_score(responses, scores, prompts, scorer, right_at, want_right=False)


def select_best(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, scorer: str | None = None, seed: int = 0
) -> Selected:
    """Keep the response of each prompt with the highest score, drawn among equals: best-of-n by any scorer.

    Args:
        responses: The responses.
        scores: Their scores (:class:`w2s_align.records.Score`), e.g. the probabilities of a label model.
        prompts: The prompts.
        scorer: Which scorer's scores to use, when there are several.
        seed: Seed of the draw.

    Raises:
        UserError: A table lacks a column, or the scores are of several scorers.
    """
    import polars as pl

    candidates = make_candidates(prompts, [responses], scores, scorer=scorer)
    rows = extreme(candidates, candidates.frame.select("prompt", "row", "score"), "max", seed).select("prompt", "row")
    return _selected(candidates, rows, prompts_without(rows, candidates).with_columns(reason=pl.lit("no response")))


def select_confident(
    responses: pa.Table,
    prompts: pa.Table,
    *,
    threshold: float = 0.6,
    answer: AnswerKind = "number",
    per_prompt: int = 1,
    seed: int = 0,
) -> Selected:
    """Keep samples with the majority answer of their prompt where its share is at least ``threshold``.

    Args:
        responses: Several samples per prompt of one model.
        prompts: The prompts.
        threshold: Least share of the majority answer among all samples.
        answer: What final answers look like.
        per_prompt: At most this many samples of one prompt, drawn with the seed.
        seed: Seed of the draw.
    """
    import polars as pl

    candidates = make_candidates(prompts, [responses])
    answers = pl.Series("answer", pl.from_arrow(final_answers(candidates.responses, answer)))
    votes = vote_shares(candidates, answers).sort("prompt", "share", "first", descending=[False, True, False])
    sure = votes.unique("prompt", keep="first", maintain_order=True)
    good = sure.filter((pl.col("share") >= threshold - 1e-9) & (pl.col("answer") != ""))
    frame = candidates.frame.with_columns(answer=answers.gather(candidates.frame["row"]))
    frame = in_random_order(frame, candidates, seed, key=("model", "sample"))
    rows = frame.join(good.select("prompt", "answer"), on=["prompt", "answer"], how="semi", maintain_order="left")
    rows = rows.group_by("prompt", maintain_order=True).head(per_prompt).select("prompt", "row")
    reason = (
        pl.when(~pl.col("prompt").is_in(sure["prompt"].implode()))
        .then(pl.lit("no response"))
        .when(pl.col("prompt").is_in(sure.filter(pl.col("answer") == "")["prompt"].implode()))
        .then(pl.lit("majority has no answer"))
        .when(pl.col("prompt").is_in(good["prompt"].implode()))
        .then(pl.lit("no usable majority response"))
        .otherwise(pl.lit("low confidence"))
    )
    return _selected(candidates, rows, prompts_without(rows, candidates).with_columns(reason=reason))


def _by_score(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, scorer: str | None, right_at: float, *, want_right: bool
) -> Selected:
    import polars as pl

    candidates = make_candidates(prompts, [responses], scores, scorer=scorer)
    right = pl.col("score") >= right_at
    rows = candidates.frame.filter(right if want_right else ~right).select("prompt", "row")
    any_response = pl.col("prompt").is_in(candidates.frame["prompt"].unique().implode())
    reason = (
        pl.when(any_response).then(pl.lit("all wrong" if want_right else "all right")).otherwise(pl.lit("no response"))
    )
    return _selected(candidates, rows, prompts_without(rows, candidates).with_columns(reason=reason))


def _selected(candidates: Candidates, rows: pl.DataFrame, lost: pl.DataFrame) -> Selected:
    table = candidates.responses.take(rows["row"].to_arrow())
    dropped = dropped_rows(candidates, lost, None)
    counts = Counts(
        given={
            "prompt": candidates.prompts.num_rows + candidates.refused.height,
            "response": candidates.responses.num_rows,
        },
        kept={"prompt": rows["prompt"].n_unique(), "response": rows.height},
        dropped=count_dropped(dropped),
    )
    return Selected(table.cast(Response.SCHEMA), dropped, counts)
