"""Rows from anywhere: files, folders of them, datasets of the hub. The one place that opens other tools' data.

:func:`file_rows` yields one row after another, for prompts and benchmarks; :func:`read_batches` some thousand rows at
a time with their numbers, for preference data of any size. A line that is not a row comes as :class:`Broken`: it is
one counted row, not the end of the file.
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

ROW_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""File types of :func:`file_rows`."""
BATCH_FILES = (".jsonl", ".json", ".parquet")
"""File types of :func:`read_batches`: a CSV has no column for a list of messages."""
BATCH_ROWS = 20_000
"""Rows of a batch: columns are worth their overhead, and a batch of long chats stays far below a gigabyte."""
EXCERPT_CHARS = 300
"""Characters of a broken line that are kept, to show what is wrong with it."""


@dataclass(frozen=True)
class Broken:
    """A line or an entry that is not a row: why, and how it begins."""

    reason: str
    text: str


@dataclass(frozen=True)
class Batch:
    """Some rows.

    Attributes:
        place: File (or dataset) and unit of the numbers: ``data.jsonl line``.
        numbers: The number of each row there, beginning with 1.
        rows: The rows as dictionaries, or the columns of a file.
        broken: What is not a row, by its number.
    """

    place: str
    numbers: list[int]
    rows: list[dict[str, Any]] | pl.DataFrame
    broken: dict[int, Broken] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """The columns of the rows."""
        return {name for row in self.rows for name in row} if isinstance(self.rows, list) else set(self.rows.columns)


def file_rows(path: Path) -> Iterator[dict[str, Any] | Broken]:
    """Yield the rows of a file of any known type.

    Args:
        path: A .jsonl, .json, .csv, .tsv or .parquet file.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist.", fix="Check the path.")
    if path.suffix not in ROW_FILES:
        raise _unknown_type(path, ROW_FILES)
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                yield from (_row(content) for _, content in _json_lines(file, half_pairs=True))
        elif path.suffix == ".json":
            yield from map(_row, _json_list(path))
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches():
                    yield from batch.to_pylist()
        else:
            import pyarrow.csv

            tabs = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True)
            yield from pyarrow.csv.read_csv(path, parse_options=tabs).to_pylist()
    except (ValueError, OSError) as error:  # ArrowInvalid, JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path} cannot be read: {error}.") from None


def read_batches(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
) -> Iterator[Batch]:
    """Read rows from a file, a folder, the hub or Python.

    Args:
        source: A file (.jsonl, .json, .parquet), a folder of such files, the id of a dataset on the hub, or rows.
        split: Split of a dataset on the hub.
        config_name: Configuration of a dataset on the hub.
        revision: Commit, tag or branch of a dataset on the hub.

    Raises:
        UserError: The source is missing or cannot be read.
    """
    if not isinstance(source, str | Path):
        yield from _row_batches("row", enumerate(source, start=1))
        return
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file() or path.suffix in BATCH_FILES:
        for file in data_files(path):
            yield from _file_batches(file)
        return
    dataset = hub_dataset(str(source), config_name, split, revision=revision)
    yield from _column_batches(f"{source} row", dataset.with_format("arrow").iter(BATCH_ROWS))


def data_files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder in the order of their names.

    Raises:
        UserError: There is none, or the folder holds several types.
    """
    if path.is_file() and path.suffix and path.suffix not in BATCH_FILES:
        raise _unknown_type(path, BATCH_FILES)
    inside = (file for file in path.rglob("*") if file.suffix in BATCH_FILES and file.is_file())
    found = [path] if path.is_file() else sorted(inside)
    if not found:
        raise UserError(f"No data in {path}.", fix=f"Give a file or a folder with {', '.join(BATCH_FILES)}.")
    if len({file.suffix for file in found}) > 1:
        raise UserError(f"{path} holds files of several types.", fix="Name the file, or a folder with one type.")
    return found


def hub_dataset(
    name: str,
    config: str | None,
    split: str,
    *,
    revision: str | None = None,
    data_files: Mapping[str, str] | None = None,
    fix: str = "Check the id, the config and the split; an offline machine needs a local file.",
) -> Any:
    """Return a split of a dataset on the hub.

    Args:
        name: Its id.
        config: Its configuration.
        split: The split.
        revision: Commit, tag or branch.
        data_files: Files of the splits, where the dataset does not say it itself.
        fix: What to tell the user when it cannot be loaded.

    Raises:
        UserError: It cannot be loaded.
    """
    import datasets

    files = {"data_files": dict(data_files)} if data_files else {}
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, **files)
    except Exception as error:  # the library raises a dozen classes, all of them with a usable sentence
        raise UserError(
            f"The dataset {name} (config {config}, split {split}) cannot be loaded: {error}",
            fix=f"{fix} A private or gated dataset needs `hf auth login`.",
        ) from None


def _unknown_type(path: Path, types: tuple[str, ...]) -> UserError:
    return UserError(f"{path} has an unknown file type.", fix=f"Use one of {', '.join(types)}.")


def _json_list(path: Path) -> list[Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise UserError(f"{path} is not a list of rows.", fix="Write a JSON list of objects, or JSONL.")
    return content


def _json_lines(lines: Iterable[bytes], *, half_pairs: bool) -> Iterator[tuple[int, Any]]:
    """Yield the content of each line with its number; a line that is not JSON comes as :class:`Broken`.

    Args:
        lines: The lines.
        half_pairs: Whether to let half of a pair of surrogates pass: it is JSON, and no column of text can hold it.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not half_pairs and b"\\ud" in line:
                json.dumps(row, ensure_ascii=False).encode()
            yield number, row
        except (ValueError, RecursionError) as error:
            reason = "not Unicode" if isinstance(error, UnicodeError) else "not JSON"
            yield number, Broken(reason, line[:EXCERPT_CHARS].decode("utf-8", "replace").rstrip("\n"))


def _row(content: Any) -> dict[str, Any] | Broken:
    if isinstance(content, dict | Broken):
        return content
    if isinstance(content, Mapping):
        return dict(content)
    return Broken("not a JSON object", str(content)[:EXCERPT_CHARS])


def _file_batches(path: Path) -> Iterator[Batch]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as parquet:
                yield from _column_batches(f"{path.name} row", parquet.iter_batches(BATCH_ROWS))
        elif path.suffix == ".jsonl":
            with path.open("rb") as file:
                yield from _row_batches(f"{path.name} line", _json_lines(file, half_pairs=False))
        else:
            yield from _row_batches(f"{path.name} row", enumerate(_json_list(path), start=1))
    except (ValueError, OSError) as error:  # ArrowInvalid, JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path} cannot be read: {error}.") from None


def _row_batches(place: str, contents: Iterable[tuple[int, Any]]) -> Iterator[Batch]:
    iterator = iter(contents)
    while part := [(number, _row(content)) for number, content in islice(iterator, BATCH_ROWS)]:
        good = [(number, row) for number, row in part if not isinstance(row, Broken)]
        broken = {number: row for number, row in part if isinstance(row, Broken)}
        yield Batch(place, [number for number, _ in good], [row for _, row in good], broken)


def _column_batches(place: str, parts: Iterable[Any]) -> Iterator[Batch]:
    """Yield Arrow tables or batches as columns, numbered from 1."""
    import polars as pl
    import pyarrow as pa

    first = 1
    for part in parts:
        table = part if isinstance(part, pa.Table) else pa.Table.from_batches([part])
        frame = pl.DataFrame(pl.from_arrow(table))
        yield Batch(place, list(range(first, first + frame.height)), frame)
        first += frame.height
