"""Training data: rows pass through a converter into one Arrow file, and everything dropped or cut is counted.

Reads what formats.py reads; writes ``<folder>/<digest>/rows.arrow``, which a trainer opens memory-mapped. Rows that
are too long are dropped or cut here, by side, so that TRL, called with max_length=None, drops nothing in silence.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.training.batching import RowSizes
from w2s_align.training.counts import RowCounts
from w2s_align.training.formats import Rows, read_rows, sources_of
from w2s_align.training.settings import TrainSettings
from w2s_align.training.tokens import Answer, ChatEncoder

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS = pa.list_(pa.int32())
"""Token ids of a sequence; no vocabulary needs more than 32 bits."""

PREVIEW_ROWS = 8
"""Rows whose first and last tokens are shown: as many as fit a screen beside the rest of the preflight."""
PREVIEW_TOKENS = 12
"""Tokens shown of each end of a row: a template's special tokens and the words beside them."""
PROBES = 4
"""Sequences on which a trained and a saved model are compared."""
PROBE_TOKENS = 64
"""Tokens of each of them: enough to reach the response in most chats, and quick on a CPU."""


@dataclass
class TrainingData:
    """Data that is ready to train on, and what was done to it.

    Attributes:
        file: Arrow file for :meth:`dataset`.
        digest: SHA-256 of the kept rows and of all that changes their tokens or log-probabilities.
        tokens_digest: SHA-256 of what the model reads of the kept rows: token ids, and where the responses begin.
        counts: Rows in, kept, dropped and cut.
        lengths: For each side: minimum, mean and maximum number of tokens, and their total, of the kept rows.
        preview: First and last tokens of some rows, each with whether it carries loss.
        notes: Sentences about what is unusual in the data.
        longest: Tokens of the longest prompt + response.
        probes: Tokens of the first rows, cut short, to compare models on.
        row: Tokens of a whole row, its prompt once: mean, standard deviation (``spread``) and maximum.
        row_tokens: For each row, the tokens that go through the model: a prompt with each of its responses.
    """

    file: Path
    digest: str
    tokens_digest: str
    counts: RowCounts
    lengths: dict[str, dict[str, float]]
    preview: list[dict[str, Any]]
    notes: list[str]
    longest: int
    probes: list[list[int]]
    row: dict[str, float]
    row_tokens: array[int] = field(default_factory=lambda: array("q"))

    @property
    def rows(self) -> int:
        """Number of rows that are trained on."""
        return self.counts.kept

    @property
    def sizes(self) -> RowSizes:
        """What decides how many rows go through the model at once."""
        prompts = self.lengths["prompt"]["total"] / sum(size["total"] for size in self.lengths.values())
        return RowSizes(self.row["mean"], self.row["spread"], int(self.row["max"]), self.longest, targets=1 - prompts)

    def dataset(self) -> Dataset:
        """Open the rows, memory-mapped; caches of derived data land beside the file, named after the rows' content."""
        from datasets import Dataset
        from datasets.table import MemoryMappedTable

        return Dataset(MemoryMappedTable.from_file(str(self.file)), fingerprint=self.digest[:16])


@dataclass
class RowCollector:
    """Counts, lengths and preview of the rows as they pass.

    A converter of :func:`store_rows` asks :meth:`keep` about every row that it has tokenized, and counts in
    ``dropped`` what it could not.

    Attributes:
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        rows: Rows read so far.
        kept: Rows kept so far.
        dropped: Rows left out, by reason.
        cut: Responses that were cut, by side.
        identical: Kept pairs whose two responses are equal.
    """

    encoder: ChatEncoder
    settings: TrainSettings
    rows: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    identical: int = 0
    kept_by_set: list[int] = field(default_factory=list)
    shared_prompts: int = 0
    lengths: dict[str, list[int]] = field(default_factory=dict)
    preview: list[dict[str, Any]] = field(default_factory=list)
    longest: int = 0
    probes: list[list[int]] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    row_tokens: array[int] = field(default_factory=lambda: array("q"))
    tokens: Any = field(default_factory=hashlib.sha256)

    def counts(self) -> RowCounts:
        """Return what became of the rows."""
        return RowCounts(
            self.rows,
            self.kept,
            dict(self.dropped),
            dict(self.cut),
            identical=self.identical,
            kept_by_set=self.kept_by_set,
            shared_prompts=self.shared_prompts,
        )

    def data(self, file: Path, digest: str) -> TrainingData:
        """Return the data that the kept rows make up.

        Args:
            file: Where they are stored.
            digest: SHA-256 of the stored rows and of all that changes their tokens.
        """
        notes = self.encoder.notes()
        if self.identical:
            notes.append(f"In {self.identical} pairs the chosen response equals the rejected one.")
        return TrainingData(
            file=file,
            digest=digest,
            tokens_digest=self.tokens.hexdigest(),
            counts=self.counts(),
            lengths={name: _summary(values) for name, values in self.lengths.items()},
            preview=self.preview,
            notes=notes,
            longest=self.longest,
            probes=self.probes[:PROBES],
            row={**_summary(self.whole), "spread": statistics.pstdev(self.whole)},
            row_tokens=self.row_tokens,
        )

    def keep(self, sides: dict[str, Answer]) -> bool:
        """Decide about one row, count it, and keep its lengths if it stays.

        Args:
            sides: Its responses by side, each with the prompt before it.

        Raises:
            UserError: It is too long and ``too_long`` is ``error``.
        """
        limit = self.settings.max_length
        if limit is not None and not self._fits(sides, limit):
            return False
        self._measure(sides, limit)
        if self.kept < PREVIEW_ROWS:
            for name, answer in sides.items():
                self.preview.append(self._preview(self.kept, name, answer))
                self.probes.append(answer.ids[:PROBE_TOKENS])
        self.kept += 1
        return True

    def _fits(self, sides: dict[str, Answer], limit: int) -> bool:
        long = [name for name, answer in sides.items() if len(answer.ids) > limit]
        if not long:
            return True
        start = next(iter(sides.values())).start
        if self.settings.too_long == "error":
            size = max(len(answer.ids) for answer in sides.values())
            raise UserError(
                f"A row has {size} tokens; max_length is {limit} and too_long is error.",
                f"It is row {self.rows} or one shortly before it.",
                "Raise max_length, or set too_long to drop or truncate.",
            )
        if start >= limit or self.settings.too_long == "drop":
            reason = "prompt" if start >= limit else "both" if len(long) > 1 else long[0]
            self.dropped[f"{reason}_too_long"] += 1
            return False
        self.cut.update(long)
        return True

    def _measure(self, sides: dict[str, Answer], limit: int | None) -> None:
        start = next(iter(sides.values())).start
        sizes = {name: len(answer.ids[:limit]) - start for name, answer in sides.items()}
        for name, size in {"prompt": start, **sizes}.items():
            self.lengths.setdefault(name, []).append(size)
        whole = start + sum(sizes.values())
        self.whole.append(whole)
        self.row_tokens.append(whole + (len(sides) - 1) * start)  # each response goes through with its prompt
        self.longest = max(self.longest, start + max(sizes.values()))
        for answer in sides.values():
            ids = answer.ids[:limit]
            self.tokens.update(array("q", [start, len(ids), *ids]).tobytes())

    def _preview(self, row: int, side: str, answer: Answer) -> dict[str, Any]:
        ids = answer.ids[: self.settings.max_length]
        tokens = [[self.encoder.tokenizer.decode([token]), i >= answer.start] for i, token in enumerate(ids)]
        last = tokens[max(PREVIEW_TOKENS, len(tokens) - PREVIEW_TOKENS) :]
        return {"row": row, "side": side, "tokens": len(ids), "first": tokens[:PREVIEW_TOKENS], "last": last}


def store_rows(
    source: Rows,
    schema: pa.Schema,
    needed: tuple[str, ...],
    convert: Callable[[list[dict[str, Any]], RowCollector], list[dict[str, Any]]],
    encoder: ChatEncoder,
    settings: TrainSettings,
    folder: Path,
    arrange: Callable[[pa.Table], pa.Table] | None = None,
    **key: Any,
) -> TrainingData:
    """Pass all rows through ``convert``, and then ``arrange``, into an Arrow file that is named after its content.

    Args:
        source: One set of rows, or several.
        schema: Schema of the stored rows.
        needed: Columns that tell the format of the rows; see :func:`~w2s_align.training.formats.read_rows`.
        convert: Makes stored rows of a batch of rows, and asks the collector about each.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``. An existing file is used again.
        arrange: Changes the order of the stored rows, or what depends on it.
        **key: What else changes tokens or log-probabilities; part of the digest.

    Raises:
        UserError: A column is missing, nothing is left, the template is wrong, or a row is too long and ``too_long``
            is ``error``.
    """
    table = RowCollector(encoder, settings)
    if settings.chat_template_kwargs and "prompt" in schema.names:
        # TRL reads the template's arguments from a column of this name.
        sample = pa.array([settings.chat_template_kwargs])
        schema = schema.append(pa.field("chat_template_kwargs", sample.type))
    key |= {"max_length": settings.max_length if settings.too_long == "truncate" else None}
    key |= {"template": encoder.tokenizer.chat_template}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{uuid.uuid4().hex}.arrow"
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for rows in _batches(source, needed, table):
                table.rows += len(rows)
                kept = convert(rows, table)
                if "chat_template_kwargs" in schema.names:
                    kept = [{**row, "chat_template_kwargs": settings.chat_template_kwargs} for row in kept]
                if kept:
                    digest.update(json.dumps(kept, ensure_ascii=False).encode())
                    writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=schema))
        if not table.kept:
            raise _nothing_left(table)
        if arrange is not None:
            with pa.memory_map(str(partial)) as source_file, pa.ipc.open_stream(source_file) as stream:
                arranged = arrange(stream.read_all())
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                writer.write_table(arranged)
        file = folder / digest.hexdigest()[:32] / "rows.arrow"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return table.data(file, digest.hexdigest())


def _nothing_left(table: RowCollector) -> UserError:
    counted = ", ".join(f"{name}: {count}" for name, count in table.counts().in_words().items() if count)
    fix = "Give more rows, or change max_length or too_long."
    if table.dropped["without_prompt"]:
        fix = "Give each pair a prompt: messages up to the user's last turn."
    return UserError("There is no row to train on.", f"Counts: {counted or 'no rows at all'}.", fix)


def _batches(source: Rows, needed: tuple[str, ...], table: RowCollector) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all sets; of several, count those kept of each, and those whose prompt an earlier set has."""
    sets = sources_of(source)
    before: set[int] = set()
    for one in sets:
        kept, prompts = table.kept, set()
        for rows in read_rows(one, needed):
            if len(sets) > 1:
                asked = [hash(json.dumps(row["prompt"])) for row in rows if row.get("prompt")]
                table.shared_prompts += sum(prompt in before for prompt in asked)
                prompts.update(asked)
            yield rows
        if len(sets) > 1:
            table.kept_by_set.append(table.kept - kept)
        before |= prompts


def _summary(values: list[int]) -> dict[str, float]:
    total = sum(values)
    return {"min": min(values), "mean": total / len(values), "max": max(values), "total": total}
