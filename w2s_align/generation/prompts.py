"""The prompts of a job, read in batches: a million prompts in Parquet files need hardly more memory than a hundred.

Reads a table, records, texts, or the Parquet files of a prompts artifact; writes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.generation.examples import Examples
from w2s_align.records import MESSAGES, Message, Prompt, to_table

Prompts: TypeAlias = pa.Table | Sequence[Prompt] | Sequence[str] | Sequence[Path] | Path
"""What :func:`~w2s_align.generation.generate` takes; paths are those of Parquet files with ``Prompt.SCHEMA``."""

BATCH_ROWS = 256
"""Prompts that are rendered together: enough for the tokenizer's threads, few enough to start at once."""
READ_BYTES = 1 << 20
"""Columns of Parquet files are read in pieces of this size, never whole."""


class PromptRows:
    """The distinct prompts of a job, in the order in which they were given. Only a few bytes of each are held.

    Args:
        prompts: See :data:`Prompts`.
        examples: What stands before every prompt; the ids stay those of the prompts alone.

    Attributes:
        count: Number of distinct prompts.
        duplicated: Ids that were given more than once; only the first row of each counts.
        digest: Digest of the ids in their order, and of the examples.

    Raises:
        UserError: There are no prompts, or the table has no prompts in it.
    """

    def __init__(self, prompts: Prompts, examples: Examples | None = None) -> None:
        self._source = _source(prompts)
        self.examples = examples
        self._repeated: np.ndarray[Any, Any] | None = None
        hashes = array("Q", (_hash(prompt_id) for prompt_id in self.ids()))
        if not hashes:
            raise UserError("There are no prompts.", fix="Check the source of the prompts and its filters.")
        self._repeated, self.duplicated = self._find_repeated(np.frombuffer(hashes, dtype=np.uint64))
        self.count = len(hashes) - int(self._repeated.sum())
        digest = hashlib.sha256()
        for prompt_id in self.ids():
            digest.update(f"{prompt_id}\n".encode())
        if examples is not None:
            digest.update(examples.content.encode())
        self.digest = digest.hexdigest()[:16]

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches with the columns ``id`` and ``messages``, each with the number of its first prompt."""
        start = 0
        for batch in self._read(["id", "messages"]):
            yield start, batch if self.examples is None else _with_examples(batch, self.examples)
            start += batch.num_rows

    def ids(self) -> Iterator[str]:
        """Yield the ids."""
        for batch in self._read(["id"]):
            yield from batch.column("id").to_pylist()

    def first(self, count: int) -> list[list[Message]]:
        """Return the messages of the first prompts."""
        chats = (chat for _, batch in self.batches() for chat in batch.column("messages").to_pylist())
        return list(itertools.islice(chats, count))

    def _read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        read = 0
        for batch in _batches(self._source, columns):
            end = read + batch.num_rows
            if self._repeated is not None and self._repeated[read:end].any():
                yield batch.filter(pa.array(~self._repeated[read:end]))
            else:
                yield batch
            read = end

    def _find_repeated(self, hashes: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[str]]:
        """Return a mark for each row whose id an earlier row has, and those ids."""
        repeated = np.zeros(len(hashes), dtype=bool)
        _, firsts = np.unique(hashes, return_index=True)
        if len(firsts) == len(hashes):
            return repeated, []
        likely = np.ones(len(hashes), dtype=bool)
        likely[firsts] = False
        suspects = set(hashes[likely].tolist())
        seen: dict[str, bool] = {}  # two ids could share a hash: compare the ids themselves
        for row, prompt_id in enumerate(self.ids()):
            if int(hashes[row]) in suspects:
                repeated[row] = prompt_id in seen
                seen[prompt_id] = prompt_id in seen
        return repeated, [prompt_id for prompt_id, again in seen.items() if again]


def _source(prompts: Prompts) -> pa.Table | list[Path]:
    if isinstance(prompts, Path):
        prompts = [prompts]
    if isinstance(prompts, pa.Table):
        _check_columns(prompts.column_names)
        return prompts
    rows: list[Any] = list(prompts)
    if rows and all(isinstance(row, Path) for row in rows):
        for path in rows:
            _check_columns(pq.read_schema(path).names)
        return rows
    return to_table([Prompt.of(row) if isinstance(row, str) else row for row in rows], Prompt)


def _check_columns(names: list[str]) -> None:
    missing = [name for name in ("id", "messages") if name not in names]
    if missing:
        raise UserError(
            f"The table of prompts has no column {' and no column '.join(missing)}.",
            why=f"Its columns are: {', '.join(names)}.",
            fix="Give a table of records.Prompt.SCHEMA.",
        )


def _batches(source: pa.Table | list[Path], columns: list[str]) -> Iterator[pa.RecordBatch]:
    if isinstance(source, pa.Table):
        yield from source.select(columns).to_batches(max_chunksize=BATCH_ROWS)
        return
    for path in source:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)


def _with_examples(batch: pa.RecordBatch, examples: Examples) -> pa.RecordBatch:
    rows = zip(batch.column("id").to_pylist(), batch.column("messages").to_pylist(), strict=True)
    chats = [examples.before(prompt_id, messages) for prompt_id, messages in rows]
    return pa.RecordBatch.from_arrays([batch.column("id"), pa.array(chats, MESSAGES)], ["id", "messages"])


def _hash(prompt_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(prompt_id.encode(), digest_size=8).digest(), "little")
