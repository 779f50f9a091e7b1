"""Training data and its counts: every row that is dropped or cut is counted, by reason and side.

Rows that are too long are dropped or cut here, so that TRL, called with max_length=None, drops nothing in silence.
"""

from __future__ import annotations

import hashlib
import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.training.batching import RowSizes
from w2s_align.training.counts import RowCounts
from w2s_align.training.settings import TrainSettings
from w2s_align.training.tokens import Answer, ChatEncoder

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS = pa.list_(pa.int32())
"""Token ids of a sequence; no vocabulary needs more than 32 bits."""

OTHERS = "others"
"""What tools and the user say inside responses of several turns, among the lengths."""
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
        lengths: For the prompt and each side: minimum, mean and maximum number of tokens, and their total, of the kept
            rows; of a side those that carry loss. :data:`OTHERS` where responses hold turns of others.
        preview: First and last tokens of some rows, each with whether it carries loss.
        notes: Sentences about what is unusual in the data.
        longest: Tokens of the longest prompt + response.
        probes: Tokens of the first rows, cut short, to compare models on.
        row: Tokens of a whole row, its prompt once: mean, standard deviation (``spread``) and maximum.
        row_tokens: For each row, the tokens that go through the model: a prompt with each of its responses.
        several_turns: Rows with a response in which others speak between the assistant's turns.
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
    several_turns: int = 0

    @property
    def rows(self) -> int:
        """Number of rows that are trained on."""
        return self.counts.kept

    @property
    def sizes(self) -> RowSizes:
        """What decides how many rows go through the model at once."""
        read = sum(self.lengths[name]["total"] for name in ("prompt", OTHERS) if name in self.lengths)
        share = read / sum(size["total"] for size in self.lengths.values())
        return RowSizes(self.row["mean"], self.row["spread"], int(self.row["max"]), self.longest, targets=1 - share)

    def dataset(self) -> Dataset:
        """Open the rows, memory-mapped; caches of derived data land beside the file, named after the rows' content."""
        from datasets import Dataset
        from datasets.table import MemoryMappedTable

        table = MemoryMappedTable.from_file(str(self.file))
        if not self.several_turns:  # rows of one turn each look as they do without this feature
            table = table.drop([name for name in table.column_names if name.endswith(OTHERS)])
        return Dataset(table, fingerprint=self.digest[:16])


@dataclass
class RowCollector:
    """Counts, lengths and preview of the rows as they are read.

    A converter of :func:`~w2s_align.training.arrow_file.store_rows` asks :meth:`keep` about every row
    that it has tokenized, and counts in ``dropped`` what it could not.

    Attributes:
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        rows: Rows read so far.
        kept: Rows kept so far.
        dropped: Rows left out, by reason.
        cut: Responses that were cut, by side.
        identical: Kept pairs whose two responses are equal.
        others: For each kept row, the tokens inside its responses that others said.
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
    others: list[int] = field(default_factory=list)
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
        lengths = self.lengths | ({OTHERS: self.others} if any(self.others) else {})
        if several := sum(map(bool, self.others)):
            notes.append(
                f"{several:,} rows have responses of several turns: the assistant's turns carry loss, the "
                f"{sum(self.others):,} tokens of tools and users between them do not."
            )
        return TrainingData(
            file=file,
            digest=digest,
            tokens_digest=self.tokens.hexdigest(),
            counts=self.counts(),
            lengths={name: _summary(values) for name, values in lengths.items()},
            preview=self.preview,
            notes=notes,
            longest=self.longest,
            probes=self.probes[:PROBES],
            row={**_summary(self.whole), "spread": statistics.pstdev(self.whole)},
            row_tokens=self.row_tokens,
            several_turns=several,
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
        prompt = next(iter(sides.values())).start
        sizes = {name: len(answer.ids[:limit]) - prompt for name, answer in sides.items()}
        others = {name: answer.others_before(limit) for name, answer in sides.items()}
        for name, size in {"prompt": prompt, **sizes}.items():
            self.lengths.setdefault(name, []).append(size - others.get(name, 0))
        self.others.append(sum(others.values()))
        whole = prompt + sum(sizes.values())
        self.whole.append(whole)
        self.row_tokens.append(whole + (len(sides) - 1) * prompt)  # each response goes through with its prompt
        self.longest = max(self.longest, prompt + max(sizes.values()))
        for answer in sides.values():
            ids = answer.ids[:limit]
            others_at = [at for span in answer.others for at in span]
            self.tokens.update(array("q", [answer.start, len(ids), *ids, *others_at]).tobytes())

    def _preview(self, row: int, side: str, answer: Answer) -> dict[str, Any]:
        ids = answer.ids[: self.settings.max_length]
        tokens = [[self.encoder.tokenizer.decode([token]), answer.has_loss(i)] for i, token in enumerate(ids)]
        last = tokens[max(PREVIEW_TOKENS, len(tokens) - PREVIEW_TOKENS) :]
        return {"row": row, "side": side, "tokens": len(ids), "first": tokens[:PREVIEW_TOKENS], "last": last}


def _summary(values: list[int]) -> dict[str, float]:
    total = sum(values)
    return {"min": min(values), "mean": total / len(values), "max": max(values), "total": total}
