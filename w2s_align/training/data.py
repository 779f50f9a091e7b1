"""Training data: reads pairs or chats, tokenises them with the student's template, drops or cuts what is too long.

Reads a Parquet file or folder, an Arrow table or a list of rows, in TRL's conversational formats.
Writes one Arrow file that TRL opens: pairs as messages (TRL tokenises pairs itself), SFT rows as tokens with labels.
Everything dropped or cut is counted by side, so that TRL, called with max_length=None, drops nothing in silence. That
also lets its cache of reference log-probabilities survive a change of beta or learning rate (peers_and_style E2).
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
from w2s_align.records import MESSAGES
from w2s_align.training.batching import RowSizes, labelled_order
from w2s_align.training.formats import Rows, chat_of, labelled_of, pair_of, read_rows, sources_of
from w2s_align.training.settings import SFTSettings, TrainSettings
from w2s_align.training.tokens import Answer, ChatEncoder

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS = pa.list_(pa.int32())

PREVIEW_ROWS = 8
PREVIEW_TOKENS = 12
PROBE_TOKENS = 64


@dataclass
class TrainingData:
    """Data that is ready to train on, and what was done to it.

    Attributes:
        file: Arrow file for :meth:`dataset`.
        digest: SHA-256 of the kept rows and of all that changes their tokens or log-probabilities.
        tokens_digest: SHA-256 of what the model reads of the kept rows: token ids, and where the responses begin.
        counts: Rows in, kept, dropped and cut, by reason and side.
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
    counts: dict[str, int]
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
        return self.counts["kept"]

    @property
    def sizes(self) -> RowSizes:
        """What decides how many rows go through the model at once."""
        prompts = self.lengths["prompt"]["total"] / sum(size["total"] for size in self.lengths.values())
        return RowSizes(self.row["mean"], self.row["spread"], int(self.row["max"]), self.longest, 1 - prompts)

    def dataset(self) -> Dataset:
        """Open the rows, memory-mapped; caches of derived data land beside the file, named after the rows' content."""
        from datasets import Dataset
        from datasets.table import MemoryMappedTable

        return Dataset(MemoryMappedTable.from_file(str(self.file)), fingerprint=self.digest[:16])


def prepare_pairs(
    pairs: Rows,
    encoder: ChatEncoder,
    settings: TrainSettings,
    folder: Path,
    *,
    tokens: bool = False,
    ld_alpha: float | None = None,
) -> TrainingData:
    """Check and filter preference pairs, and store the rest for a trainer of TRL.

    Args:
        pairs: Rows with ``prompt``, ``chosen``, ``rejected`` as messages (``Pair.SCHEMA``, or any such table); where
            ``chosen`` and ``rejected`` hold whole chats, the prompt is what they share.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``. An existing file is used again.
        tokens: Store ``chosen_ids``, ``rejected_ids`` and ``start`` (of the responses) in place of messages, for
            trainers that would tokenise by other rules than those that were checked.
        ld_alpha: Weight of tokens beyond the shared length, where the loss has one: it changes log-probabilities.

    Raises:
        UserError: A column is missing, nothing is left, both sides are equal in every pair, the template is wrong, or
            a row is too long and ``too_long`` is ``error``.
    """
    schema = pa.schema([("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES)])
    if tokens:
        schema = pa.schema([("chosen_ids", TOKENS), ("rejected_ids", TOKENS), ("start", pa.int32())])

    def convert(rows: list[dict[str, Any]], table: _Table) -> list[dict[str, Any]]:
        split = [pair for row in rows if (pair := pair_of(row, table.counts))]
        answers = encoder.encode(*([pair[side] for pair in split] for side in ("prompt", "chosen", "rejected")))
        kept: list[dict[str, Any]] = []
        for pair, (chosen, rejected) in zip(split, answers, strict=True):
            if table.keep({"chosen": chosen, "rejected": rejected}):
                table.counts["identical"] += pair["chosen"] == pair["rejected"]
                ids = [answer.ids[: settings.max_length] for answer in (chosen, rejected)]
                made = {"chosen_ids": ids[0], "rejected_ids": ids[1], "start": chosen.start}
                kept.append(made if tokens else pair)
        return kept

    data = _store(pairs, schema, ("chosen", "rejected"), convert, encoder, settings, folder, ld_alpha=ld_alpha)
    if data.counts.get("identical", 0) == data.rows:
        raise UserError(
            f"In all {data.rows} pairs the chosen response equals the rejected one.",
            "Such pairs carry no preference.",
            "Check which two sets of responses were paired.",
        )
    return data


def prepare_labelled(
    pairs: Rows, encoder: ChatEncoder, settings: TrainSettings, folder: Path, *, seed: int, together: int
) -> TrainingData:
    """Take pairs apart into good and bad responses, in random order, for TRL's KTO trainer.

    KTO estimates a KL term from responses under prompts that they do not belong to. TRL pairs them up within one
    forward pass, and reads rows in the order of the file. Here the order depends on the seed, and each prompt gets
    the response of its neighbour within ``together`` rows, whatever the forward passes are.

    Args:
        pairs: As for :func:`prepare_pairs`; rows with ``prompt``, ``completion`` and ``label`` also fit.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes.
        seed: Seed of the order.
        together: Rows over which the KL term is estimated; the number of rows is filled up to whole batches.

    Raises:
        UserError: As for :func:`prepare_pairs`.
    """
    schema = pa.schema(
        [("prompt", MESSAGES), ("completion", MESSAGES), ("label", pa.bool_()), ("neighbour_ids", TOKENS)]
    )
    tails: list[list[int]] = []

    def convert(rows: list[dict[str, Any]], table: _Table) -> list[dict[str, Any]]:
        split = [part for row in rows for part in labelled_of(row, table.counts)]
        answers = encoder.encode([part["prompt"] for part in split], [part["completion"] for part in split])
        kept = []
        for part, (answer,) in zip(split, answers, strict=True):
            if table.keep({"good" if part["label"] else "bad": answer}):
                tails.append(answer.ids[answer.start : settings.max_length])
                kept.append({**part, "neighbour_ids": []})
        return kept

    def arrange(table: pa.Table) -> pa.Table:
        order = labelled_order(table.num_rows, settings, seed)
        blocks = [order[i : i + together] for i in range(0, len(order), together)]
        neighbours = [tails[block[i - 1]] for block in blocks for i in range(len(block))]
        column = schema.get_field_index("neighbour_ids")
        return table.take(order).set_column(column, schema.field(column), pa.array(neighbours, TOKENS))

    needed = ("completion",)
    key = {"seed": seed, "together": together, "batch_size": settings.batch_size}
    return _store(pairs, schema, needed, convert, encoder, settings, folder, arrange, **key)


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
    schema = pa.schema([("input_ids", TOKENS), ("labels", TOKENS)])

    def convert(batch: list[dict[str, Any]], table: _Table) -> list[dict[str, Any]]:
        split = [chat for row in batch if (chat := chat_of(row, settings.side, table.counts))]
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
    whole: list[int] = field(default_factory=list)
    row_tokens: array[int] = field(default_factory=lambda: array("q"))
    tokens: Any = field(default_factory=hashlib.sha256)

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
        whole = 0
        for name, size in [("prompt", start), *((name, len(a.ids) - start) for name, a in sides.items())]:
            spare = size if limit is None or name == "prompt" else min(size, limit - start)
            self.lengths.setdefault(name, []).append(spare)
            whole += spare
        self.whole.append(whole)
        self.row_tokens.append(whole + (len(sides) - 1) * start)
        longest = max(len(answer.ids) for answer in sides.values())
        self.longest = max(self.longest, longest if limit is None else min(longest, limit))
        for answer in sides.values():
            ids = answer.ids[:limit]
            self.tokens.update(array("q", [start, len(ids), *ids]).tobytes())
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
    arrange: Callable[[pa.Table], pa.Table] | None = None,
    **key: Any,
) -> TrainingData:
    """Pass all rows through ``convert``, and then ``arrange``, into an Arrow file that is named after its content."""
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
            for rows in _batches(source, needed, table):
                table.counts["rows"] += len(rows)
                kept = convert(rows, table)
                if "chat_template_kwargs" in schema.names:
                    kept = [{**row, "chat_template_kwargs": settings.chat_template_kwargs} for row in kept]
                if kept:
                    digest.update(json.dumps(kept, ensure_ascii=False).encode())
                    writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=schema))
        if not table.counts["kept"]:
            counted = ", ".join(f"{name}: {count}" for name, count in table.counts.items() if count)
            way_out = "Give more rows, or change max_length or too_long."
            if table.counts["dropped_without_prompt"]:
                way_out = "Give each pair a prompt: messages up to the user's last turn."
            raise UserError("There is no row to train on.", f"Counts: {counted or 'no rows at all'}.", way_out)
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
    notes = encoder.notes()
    if same := table.counts.get("identical"):
        notes.append(f"In {same} pairs the chosen response equals the rejected one.")
    return TrainingData(
        file=file,
        digest=digest.hexdigest(),
        tokens_digest=table.tokens.hexdigest(),
        counts=dict(table.counts),
        lengths={name: _summary(values) for name, values in table.lengths.items()},
        preview=table.preview,
        notes=notes,
        longest=table.longest,
        probes=table.probes[:4],
        row={**_summary(table.whole), "spread": statistics.pstdev(table.whole)},
        row_tokens=table.row_tokens,
    )


def _batches(source: Rows, needed: tuple[str, ...], table: _Table) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all sets; of several, count those kept of each, and those whose prompt an earlier set has."""
    sets = sources_of(source)
    before: set[int] = set()
    for number, one in enumerate(sets, start=1):
        kept, prompts = table.counts["kept"], set()
        for rows in read_rows(one, needed):
            if len(sets) > 1:
                asked = [hash(json.dumps(row["prompt"])) for row in rows if row.get("prompt")]
                table.counts["prompt_in_an_earlier_set"] += sum(prompt in before for prompt in asked)
                prompts.update(asked)
            yield rows
        if len(sets) > 1:
            table.counts[f"kept_of_set_{number}"] = table.counts["kept"] - kept
        before |= prompts


def _summary(values: list[int]) -> dict[str, float]:
    total = sum(values)
    return {"min": min(values), "mean": total / len(values), "max": max(values), "total": total}
