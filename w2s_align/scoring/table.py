"""Score a table of responses: joins prompts and responses, runs one scorer in batches, counts what could not be
scored.

Reads Arrow tables of the Prompt and Response schemas, returns one of the Score schema. With a ``folder`` every
finished batch is kept there, and a call that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.records import Score
from w2s_align.scoring.scorer import Assessment, BatchScorer, Outcome, Scorer, score_table, unscored
from w2s_align.scoring.scorers import scorer_settings

BATCH_ROWS = 4096
"""Responses per batch: what a kill can cost, and few enough that a batch of any scorer fits into memory."""
Progress = Callable[[int, int, str], None]
"""Takes what is done, all there is, and a note."""


@dataclass(frozen=True)
class Scores:
    """The result of :func:`score`.

    Attributes:
        table: Rows of :class:`w2s_align.records.Score`, in the order of the responses.
        scored: Number of responses with a value.
        unscored: Number of responses without a value, by reason.
        mean: Mean of the values; None when there are none.
    """

    table: pa.Table
    scored: int
    unscored: dict[str, int]
    mean: float | None


def score(
    prompts: pa.Table,
    responses: pa.Table,
    scorer: str | Scorer,
    progress: Progress | None = None,
    folder: Path | None = None,
    batch_rows: int = BATCH_ROWS,
    name: str | None = None,
) -> Scores:
    """Score every response.

    A response that was never made (``finish_reason`` is ``error``) or whose prompt has no gold answer is unscored: its
    value is null and its detail says why. A response without any final answer to a question that has one is wrong: 0.

    Args:
        prompts: Rows of :class:`w2s_align.records.Prompt`.
        responses: Rows of :class:`w2s_align.records.Response`.
        scorer: Name of a scorer (``math``, ``feature:sentences``), or a scorer with its options (a class of
            ``w2s_align.scoring.scorers``).
        progress: Called with the responses done, all responses, and a note.
        folder: Where finished batches are kept; with the same inputs a second call goes on from them.
        batch_rows: Responses per batch.
        name: What ``Score.scorer`` says; by default the scorer's name, with its model or feature.

    Raises:
        UserError: There is no such scorer, a package that it needs is not installed, or a table lacks a column.
    """
    scorer = scorer_settings(scorer)
    if scorer.whole_table:
        batch_rows = max(responses.num_rows, 1)
    check_columns(prompts, "prompts", ("id", "messages", "answer", "task", "meta"))
    check_columns(responses, "responses", ("prompt_id", "sample", "model", "text", "finish_reason"))
    asked = _questions(prompts, responses)
    parts: list[pa.Table] = []
    with scorer.open() as score_batch:
        for start in range(0, responses.num_rows, batch_rows):
            rows = responses.slice(start, batch_rows)
            questions = asked.slice(start, batch_rows)
            label = name or scorer.label
            parts.append(_kept_batch(folder, scorer, prompts, questions, rows, start, label, score_batch))
            if progress:
                progress(start + rows.num_rows, responses.num_rows, scorer.name)
    table = pa.concat_tables([Score.SCHEMA.empty_table(), *parts]).combine_chunks()
    return summarize(table)


def summarize(table: pa.Table) -> Scores:
    """Count the scored and unscored rows of a score table."""
    missing = pc.is_null(table["value"])
    reasons = Counter(table.filter(missing)["outcome"].to_pylist())
    scored = table.num_rows - sum(reasons.values())
    return Scores(table, scored, dict(sorted(reasons.items())), pc.mean(table["value"]).as_py())


def check_columns(table: pa.Table, kind: str, columns: Sequence[str]) -> None:
    """Refuse a table that lacks a column.

    Args:
        table: The table.
        kind: What its rows are, e.g. ``responses``.
        columns: What it must have.

    Raises:
        UserError: A column is missing.
    """
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise UserError(
            f"The {kind} have no column {', '.join(missing)}.",
            why=f"Their columns are: {', '.join(table.column_names)}.",
            fix="Rename the columns, or give a table of the documented schema (w2s_align.records).",
        )


def check_scores(scores: pa.Table) -> None:
    """Refuse a table of scores that lacks a column, or whose values are not numbers.

    Raises:
        UserError: See above.
    """
    check_columns(scores, "scores", ("prompt_id", "sample", "model", "scorer", "value"))
    kind = scores.schema.field("value").type
    if not any(test(kind) for test in (pa.types.is_floating, pa.types.is_integer, pa.types.is_null)):
        raise UserError(
            f"The scores are not numbers but {kind}.", fix="Give the column value as float64, null where unscored."
        )


def _questions(prompts: pa.Table, responses: pa.Table) -> pa.ChunkedArray:
    """Return for each response the row of its prompt; null where there is none."""
    return pa.chunked_array([pc.index_in(responses["prompt_id"].combine_chunks(), prompts["id"].combine_chunks())])


def _kept_batch(
    folder: Path | None,
    scorer: Scorer,
    prompts: pa.Table,
    questions: pa.ChunkedArray,
    rows: pa.Table,
    start: int,
    name: str,
    score_batch: BatchScorer,
) -> pa.Table:
    """Score one batch, or read it back when an earlier call with the same inputs kept it."""
    if folder is None:
        return _score_batch(prompts, questions, rows, name, score_batch)
    digest = _digest(scorer, prompts.take(questions.drop_null()), rows)
    path = folder / f"scores-{start:012d}-{digest}.parquet"
    if path.exists():
        return pq.read_table(path, schema=Score.SCHEMA)
    table = _score_batch(prompts, questions, rows, name, score_batch)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)
    return table


def _digest(scorer: Scorer, prompts: pa.Table, rows: pa.Table) -> str:
    # The columns belong to it, so that no batch is taken over from a version that had fewer.
    digest = hashlib.sha256(f"{Score.SCHEMA.names} {scorer.model_dump_json()}".encode())
    for table, columns in (
        (prompts, ("id", "answer", "task", "meta")),
        (rows, ("prompt_id", "sample", "model", "text")),
    ):
        for column in columns:
            for value in table[column].to_pylist():
                digest.update(f"{value!r}\x1f".encode())
    return digest.hexdigest()[:16]


def _score_batch(
    prompts: pa.Table, questions: pa.ChunkedArray, rows: pa.Table, name: str, score_batch: BatchScorer
) -> pa.Table:
    """Score one batch; rows that no scorer can judge get their reason here, so that scorers never see them."""
    known = pc.is_valid(questions).to_pylist()
    found: list[Assessment] = []
    usable: list[int] = []
    rows_read = zip(known, rows["text"].to_pylist(), rows["finish_reason"].to_pylist(), strict=True)
    for row, (has_prompt, text, finish) in enumerate(rows_read):
        if has_prompt and text is not None and finish != "error":
            usable.append(row)
        found.append(unscored(Outcome.NO_RESPONSE if has_prompt else Outcome.NO_PROMPT))
    if usable:
        scored = score_batch(prompts.take(questions.take(usable)), rows.take(usable))
        for row, one in zip(usable, scored, strict=True):
            finite = one.value is None or math.isfinite(one.value)
            found[row] = one if finite else unscored(f"the scorer gave {one.value}")
    return score_table(rows, name, found)
