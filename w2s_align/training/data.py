"""Training data: reads pairs or chats, tokenises them with the student's template, drops or cuts what is too long.

Reads a Parquet file or folder, an Arrow table or a list of rows, in TRL's conversational formats.
Writes one Arrow file that TRL opens: pairs as messages (TRL tokenises pairs itself), SFT rows as tokens with labels.
Everything dropped or cut is counted by side, so that TRL, called with max_length=None, drops nothing in silence. That
also lets its cache of reference log-probabilities survive a change of beta or learning rate (peers_and_style E2).
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import MESSAGES, Message
from w2s_align.training.settings import DPOSettings, SFTSettings, TrainSettings
from w2s_align.training.tokens import Answer, ChatEncoder

if TYPE_CHECKING:
    from datasets import Dataset

Rows: TypeAlias = str | os.PathLike[str] | pa.Table | Sequence[dict[str, Any]]
"""Training data: a Parquet file, a folder of them, an Arrow table, or rows as dicts."""

BATCH = 512
PREVIEW_ROWS = 8
PREVIEW_TOKENS = 12
PROBE_TOKENS = 64


@dataclass
class TrainingData:
    """Data that is ready to train on, and what was done to it.

    Attributes:
        file: Arrow file for :meth:`dataset`.
        digest: SHA-256 of the kept rows and of all that changes their tokens or log-probabilities.
        counts: Rows in, kept, dropped and cut, by reason and side.
        lengths: For each side: minimum, mean and maximum number of tokens, and their total, of the kept rows.
        preview: First and last tokens of some rows, each with whether it carries loss.
        notes: Sentences about what is unusual in the data.
        longest: Tokens of the longest prompt + response.
        probes: Tokens of the first rows, cut short, to compare models on.
    """

    file: Path
    digest: str
    counts: dict[str, int]
    lengths: dict[str, dict[str, float]]
    preview: list[dict[str, Any]]
    notes: list[str]
    longest: int
    probes: list[list[int]]

    @property
    def rows(self) -> int:
        """Number of rows that are trained on."""
        return self.counts["kept"]

    def dataset(self) -> Dataset:
        """Open the rows, memory-mapped; caches of derived data land beside the file."""
        from datasets import Dataset

        return Dataset.from_file(str(self.file))


def prepare_pairs(pairs: Rows, encoder: ChatEncoder, settings: DPOSettings, folder: Path) -> TrainingData:
    """Check and filter preference pairs, and store the rest for TRL's DPO trainer.

    Args:
        pairs: Rows with ``prompt``, ``chosen``, ``rejected`` as messages (``Pair.SCHEMA``, or any such table); where
            ``chosen`` and ``rejected`` hold whole chats, the prompt is what they share.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``. An existing file is used again.

    Raises:
        UserError: A column is missing, nothing is left, both sides are equal in every pair, the template is wrong, or
            a row is too long and ``too_long`` is ``error``.
    """
    schema = pa.schema([("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES)])

    def convert(rows: list[dict[str, Any]], table: _Table) -> list[dict[str, Any]]:
        split = [pair for row in rows if (pair := _pair(row, table.counts))]
        answers = encoder.encode(*([pair[side] for pair in split] for side in ("prompt", "chosen", "rejected")))
        kept = []
        for pair, (chosen, rejected) in zip(split, answers, strict=True):
            if table.keep({"chosen": chosen, "rejected": rejected}):
                table.counts["identical"] += pair["chosen"] == pair["rejected"]
                kept.append(pair)
        return kept

    data = _store(
        pairs, schema, ("chosen", "rejected"), convert, encoder, settings, folder, ld_alpha=settings.ld_alpha
    )
    if data.counts.get("identical", 0) == data.rows:
        raise UserError(
            f"In all {data.rows} pairs the chosen response equals the rejected one.",
            "Such pairs carry no preference.",
            "Check which two sets of responses were paired.",
        )
    return data


def prepare_chats(rows: Rows, encoder: ChatEncoder, settings: SFTSettings, folder: Path) -> TrainingData:
    """Tokenise chats for supervised fine-tuning; only the last assistant turn carries loss.

    Args:
        rows: Preference pairs (the side is ``settings.side``), rows with ``messages``, or with ``prompt`` and
            ``completion``.
        encoder: The student's tokenizer and template.
        settings: Lengths, side, and what to do with rows that are too long.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``.

    Raises:
        UserError: As for :func:`prepare_pairs`.
    """
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])

    def convert(batch: list[dict[str, Any]], table: _Table) -> list[dict[str, Any]]:
        split = [chat for row in batch if (chat := _chat(row, settings.side, table.counts))]
        answers = encoder.encode([prompt for prompt, _ in split], [response for _, response in split])
        kept = []
        for (answer,) in answers:
            if table.keep({"response": answer}):
                ids = answer.ids[: settings.max_length]
                kept.append({"input_ids": ids, "labels": [-100] * answer.start + ids[answer.start :]})
        return kept

    return _store(rows, schema, ("response",), convert, encoder, settings, folder, side=settings.side)


@dataclass
class _Table:
    """Counts, lengths and preview of the rows as they pass."""

    encoder: ChatEncoder
    settings: TrainSettings
    counts: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    preview: list[dict[str, Any]] = field(default_factory=list)
    longest: int = 0
    probes: list[list[int]] = field(default_factory=list)

    def keep(self, sides: dict[str, Answer]) -> bool:
        """Decide about one row, count it, and keep its lengths if it stays."""
        limit = self.settings.max_length
        long = [name for name, answer in sides.items() if limit is not None and len(answer.ids) > limit]
        start = next(iter(sides.values())).start
        if long and limit is not None:
            if self.settings.too_long == "error":
                size = max(len(answer.ids) for answer in sides.values())
                raise UserError(
                    f"A row has {size} tokens; max_length is {limit} and too_long is error.",
                    f"It is the {self.counts['rows']}-th row or one shortly before it.",
                    "Raise max_length, or set too_long to drop or truncate.",
                )
            if start >= limit or self.settings.too_long == "drop":
                reason = "prompt" if start >= limit else "both" if len(long) > 1 else long[0]
                self.counts[f"dropped_{reason}_too_long"] += 1
                return False
            self.counts.update(f"cut_{name}" for name in long)
        for name, size in [("prompt", start), *((name, len(a.ids) - start) for name, a in sides.items())]:
            spare = size if limit is None or name == "prompt" else min(size, limit - start)
            self.lengths.setdefault(name, []).append(spare)
        longest = max(len(answer.ids) for answer in sides.values())
        self.longest = max(self.longest, longest if limit is None else min(longest, limit))
        if self.counts["kept"] < PREVIEW_ROWS:
            for name, answer in sides.items():
                self.preview.append(self._preview(self.counts["kept"], name, answer))
                self.probes.append(answer.ids[:PROBE_TOKENS])
        self.counts["kept"] += 1
        return True

    def _preview(self, row: int, side: str, answer: Answer) -> dict[str, Any]:
        ids = answer.ids[: self.settings.max_length]
        tokens = [[self.encoder.tokenizer.decode([token]), i >= answer.start] for i, token in enumerate(ids)]
        last = tokens[max(PREVIEW_TOKENS, len(tokens) - PREVIEW_TOKENS) :]
        return {"row": row, "side": side, "tokens": len(ids), "first": tokens[:PREVIEW_TOKENS], "last": last}


def _store(
    source: Rows,
    schema: pa.Schema,
    needed: tuple[str, ...],
    convert: Callable[[list[dict[str, Any]], _Table], list[dict[str, Any]]],
    encoder: ChatEncoder,
    settings: TrainSettings,
    folder: Path,
    **key: Any,
) -> TrainingData:
    """Pass all rows through ``convert`` into an Arrow file that is named after its content."""
    table = _Table(encoder, settings)
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
            for rows in read_rows(source, needed):
                table.counts["rows"] += len(rows)
                kept = convert(rows, table)
                if "chat_template_kwargs" in schema.names:
                    kept = [{**row, "chat_template_kwargs": settings.chat_template_kwargs} for row in kept]
                if kept:
                    digest.update(json.dumps(kept, ensure_ascii=False).encode())
                    writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=schema))
        if not table.counts["kept"]:
            counted = ", ".join(f"{name}: {count}" for name, count in table.counts.items() if count)
            raise UserError(
                "There is no row to train on.",
                f"Counts: {counted or 'no rows at all'}.",
                "Give more rows, or change max_length or too_long.",
            )
        file = folder / digest.hexdigest()[:32] / "rows.arrow"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    notes = encoder.notes()
    if same := table.counts.get("identical"):
        notes.append(f"In {same} pairs the chosen response equals the rejected one.")
    return TrainingData(
        file=file,
        digest=digest.hexdigest(),
        counts=dict(table.counts),
        lengths={name: _summary(values) for name, values in table.lengths.items()},
        preview=table.preview,
        notes=notes,
        longest=table.longest,
        probes=table.probes[:4],
    )


def read_rows(source: Rows, needed: tuple[str, ...] = ()) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a table in batches.

    Args:
        source: See :data:`Rows`.
        needed: Columns that pairs must have; ``("response",)`` stands for one of the SFT formats.

    Raises:
        UserError: The source is missing, not Parquet, or lacks a column.
    """
    import pyarrow.dataset as ds

    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not path.exists() or not files:
            raise UserError(f"{path} has no training data.", "There is no Parquet file.", "Give a .parquet file.")
        try:
            table = ds.dataset([str(file) for file in files], format="parquet")
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet.", str(error), "Give a Parquet file.") from error
    else:
        table = ds.dataset(source if isinstance(source, pa.Table) else pa.Table.from_pylist(list(source)))
    columns = _columns(table.schema.names, needed)
    for batch in table.to_batches(columns=columns, batch_size=BATCH):
        if batch.num_rows:
            yield batch.to_pylist()


def _columns(names: list[str], needed: tuple[str, ...]) -> list[str]:
    for name in ("images", "image", "tools"):
        if name in names:
            raise UserError(f"The data has a column {name}.", "It would be ignored.", f"Remove the column {name}.")
    formats = [["prompt", "chosen", "rejected"], ["chosen", "rejected"]]
    if needed == ("response",):
        formats = [["messages"], ["prompt", "completion"], *formats]
    for columns in formats:
        if set(columns) <= set(names):
            return columns
    choices = ", or ".join(" + ".join(columns) for columns in formats)
    raise UserError(
        f"The data has the columns {', '.join(names) or '(none)'}.", f"Needed are {choices}.", "Rename the columns."
    )


def _pair(row: dict[str, Any], counts: Counter[str]) -> dict[str, list[Message]] | None:
    chosen, rejected, prompt = _messages(row["chosen"]), _messages(row["rejected"]), row.get("prompt")
    if not chosen or not rejected:
        counts["dropped_incomplete"] += 1
        return None
    if len(chosen) > 1 or len(rejected) > 1:
        # Whole chats on both sides, with the prompt repeated or implied: they must differ in the last turn only.
        if chosen[:-1] != rejected[:-1]:
            counts["dropped_different_prompts"] += 1
            return None
        prompt, chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
    prompt = _messages(prompt)
    if not prompt:
        counts["dropped_incomplete"] += 1
        return None
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _chat(row: dict[str, Any], side: str, counts: Counter[str]) -> tuple[list[Message], list[Message]] | None:
    if "messages" in row:
        chat = _messages(row["messages"])
    elif "completion" in row:
        chat = [*_messages(row["prompt"]), *_messages(row["completion"])]
    else:
        answer = _messages(row[side])
        chat = answer if len(answer) > 1 else [*_messages(row.get("prompt")), *answer]
    if len(chat) < 2 or chat[-1]["role"] != "assistant":
        counts["dropped_incomplete"] += 1
        return None
    return chat[:-1], chat[-1:]


def _messages(value: Any) -> list[Message]:
    if value is None:
        return []
    if isinstance(value, str) or not all(isinstance(turn, dict) for turn in value):
        raise UserError(
            "The data holds plain texts where chats belong.",
            f"For example: {str(value)[:80]!r}.",
            'Write each as messages: [{"role": "user", "content": "..."}].',
        )
    if any(not turn.get("role") or turn.get("content") is None for turn in value):
        return []
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]


def _summary(values: list[int]) -> dict[str, float]:
    total = sum(values)
    return {"min": min(values), "mean": total / len(values), "max": max(values), "total": total}
