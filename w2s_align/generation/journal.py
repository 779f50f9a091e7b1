"""The journal of a generation: finished answers on disk at once, and the finished job as Parquet in a fixed order.

``journal.jsonl`` begins with a line that says which job it belongs to; then each line is one answer or a note. Lines
are only ever appended: handed to the operating system at once (a killed process loses nothing) and forced to disk each
second (a power cut loses a second). A torn line is not valid JSON, is passed over, and its answer is made again; so is
one that has an ``error``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError

SYNC_SECONDS = 1.0
ROWS_PER_SHARD = 100_000
ROWS_PER_BATCH = 2_000
MISSING, ELSEWHERE = -1, -2
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Journal:
    """The append-only file of one job, held by one process at a time.

    Args:
        path: The file; made when it is not there.
        job: What the job is, JSON-serialisable. A journal of another job is refused: its answers are not this job's.
        rows: How many answers the job has.
        only: The answers that are wanted here; all others count as finished, elsewhere. By default all are wanted.

    Attributes:
        wanted: How many answers are wanted here.
        notes: The latest note under each key, those of earlier attempts included.

    Raises:
        UserError: The folder cannot be written, another process holds the journal, or it belongs to another job.
    """

    def __init__(self, path: Path, job: dict[str, Any], rows: int, only: Sequence[int] | None = None) -> None:
        self.path = path
        self.wanted = rows if only is None else len(only)
        self.notes: dict[str, dict[str, Any]] = {}
        self._offsets = array("q", [MISSING if only is None else ELSEWHERE]) * rows
        for row in only or ():
            self._offsets[row] = MISSING
        self._failed: dict[int, int] = {}
        self._done = 0
        self._synced = time.monotonic()
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("ab+")
        try:
            self._lock()
            self._scan(job)
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> int:
        """How many answers are finished; failed ones are not."""
        return self._done

    @property
    def failed(self) -> int:
        """How many answers have failed, in this attempt or an earlier one, and not been made since."""
        return len(self._failed)

    def has(self, row: int) -> bool:
        """Return whether an answer is finished; a failed one is not, so the next attempt tries it again."""
        return self._offsets[row] != MISSING

    def append(self, rows: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Write answers: ``(row number, columns)``. One whose column ``error`` is set has failed.

        Raises:
            UserError: The disk is full. What was written before stays.
        """
        lines = bytearray()
        start = self._end
        for row, columns in rows:
            self._take(row, columns, start + len(lines))
            lines += _line({"row": row, **columns})
        self._write(bytes(lines))

    def note(self, key: str, **values: Any) -> None:
        """Write something about the job that is no answer, e.g. which engine works on it."""
        self.notes[key] = values
        self._write(_line({"note": key, **values}))

    def sync(self, *, now: bool = False) -> None:
        """Force what was written to disk, when the last time is a second ago or more."""
        if now or time.monotonic() - self._synced >= SYNC_SECONDS:
            with disk_errors(self.path.parent):
                os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield finished and failed answers in the order of their row numbers, reading one at a time."""
        with self.path.open("rb") as file:
            for row, offset in enumerate(self._offsets):
                offset = self._failed.get(row, MISSING) if offset == MISSING else offset
                if offset >= 0:
                    file.seek(offset)
                    yield json.loads(file.readline())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is generating into {self.path.parent}.",
                fix="Wait for it, or give another output folder.",
            ) from None

    def _scan(self, job: dict[str, Any]) -> None:
        self._file.seek(0)
        self._end = 0
        header: dict[str, Any] | None = None
        torn = False
        for raw in self._file:
            torn = not raw.endswith(b"\n")
            entry = _parsed(raw)
            if entry is not None and header is None:
                header = entry
                if header != {"job": job}:
                    raise _other_job(self.path, header.get("job") or {}, job)
            elif entry is not None and "note" in entry:
                self.notes[entry.pop("note")] = entry
            elif entry is not None and not self.has(entry["row"]):
                self._take(entry["row"], entry, self._end)
            self._end += len(raw)
        if torn:
            self._write(b"\n")
        if header is None:
            self._write(_line({"job": job}))

    def _take(self, row: int, columns: dict[str, Any], offset: int) -> None:
        if columns.get("error") is not None:
            self._failed[row] = offset
            return
        self._failed.pop(row, None)
        self._offsets[row] = offset
        self._done += 1

    def _write(self, data: bytes) -> None:
        with disk_errors(self.path.parent):
            self._file.write(data)
            self._file.flush()
        self._end += len(data)


def finished_rows(path: Path) -> Iterator[int]:
    """Yield the rows that a journal has, without holding it: a process on another machine may be writing it."""
    with path.open("rb") as file:
        for raw in file:
            entry = _parsed(raw)
            if entry is not None and "row" in entry and entry.get("error") is None:
                yield entry["row"]


def write_parquet(rows: Iterator[dict[str, Any]], schema: pa.Schema, folder: Path) -> list[Path]:
    """Write rows as ``responses-00000.parquet`` and so on into a folder that appears only when it is complete.

    At most ``ROWS_PER_BATCH`` rows are in memory at a time. There is always at least one file, be it empty.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    with disk_errors(folder.parent):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        names: list[str] = []
        batches = _batches(rows, schema)
        batch = next(batches, None)
        while batch is not None or not names:
            names.append(f"responses-{len(names):05d}.parquet")
            with pq.ParquetWriter(unfinished / names[-1], schema, compression="zstd") as writer:
                written = 0
                while batch is not None and written < ROWS_PER_SHARD:
                    writer.write_batch(batch)
                    written += batch.num_rows
                    batch = next(batches, None)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return [folder / name for name in names]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is either whole or not there.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    with disk_errors(path.parent):
        with unfinished.open("w") as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about a full disk or missing permission into a user's error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk that holds {folder} is full.",
                why="Finished answers up to here are kept.",
                fix="Make room and run the same command again; it goes on from there.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserError(
                f"Nothing can be written into {folder}.", why=str(error.strerror), fix="Give another output folder."
            ) from error
        raise


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
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _other_job(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> UserError:
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    changes = "; ".join(f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} now" for key in differing)
    return UserError(
        f"{path.parent} holds unfinished work of another generation.",
        why=changes,
        fix=f"Give another output folder, go back to those settings, or delete {path.parent}.",
    )
