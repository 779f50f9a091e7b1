"""Rows from anywhere: files, folders of them, datasets of the hub. The one place that opens other tools' data.

:func:`file_rows` yields one row after another, for prompts and benchmarks; :func:`read_batches` some thousand rows at
a time with their numbers, for preference data of any size. A line that is not a row comes as :class:`Broken`: it is
one counted row, not the end of the file.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError

if TYPE_CHECKING:
    import polars as pl

ROW_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""File types that are read."""
BATCH_ROWS = 20_000
"""Rows of a batch: columns are worth their overhead, and a batch of long chats stays far below a gigabyte."""
EXCERPT_CHARS = 300
"""Characters of a broken line that are kept, to show what is wrong with it."""
SHOWN_BROKEN = 5
"""Broken rows that a warning names: enough to find the fault, and a warning stays a few lines."""
_LONG_NUMBER = re.compile(rb"\d{309}")
"""More digits than the largest 64-bit float has: no column of numbers can hold it."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Broken:
    """A line or an entry that is not a row: why, and how it begins."""

    reason: str
    text: str


def broken_in_words(rows: int, broken: Sequence[tuple[str, str]], kept: str = "") -> str:
    """Return a warning that names how many rows cannot be read, why, and where the first of them are.

    Args:
        rows: How many rows there are.
        broken: Place and reason of each that cannot be read.
        kept: What to say of the others.
    """
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(why for _, why in broken).most_common())
    places = ", ".join(place for place, _ in broken[:SHOWN_BROKEN])
    more = ", ..." if len(broken) > SHOWN_BROKEN else ""
    return f"{len(broken):,} of {rows:,} rows cannot be read ({reasons}), the first at {places}{more}.{kept}"


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
    def first(self) -> Mapping[str, Any]:
        """The first row."""
        return self.rows[0] if isinstance(self.rows, list) else self.rows.row(0, named=True)

    @property
    def columns(self) -> set[str]:
        """The columns of the rows."""
        return {name for row in self.rows for name in row} if isinstance(self.rows, list) else set(self.rows.columns)


def file_rows(path: Path) -> Iterator[dict[str, Any] | Broken]:
    """Yield the rows of a file of any known type; see :func:`numbered_rows`.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    return (row for _, row in numbered_rows(path))


def numbered_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """Yield the rows of a file of any known type, each with its place: ``data.csv line 7``.

    A cell of a CSV or TSV file is a text, exactly as it stands there: ``007`` and ``12:30`` are no numbers and no
    times.

    Args:
        path: A .jsonl, .json, .csv, .tsv or .parquet file.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist.", fix="Check the path.")
    if path.suffix not in ROW_FILES:
        raise _unknown_type(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as parquet:
                rows = chain.from_iterable(batch.to_pylist() for batch in parquet.iter_batches())
                yield from ((f"{path.name} row {number}", row) for number, row in enumerate(rows, start=1))
        elif path.suffix in (".csv", ".tsv"):
            yield from ((f"{path.name} line {number}", row) for number, row in _cells(path))
        else:
            unit, contents = _json_contents(path, half_pairs=True)
            yield from ((f"{path.name} {unit} {number}", _row(content)) for number, content in contents)
    except (ValueError, OSError, RecursionError, csv.Error) as error:  # ArrowInvalid and JSONDecodeError: ValueErrors
        raise UserError(f"{path} cannot be read: {error}.") from None


def _cells(path: Path) -> Iterator[tuple[int, dict[str, Any] | Broken]]:
    """Yield the rows of a CSV or TSV file, with the texts of their cells, each with the number of its first line."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses a text of more than 131,072 characters
    with path.open("r", encoding=encoding_of(path), newline="") as file:
        lines = csv.reader(file, delimiter=delimiter)
        header = next(lines, [])
        double = [name for name, count in Counter(header).items() if count > 1]
        if double:
            raise UserError(f"{path} has several columns {double[0]!r}.", fix="Give every column a name of its own.")
        first = lines.line_num + 1
        for row in lines:
            number, first = first, lines.line_num + 1
            if len(row) == len(header):
                yield number, dict(zip(header, row, strict=True))
            elif row:
                reason = f"{len(row)} cells where there are {len(header)} columns"
                yield number, Broken(reason, delimiter.join(row)[:EXCERPT_CHARS])


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: UTF-8, or UTF-16 where its byte-order mark says so.

    Raises:
        UserError: It is neither; the error names what it probably is.
    """
    with path.open("rb") as file:
        if file.read(2) in _UTF16:
            return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                decoder.decode(line)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} is not UTF-8: line {number} holds the byte 0x{line[error.start]:02x}.",
                    why=f"Its encoding is probably {_probable(line)}.",
                    fix=f"Convert it first, e.g.: iconv -f {_probable(line).split()[0]} -t UTF-8 {path.name}",
                ) from None
    return "utf-8-sig"


def _probable(line: bytes) -> str:
    """Name the encoding that a line which is not UTF-8 probably has: single bytes beyond ASCII are accented letters
    of a language in Latin script, runs of them a text in another one."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", line)]
    if sum(run == 1 for run in runs) * 2 >= len(runs):
        return "ISO-8859-1 (Latin-1) or Windows-1252"
    return "GB18030, Shift_JIS, EUC-KR or Windows-1251"


def read_batches(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
    data_dir: str | None = None,
    rows: int = BATCH_ROWS,
) -> Iterator[Batch]:
    """Read rows from a file, a folder, the hub or Python.

    Args:
        source: A file (.jsonl, .json, .csv, .tsv, .parquet), a folder of such files, the id of a dataset on the hub,
            or rows.
        split: Split of a dataset on the hub.
        config_name: Configuration of a dataset on the hub.
        revision: Commit, tag or branch of a dataset on the hub.
        data_dir: Folder of a dataset on the hub.
        rows: Rows of a batch.

    Raises:
        UserError: The source is missing or cannot be read.
    """
    if not isinstance(source, str | Path):
        yield from _row_batches("row", enumerate(source, start=1), rows)
        return
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file() or path.suffix in ROW_FILES:
        for file in data_files(path):
            yield from _file_batches(file, rows)
        return
    dataset = hub_dataset(str(source), config_name, split, revision=revision, data_dir=data_dir)
    yield from _column_batches(f"{source} row", dataset.with_format("arrow").iter(rows))


def data_files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder in the order of their names.

    Raises:
        UserError: There is none, or the folder holds several types.
    """
    if path.is_file() and path.suffix and path.suffix not in ROW_FILES:
        raise _unknown_type(path)
    inside = (file for file in path.rglob("*") if file.suffix in ROW_FILES and file.is_file())
    found = [path] if path.is_file() else sorted(inside)
    if not found:
        raise UserError(f"No data in {path}.", fix=f"Give a file or a folder with {', '.join(ROW_FILES)}.")
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
    data_dir: str | None = None,
    fix: str = "Check the id, the config and the split; an offline machine needs a local file.",
) -> Any:
    """Return a split of a dataset on the hub.

    Args:
        name: Its id.
        config: Its configuration.
        split: The split.
        revision: Commit, tag or branch.
        data_files: Files of the splits, where the dataset does not say it itself.
        data_dir: Folder of the dataset that is read alone.
        fix: What to tell the user when it cannot be loaded.

    Raises:
        UserError: It cannot be loaded.
    """
    import datasets

    files: dict[str, Any] = {"data_files": dict(data_files)} if data_files else {}
    files |= {"data_dir": data_dir} if data_dir else {}
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, **files)
    except Exception as error:  # the library raises a dozen classes, all of them with a usable sentence
        raise UserError(
            f"The dataset {name} (config {config}, split {split}) cannot be loaded: {error}",
            fix=f"{fix} A private or gated dataset needs `hf auth login`.",
        ) from None


def _unknown_type(path: Path) -> UserError:
    return UserError(f"{path} has an unknown file type.", fix=f"Use one of {', '.join(ROW_FILES)}.")


def _json_contents(path: Path, *, half_pairs: bool) -> tuple[str, Iterable[tuple[int, Any]]]:
    """Return the unit and the numbered contents of a JSON file: the lines of JSON Lines, which may also be called
    .json, or the entries of one list."""
    if path.suffix == ".jsonl" or _holds_lines(path):
        return "line", _json_lines(_lines(path), half_pairs=half_pairs)
    content = json.loads(path.read_text(encoding=encoding_of(path)))
    if not isinstance(content, list):
        raise UserError(
            f"{path} is not a list of rows.",
            why=f"It is an object with: {', '.join(content)[:EXCERPT_CHARS]}." if isinstance(content, dict) else "",
            fix="Write a JSON list of objects, or JSON Lines.",
        )
    return "row", enumerate(content, start=1)


def _holds_lines(path: Path) -> bool:
    """Say whether a .json file holds JSON Lines: its first line is a whole object, and more lines follow."""
    first, second, *_ = [*islice((line for line in _lines(path) if line.strip()), 2), b"", b""]
    if not second or not first.lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file as UTF-8 without a byte-order mark."""
    with path.open("rb") as file:
        start = file.read(3)
        if start[:2] not in _UTF16:
            file.seek(3 if start == codecs.BOM_UTF8 else 0)
            yield from file
            return
    with path.open("r", encoding="utf-16") as text:
        yield from (line.encode("utf-8", "surrogatepass") for line in text)


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
            row = json.loads(line) if not _LONG_NUMBER.search(line) else json.loads(line, parse_int=_integer)
            if not half_pairs and b"\\ud" in line:
                json.dumps(row, ensure_ascii=False).encode()
            yield number, row
        except (ValueError, RecursionError) as error:
            known = "not Unicode" if isinstance(error, UnicodeError) else "not JSON"
            reason = "a number too large" if isinstance(error, _TooLarge) else known
            yield number, Broken(reason, line[:EXCERPT_CHARS].decode("utf-8", "replace").rstrip("\n"))


class _TooLarge(ValueError):
    """An integer that no column of numbers can hold."""


def _integer(digits: str) -> int:
    if len(digits) > 308:
        raise _TooLarge
    return int(digits)


def _row(content: Any) -> dict[str, Any] | Broken:
    if isinstance(content, dict | Broken):
        return content
    if isinstance(content, Mapping):
        return dict(content)
    return Broken("not a JSON object", str(content)[:EXCERPT_CHARS])


def _file_batches(path: Path, rows: int) -> Iterator[Batch]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as parquet:
                yield from _column_batches(f"{path.name} row", parquet.iter_batches(rows))
        elif path.suffix in (".csv", ".tsv"):
            yield from _row_batches(f"{path.name} line", _cells(path), rows)
        else:
            unit, contents = _json_contents(path, half_pairs=False)
            yield from _row_batches(f"{path.name} {unit}", contents, rows)
    except (ValueError, OSError, RecursionError, csv.Error) as error:  # ArrowInvalid and JSONDecodeError: ValueErrors
        raise UserError(f"{path} cannot be read: {error}.") from None


def _row_batches(place: str, contents: Iterable[tuple[int, Any]], rows: int) -> Iterator[Batch]:
    iterator = iter(contents)
    while part := [(number, _row(content)) for number, content in islice(iterator, rows)]:
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
