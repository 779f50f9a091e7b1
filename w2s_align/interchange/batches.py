"""Preference data from anywhere, some thousand rows at a time: files, a folder of them, a data set of the hub.

Reads JSONL, JSON and Parquet; returns batches with the number of each row. A line that is no row is an entry of the
batch's ``broken``, with its number and its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError

if TYPE_CHECKING:
    import polars as pl

FILE_TYPES = (".jsonl", ".json", ".parquet")
BATCH_ROWS = 20_000


@dataclass(frozen=True)
class Batch:
    """Some rows.

    Attributes:
        place: File (or data set) and unit of the numbers: ``data.jsonl line``.
        numbers: The number of each row there, beginning with 1.
        rows: The rows as dictionaries, or the columns of a file.
        broken: Lines that are no row: number, reason, beginning of the text.
    """

    place: str
    numbers: list[int]
    rows: list[dict[str, Any]] | pl.DataFrame
    broken: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def columns(self) -> set[str]:
        """The columns of the rows."""
        return {name for row in self.rows for name in row} if isinstance(self.rows, list) else set(self.rows.columns)


def read_batches(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
) -> Iterator[Batch]:
    """Read rows from a file, a folder, the hub or Python.

    Args:
        source: A file (.jsonl, .json, .parquet), a folder of such files, the id of a data set on the hub, or rows.
        split: Split of a data set on the hub.
        config_name: Configuration of a data set on the hub.
        revision: Commit, tag or branch of a data set on the hub.

    Raises:
        UserError: The source is missing or cannot be read.
    """
    if not isinstance(source, str | Path):
        yield from _row_batches("row", ((n, _plain(row)) for n, row in enumerate(source, start=1)))
        return
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file() or path.suffix in FILE_TYPES:
        for file in data_files(path):
            yield from _file_batches(file)
    else:
        yield from _hub_batches(str(source), split, config_name, revision)


def data_files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder in the order of their names.

    Raises:
        UserError: There is none, or the folder holds several types.
    """
    if path.is_file():
        found = [path]
    else:
        found = sorted(file for file in path.rglob("*") if file.suffix in FILE_TYPES and file.is_file())
    if path.suffix and path.is_file() and path.suffix not in FILE_TYPES:
        raise UserError(f"{path} has no known file type.", fix=f"Use one of {', '.join(FILE_TYPES)}.")
    if not found:
        raise UserError(f"There is no data in {path}.", fix=f"Give a file or a folder with {', '.join(FILE_TYPES)}.")
    if len({file.suffix for file in found}) > 1:
        raise UserError(f"{path} holds files of several types.", fix="Name the file, or a folder with one type.")
    return found


def _file_batches(path: Path) -> Iterator[Batch]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet_batches(path)
        elif path.suffix == ".jsonl":
            with path.open("rb") as file:
                yield from _row_batches(f"{path.name} line", _json_lines(file))
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, list):
                raise UserError(f"{path} is no list of rows.", fix="Write a JSON list of objects, or JSONL.")
            yield from _row_batches(f"{path.name} row", enumerate(content, start=1))
    except (ValueError, OSError) as error:  # ArrowInvalid, JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path} cannot be read: {error}.") from None


def _json_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Yield the content of each line with its number; a line that is not JSON comes as a ``_NoRow``."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if b"\\ud" in line:  # half of a pair of surrogates passes JSON, and no column of text can hold it
                json.dumps(row, ensure_ascii=False).encode()
            yield number, row
        except (ValueError, RecursionError) as error:
            reason = "not Unicode" if isinstance(error, UnicodeError) else "not JSON"
            yield number, _NoRow(reason, line[:300].decode("utf-8", "replace").rstrip("\n"))


@dataclass(frozen=True)
class _NoRow:
    reason: str
    text: str


def _row_batches(place: str, rows: Iterable[tuple[int, Any]]) -> Iterator[Batch]:
    iterator = iter(rows)
    while part := list(islice(iterator, BATCH_ROWS)):
        good = [(number, row) for number, row in part if isinstance(row, dict)]
        bad = [
            (number, row.reason, row.text) if isinstance(row, _NoRow) else (number, "no JSON object", str(row)[:300])
            for number, row in part
            if not isinstance(row, dict)
        ]
        yield Batch(place, [number for number, _ in good], [row for _, row in good], bad)


def _plain(row: Any) -> Any:
    return dict(row) if isinstance(row, Mapping) else row


def _parquet_batches(path: Path) -> Iterator[Batch]:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    with pq.ParquetFile(path) as file:
        for part in file.iter_batches(BATCH_ROWS):
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([part])))
            yield Batch(f"{path.name} row", list(range(first, first + part.num_rows)), frame)
            first += part.num_rows


def _hub_batches(source: str, split: str, config_name: str | None, revision: str | None) -> Iterator[Batch]:
    import datasets
    import polars as pl

    try:
        dataset = datasets.load_dataset(source, config_name, split=split, revision=revision)
    except Exception as error:  # the library raises a dozen classes, all of them with a usable sentence
        raise UserError(
            f"The dataset {source} (config {config_name}, split {split}) cannot be loaded: {error}",
            fix="Check the id, the config and the split; a private dataset needs `hf auth login`, an offline machine "
            "a local file.",
        ) from None
    first = 1
    for part in dataset.with_format("arrow").iter(BATCH_ROWS):
        frame = pl.DataFrame(pl.from_arrow(part))
        yield Batch(f"{source} row", list(range(first, first + part.num_rows)), frame)
        first += part.num_rows
