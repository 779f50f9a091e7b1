"""Candidates: what the pair rules see of the responses.

Joins responses (and scores) to prompts and reduces every response to one light row: whose it is, how long, its score,
and a digest of its normalized text. Rules work on these rows alone; the texts stay in their Arrow columns and are
only touched again, by index, when the final table is made. That is what keeps a million prompts small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.quality import answer_texts, flag_texts
from w2s_align.pairing.settings import Filters
from w2s_align.records import ANSWERED, Response
from w2s_align.scoring.table import check_columns, check_scores

if TYPE_CHECKING:
    import polars as pl

RESPONSE_COLUMNS = ("prompt_id", "sample", "model", "text", "finish_reason", "completion_tokens")
"""Columns of a table of responses that are read; the others may be missing."""
TURN_SEPARATOR = "\n\n"
"""What stands between the turns of the assistant where those of one response are compared as one text."""
CHUNK_ROWS = 200_000
"""Texts are normalized this many at a time: the working copies of a chunk are all the extra memory that it takes."""


@dataclass(frozen=True)
class Candidates:
    """Responses to choose pairs from.

    Attributes:
        frame: One row per usable response: ``row`` (index into ``responses``), ``prompt`` (index into ``prompts``),
            ``source`` (index of the table it came from), ``model``, ``sample``, ``chars``, ``tokens`` (null when
            unknown), ``digest`` (of the normalized text), ``score`` (null without scores).
        faults: Unusable responses: the same columns and ``reason``.
        prompts: The usable prompts, each id once.
        responses: All responses, in the order of ``row``. A column ``turns`` holds the messages of those of several
            turns, whose ``text`` is what the assistant says in them (:func:`own_text`); null for the others.
        refused: Prompts that were left out: ``prompt_id`` and ``reason`` (``repeated prompt``, or ``last turn is not
            the user's``).
    """

    frame: pl.DataFrame
    faults: pl.DataFrame
    prompts: pa.Table
    responses: pa.Table
    refused: pl.DataFrame


def make_candidates(
    prompts: pa.Table,
    sources: Sequence[pa.Table],
    scores: pa.Table | None = None,
    *,
    scorer: str | None = None,
    filters: Filters | None = None,
) -> Candidates:
    """Join responses and scores to prompts and set the unusable responses aside, each with its reason.

    The reasons: ``prompt not found``, ``failed`` (no text), ``empty`` (nothing follows the thoughts, or one
    does not end), ``truncated`` (cut at the
    token limit), the names of the text filters, ``duplicate`` (same prompt, model and sample as another response),
    ``unscored`` (no score, a null or not finite).

    Args:
        prompts: Rows of :class:`w2s_align.records.Prompt`.
        sources: Tables of :class:`w2s_align.records.Response`; a rule may treat them differently.
        scores: Rows of :class:`w2s_align.records.Score`, for rules that use scores.
        scorer: Which scorer's rows of ``scores`` to use; needed when there are several.
        filters: Which responses to set aside; the defaults when None.

    Raises:
        UserError: A table lacks a column, or the scores are not of one scorer.
    """
    import numpy as np
    import polars as pl

    filters = filters or Filters()
    check_columns(prompts, "prompts", ("id", "messages"))
    for source in sources:
        check_columns(source, "responses", RESPONSE_COLUMNS)
    prompts, refused = _usable_prompts(prompts)
    order = pl.DataFrame({"prompt_id": pl.from_arrow(prompts["id"])}).with_row_index("prompt")
    shared = [
        name for name in (*Response.SCHEMA.names, "turns") if all(name in source.column_names for source in sources)
    ]
    responses = pa.concat_tables([source.select(shared) for source in sources])
    columns = ["prompt_id", "sample", "model", "finish_reason", "completion_tokens"]
    light = pl.DataFrame(pl.from_arrow(responses.select(columns))).with_row_index("row")
    numbers = np.repeat(np.arange(len(sources), dtype=np.uint8), [source.num_rows for source in sources])
    light = light.with_columns(source=pl.Series(numbers), sample=pl.col("sample").cast(pl.Int32))
    light = pl.concat([light, text_features(responses["text"], filters)], how="horizontal")
    light = light.join(order, on="prompt_id", how="left", maintain_order="left")
    light = (
        light.with_columns(score=pl.lit(None, dtype=pl.Float64))
        if scores is None
        else join_scores(light, scores, scorer)
    )
    light = light.with_columns(reason=_reason(filters, scored=scores is not None))
    light = light.rename({"completion_tokens": "tokens"}).drop("finish_reason", "prompt_id", "blank")
    # Rows may come in any order: from here on everything is in the order of prompts, models and samples.
    light = light.sort("prompt", "source", "model", "sample", "digest", nulls_last=True)
    return Candidates(
        light.filter(pl.col("reason").is_null()).drop("reason"),
        light.filter(pl.col("reason").is_not_null()),
        prompts,
        responses,
        refused,
    )


def _usable_prompts(prompts: pa.Table) -> tuple[pa.Table, pl.DataFrame]:
    """Leave out prompts that repeat an earlier one or do not end with a user turn."""
    import polars as pl

    chats = pl.Series("messages", pl.from_arrow(prompts["messages"]))
    last = pl.DataFrame({"messages": chats}).select(pl.col("messages").list.last().struct.field("role")).to_series()
    ids = pl.Series("prompt_id", pl.from_arrow(prompts["id"]), dtype=pl.String)
    frame = pl.DataFrame({"prompt_id": ids, "last": last}).select(
        "prompt_id",
        reason=pl.when(~pl.col("prompt_id").is_first_distinct())
        .then(pl.lit("repeated prompt"))
        .when(~pl.col("last").is_in(ANSWERED).fill_null(False))
        .then(pl.lit("last turn is not the user's")),
    )
    refused = frame.filter(pl.col("reason").is_not_null())
    return (prompts.filter(frame["reason"].is_null().to_arrow()) if refused.height else prompts), refused


def own_text(turns: str) -> pl.Expr:
    """Return what the assistant says in responses of one or several turns, as one text.

    Args:
        turns: Name of a column of messages.
    """
    import polars as pl

    turn = pl.element().struct
    own = pl.element().filter(turn.field("role") == "assistant").struct.field("content")
    return pl.col(turns).list.eval(own).list.join(TURN_SEPARATOR)


def text_features(texts: pa.ChunkedArray, filters: Filters) -> pl.DataFrame:
    """Return what is known of every text: ``chars`` (without thoughts), ``blank``, ``digest`` and ``flag`` (null where
    nothing is wrong).

    Two texts have the same digest when they are the same after normalization: Unicode NFKC, lower case, every run of
    white space as one space. The digest is only ever compared within one call, never stored.
    """
    import polars as pl

    parts = []
    for start in range(0, max(len(texts), 1), CHUNK_ROWS):
        text = pl.Series("text", pl.from_arrow(texts.slice(start, CHUNK_ROWS)), dtype=pl.String)
        answer = answer_texts(text)
        parts.append(
            pl.DataFrame(
                {
                    "chars": answer.str.len_chars(),
                    "blank": answer.str.strip_chars() == "",
                    "digest": normalized(text).hash(0),
                    "flag": flag_texts(text, filters),
                }
            ).with_columns(pl.when(pl.Series(text.is_not_null())).then(pl.col("digest")))
        )
    return pl.concat(parts)


def normalized(text: pl.Series) -> pl.Series:
    """Return texts in the form in which they are compared: NFKC, lower case, runs of white space as one space."""
    import polars as pl

    wide = (text.str.len_bytes() != text.str.len_chars()).fill_null(False)
    if wide.any():  # ASCII is NFKC already, and most text is ASCII
        text = pl.select(pl.when(wide).then(text.str.normalize("NFKC")).otherwise(text)).to_series()
    # Literal replacements first: the regular expression costs ten times as much, and few texts need it after them.
    text = text.str.to_lowercase().str.replace_all("\n", " ", literal=True).str.replace_all("  ", " ", literal=True)
    rough = wide
    for space in ("  ", "\t", "\r", "\x0b", "\x0c"):
        rough = rough | text.str.contains(space, literal=True).fill_null(False)
    if rough.any():
        text = text.scatter(rough.arg_true(), text.filter(rough).str.replace_all(r"\s+", " "))
    return text.str.strip_chars()


def join_scores(light: pl.DataFrame, scores: pa.Table, scorer: str | None, name: str = "score") -> pl.DataFrame:
    """Add the scores of one scorer to rows with ``prompt_id``, ``model`` and ``sample``; null where there is none.

    Args:
        light: The rows.
        scores: Rows of :class:`w2s_align.records.Score`; a value that is not finite counts as none.
        scorer: Which scorer's rows to use; may be None when there is only one.
        name: Name of the new column.

    Raises:
        UserError: The scores are of several scorers, of none of that name, or contradict each other.
    """
    import polars as pl

    check_scores(scores)
    table = pl.DataFrame(pl.from_arrow(scores.select(["prompt_id", "model", "sample", "scorer", "value"])))
    names = table["scorer"].unique().sort().to_list()
    if scorer is None and len(names) > 1:
        raise UserError(
            f"The scores come from several scorers: {', '.join(names)}.",
            why="A rule needs one number per response.",
            fix=f"Say which one to use, e.g. scorer={names[0]!r}.",
        )
    if scorer is not None and scorer not in names:
        raise UserError(f"No scores by the scorer {scorer!r}.", fix=f"Available: {', '.join(names) or 'none'}.")
    if scorer is not None:
        table = table.filter(pl.col("scorer") == scorer)
    keys = ["prompt_id", "model", "sample"]
    table = table.with_columns(pl.col("sample").cast(pl.Int32), pl.col("value").cast(pl.Float64))
    table = table.select(*keys, pl.when(pl.col("value").is_finite()).then("value").alias(name))
    conflicts = table.unique().select(pl.struct(keys).is_duplicated()).to_series()
    if conflicts.any():
        raise UserError(
            f"{int(conflicts.sum())} scores are for responses that have another score of the same scorer.",
            fix="Score every response once, or give each response its own sample number.",
        )
    return light.join(table.unique(), on=keys, how="left", maintain_order="left")


def _reason(filters: Filters, *, scored: bool) -> pl.Expr:
    """Return the expression that names what is wrong with a response; null when nothing is."""
    import polars as pl

    key = ("source", "prompt", "model", "sample")
    first = pl.col("row") == pl.col("row").sort_by("digest", "chars", "row").first().over(key)
    reason = pl.when(pl.col("prompt").is_null()).then(pl.lit("prompt not found"))
    reason = reason.when(pl.col("digest").is_null() | (pl.col("finish_reason") == "error")).then(pl.lit("failed"))
    reason = reason.when(pl.col("blank")).then(pl.lit("empty"))
    if filters.truncated:
        reason = reason.when(pl.col("finish_reason") == "length").then(pl.lit("truncated"))
    if filters.sides == "both":
        reason = reason.when(pl.col("flag").is_not_null()).then(pl.col("flag"))
    reason = reason.when(~first).then(pl.lit("duplicate"))
    if scored:
        reason = reason.when(pl.col("score").is_null()).then(pl.lit("unscored"))
    return reason.otherwise(None)


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
