"""The scores of several scorers side by side: a row for each response, a column for each scorer.

Reads tables of records.Score one after the other, so that thirty of a million rows each need never be in memory at
once. A scorer without a value for a response (null, not finite, or no row at all) has a null there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.scoring.table import check_scores
from w2s_align.scoring.votes import countable

if TYPE_CHECKING:
    import polars as pl

KEYS = ["prompt_id", "sample", "model"]
"""What tells a response from all others."""


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of the same responses by several scorers.

    Attributes:
        responses: :data:`KEYS` of every response, in the order in which they first occur.
        values: One column of float64 for each scorer, in the order of their names.
        answers: The answers found in the responses, in the form in which they are counted; None where no scorer keeps
            any.
    """

    responses: pl.DataFrame
    values: pl.DataFrame
    answers: pl.Series | None

    @property
    def names(self) -> list[str]:
        """The scorers."""
        return self.values.columns

    @property
    def prompts(self) -> pl.Series:
        """The number of each response's prompt, in the order of their ids: the same however rows are ordered."""
        return self.responses["prompt_id"].rank("dense")

    def values_of(self, scores: pa.Table) -> pl.Series:
        """Return the values of one more scorer for the same responses, e.g. of an answer check."""
        import polars as pl

        frame = _finite(scores).unique(KEYS, keep="first", maintain_order=True)
        return self.responses.join(frame, on=KEYS, how="left", maintain_order="left")["value"].cast(pl.Float64)


def score_matrix(tables: pa.Table | Iterable[pa.Table], *, answers: bool = False) -> ScoreMatrix:
    """Put scores side by side.

    Args:
        tables: Rows of :class:`w2s_align.records.Score`, of any number of scorers each.
        answers: Whether to read answers, too.

    Raises:
        UserError: There are no scores, a column is missing or holds no numbers, or a scorer scored a response twice.
    """
    import polars as pl

    responses = pl.DataFrame(schema={"prompt_id": pl.String, "sample": pl.Int32, "model": pl.String})
    columns: dict[str, pl.Series] = {}
    found: pl.Series | None = None
    for table in [tables] if isinstance(tables, pa.Table) else tables:
        check_scores(table)
        wanted = [*KEYS, "scorer", *(["answer"] if answers and "answer" in table.column_names else [])]
        frame = _finite(table, wanted)
        for scorer, rows in _by_scorer(frame):
            keys = rows.select(KEYS)
            if not keys.equals(responses):
                _refuse_twice(int(keys.is_duplicated().sum()))
                new = keys.join(responses, on=KEYS, how="anti", maintain_order="left")
                responses = pl.concat([responses, new]) if new.height else responses
                columns = {name: column.extend_constant(None, new.height) for name, column in columns.items()}
                found = found.extend_constant(None, new.height) if found is not None else None
                rows = responses.join(rows, on=KEYS, how="left", maintain_order="left")
            values = rows["value"]
            if scorer in columns:  # the same scorer over further responses
                before = columns[scorer]
                _refuse_twice(int((before.is_not_null() & values.is_not_null()).sum()))
                values = before.zip_with(before.is_not_null(), values)
            columns[scorer] = values
            if "answer" in rows.columns and rows["answer"].null_count() < rows.height:
                found = rows["answer"] if found is None else found.zip_with(found.is_not_null(), rows["answer"])
    if not columns:
        raise UserError("There are no scores to combine.")
    ordered = pl.DataFrame({name: columns[name] for name in sorted(columns)})
    return ScoreMatrix(responses, ordered, None if found is None else _counted(found))


def _refuse_twice(count: int) -> None:
    if count:
        raise UserError(
            f"{count} scores are for responses that have another score of the same scorer.",
            fix="Score every response once, or give each response its own sample number.",
        )


def _finite(table: pa.Table, columns: list[str] = KEYS) -> pl.DataFrame:
    """Return some columns of a table of scores with ``value``, which is null where it is no number."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(table.select([*columns, "value"])))
    value = pl.col("value").cast(pl.Float64)
    return frame.with_columns(pl.col("sample").cast(pl.Int32), value=pl.when(value.is_finite()).then(value))


def _by_scorer(frame: pl.DataFrame) -> Iterable[tuple[str, pl.DataFrame]]:
    """Return the rows of each scorer; nearly always there is one."""
    names = frame["scorer"].unique(maintain_order=True).to_list()
    if len(names) == 1:
        return [(names[0], frame.drop("scorer"))]
    return [(key[0], rows) for key, rows in frame.partition_by("scorer", as_dict=True, include_key=False).items()]


def _counted(answers: pl.Series) -> pl.Series:
    """Return answers in the form in which they are counted; few different ones, however many rows there are."""
    import polars as pl

    different = answers.drop_nulls().unique().to_list()
    counted = [countable(answer) or None for answer in different]
    return answers.replace_strict(different, counted, default=None, return_dtype=pl.String)
