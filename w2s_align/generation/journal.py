"""The journal of a generation: finished responses on disk at once, and the finished job as Parquet in a fixed order.

``journal.jsonl`` begins with a line that says which job it belongs to; then each line is one response or a note. Lines
are only ever appended. They are handed to the operating system at once (a killed process loses nothing) and forced to
disk each second (a power cut loses a second). A torn line is not valid JSON: it is skipped, and its response is
generated again, as is one that has an ``error`` or that no Parquet file could hold (row_check.py).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.files import storage_error, storage_errors
from w2s_align.generation.row_check import ROW_COLUMNS, row_fault

SYNC_SECONDS = 1.0
"""Longest time between two calls of fsync: what a power cut may cost, while fsync after every line would be slow."""
ROWS_PER_FILE = 100_000
"""Rows of one Parquet file: some hundred MB of long responses, which the hub shows and pandas opens."""
ROWS_PER_BATCH = 2_000
"""Rows in memory while Parquet is written."""
MISSING, ELSEWHERE = -1, -2
"""In place of a row's offset in the file: nobody has it; it is not requested here."""
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
"""One for all lines: ``json.dumps`` with options makes a new one for each call."""
KEPT = "Finished responses are kept."
"""What every error of a full disk says."""
_log = logging.getLogger(__name__)


class Journal:
    """The append-only file of one job, held by one process at a time.

    Args:
        path: The file; made when it is not there.
        job: Identity of the job, JSON-serializable. The journal of another job is refused.
        rows: Number of responses of the job.
        only: The rows that are requested here; all others count as finished elsewhere. By default all are requested.
        required: Columns that a response in the file must have to count as finished.

    Attributes:
        job: Identity of the job.
        rows: Number of responses of the job.
        requested: Number of responses that are requested here.
        notes: The latest note under each key, those of earlier attempts included.
        required: See above.
        warnings: Says how many responses in the file are unusable, if any are; they count as not generated.

    Raises:
        UserError: The folder cannot be written, another process holds the journal, or it belongs to another job.
    """

    def __init__(
        self,
        path: Path,
        job: dict[str, Any],
        rows: int,
        only: Sequence[int] | None = None,
        required: Collection[str] = (),
    ) -> None:
        self.path, self.job, self.rows, self.required = path, job, rows, required
        self.warnings: list[str] = []
        self.requested = rows if only is None else len(only)
        self.notes: dict[str, dict[str, Any]] = {}
        self._offsets = array("q", [MISSING if only is None else ELSEWHERE]) * rows
        for row in only or ():
            self._offsets[row] = MISSING
        self._failed: dict[int, int] = {}
        self._done = 0
        self._synced = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("ab+")
        except OSError as error:
            raise storage_error(error, path.parent) from None
        try:
            self._lock()
            self._scan()
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> int:
        """Number of finished responses; failed ones are not finished."""
        return self._done

    @property
    def failed(self) -> int:
        """Number of responses that failed, in this attempt or an earlier one, and were not generated since."""
        return len(self._failed)

    def has(self, row: int) -> bool:
        """Return whether a response is finished; a failed one is not, so the next attempt tries it again."""
        return self._offsets[row] != MISSING

    def append(self, rows: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Write responses as ``(row number, columns)``. One whose column ``error`` is set has failed.

        Raises:
            UserError: The disk is full. What was written before is kept.
        """
        lines = bytearray()
        start = self._end
        for row, columns in rows:
            self._take(row, columns, start + len(lines))
            lines += _line({"row": row, **columns})
        self._write(bytes(lines))

    def note(self, key: str, **values: Any) -> None:
        """Write something about the job, e.g. which engine is used. The latest note of a key counts."""
        self.notes[key] = values
        self._write(_line({"note": key, **values}))

    def sync(self, *, now: bool = False) -> None:
        """Force what was written to disk, if the last time is a second or more ago."""
        if now or time.monotonic() - self._synced >= SYNC_SECONDS:
            with storage_errors(self.path.parent, KEPT):
                os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield finished and failed responses in the order of their row numbers, reading one at a time."""
        with self.path.open("rb") as file:
            for row, offset in enumerate(self._offsets):
                offset = self._failed.get(row, MISSING) if offset == MISSING else offset
                if offset >= 0:
                    file.seek(offset)
                    yield json.loads(file.readline())

    def close(self) -> None:
        """Close the file, which releases its lock."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is generating into {self.path.parent}.",
                fix="Wait until it ends, or give another output folder.",
            ) from None

    def _scan(self) -> None:
        self._file.seek(0)
        self._end = 0
        header: dict[str, Any] | None = None
        torn = False
        faults: list[str] = []
        for raw in self._file:
            torn = not raw.endswith(b"\n")
            entry = _parsed(raw)
            if entry is not None and header is None:
                header = entry
                if header != {"job": self.job}:
                    raise _other_job(self.path, header.get("job"), self.job)
            elif entry is not None and isinstance(entry.get("note"), str):
                self.notes[entry.pop("note")] = entry
            elif entry is not None:
                fault = _fault(entry, self.rows, self.required)
                if fault is not None:
                    faults.append(fault)
                elif not self.has(entry["row"]):
                    self._take(entry["row"], entry, self._end)
            self._end += len(raw)
        if faults:
            self.warnings = [
                f"{len(faults):,} unusable lines in {self.path.name} count as not generated: {faults[0]}."
            ]
            _log.warning("%s", self.warnings[0])
        if torn:  # end the torn line, or the next entry would be a part of it
            self._write(b"\n")
        if header is None:
            self._write(_line({"job": self.job}))

    def _take(self, row: int, columns: dict[str, Any], offset: int) -> None:
        if columns.get("error") is not None:
            self._failed[row] = offset
            return
        self._failed.pop(row, None)
        self._offsets[row] = offset
        self._done += 1

    def _write(self, data: bytes) -> None:
        with storage_errors(self.path.parent, KEPT):
            self._file.write(data)
            self._file.flush()
        self._end += len(data)


def finished_rows(path: Path, rows: int) -> Iterator[int]:
    """Yield the rows that a journal has, without locking it: a process on another machine may be writing it.

    Args:
        path: The journal.
        rows: Number of responses of its job.
    """
    with path.open("rb") as file:
        for raw in file:
            entry = _parsed(raw)
            if entry is not None and entry.get("error") is None and _fault(entry, rows, ROW_COLUMNS) is None:
                yield entry["row"]


def write_parquet(rows: Iterator[dict[str, Any]], schema: pa.Schema, folder: Path) -> list[Path]:
    """Write rows as ``responses-00000.parquet`` and so on into a folder that appears only when it is complete.

    At most ``ROWS_PER_BATCH`` rows are in memory at a time. There is always at least one file, even without rows.

    Args:
        rows: The rows, in their final order.
        schema: Columns of the files.
        folder: The folder to make.

    Returns:
        The files, in order.

    Raises:
        UserError: The disk is full.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    with storage_errors(folder.parent, KEPT):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        names: list[str] = []
        batches = _batches(rows, schema)
        batch = next(batches, None)
        while batch is not None or not names:
            names.append(f"responses-{len(names):05d}.parquet")
            with pq.ParquetWriter(unfinished / names[-1], schema, compression="zstd") as writer:
                written = 0
                while batch is not None and written < ROWS_PER_FILE:
                    writer.write_batch(batch)
                    written += batch.num_rows
                    batch = next(batches, None)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return [folder / name for name in names]


def _batches(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS_PER_BATCH:
            yield pa.RecordBatch.from_pylist(chunk, schema=schema)
            chunk = []
    if chunk:
        yield pa.RecordBatch.from_pylist(chunk, schema=schema)


def _line(entry: dict[str, Any]) -> bytes:
    return ENCODER.encode(entry).encode() + b"\n"


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _fault(entry: dict[str, Any], rows: int, required: Collection[str]) -> str | None:
    """Say why a line is no usable response of a job with so many rows; None if it is one."""
    row = entry.get("row")
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < rows:
        return f"a row number is not one of 0 to {rows - 1}"
    fault = row_fault(entry, required)
    return None if fault is None else f"row {row}: {fault}"


def _other_job(path: Path, found: Any, wanted: dict[str, Any]) -> UserError:
    found = found if isinstance(found, dict) else {}
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    changes = "; ".join(f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} now" for key in differing)
    return UserError(
        f"{path.parent} holds an unfinished generation with other settings.",
        why=changes,
        fix=f"Give another output folder, restore those settings, or delete {path.parent}.",
    )
