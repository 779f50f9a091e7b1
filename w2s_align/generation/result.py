"""What a generation returns: where its responses are, and counts of every prompt, token and second.

Reads the journal; writes ``data/responses-*.parquet`` and, last, ``generation.json``.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.files import storage_errors, write_json
from w2s_align.generation.chat import Chat
from w2s_align.generation.job import Job
from w2s_align.generation.journal import KEPT, Journal, write_parquet
from w2s_align.generation.server_chat import ServerChat
from w2s_align.generation.settings import Price
from w2s_align.generation.stats import Stats
from w2s_align.records import Message, Response

RESULT = "generation.json"
"""Written last: a folder that has it is finished."""
JOURNAL = "journal.jsonl"
"""The journal of a folder that is not finished."""
REASONS = 20
"""How many reasons of failures are kept with their counts: with request ids in them, all may differ."""


@dataclass(frozen=True)
class Generation:
    """Finished responses and how they came about. Everything but the table is plain values: :meth:`to_json`.

    Attributes:
        model: Name of the model, as in the column ``model``.
        rows: Responses in the table.
        prompts: Distinct prompts that were given.
        finish_reasons: Responses by ``stop``, ``length`` (cut at the limit) and ``error``.
        failed: Responses that could not be generated, by reason; their rows have an ``error`` and no text.
        retries: Number of retried requests, by reason.
        reasoning_counts: Responses that begin with reasoning: ``whole``, or ``cut_off`` when it has no end.
        dropped: Ids of prompts without a response, by reason (``too_long``).
        cut: Ids of prompts that were shortened to fit.
        unknown_tokens: Ids of prompts with characters that the model's vocabulary does not have.
        duplicated: Ids that were given more than once; each got the responses of one prompt.
        prompt_tokens: Prompt lengths in tokens, summed over responses.
        completion_tokens: Response lengths in tokens, summed.
        seconds: Time spent generating, over all attempts, without starting engines.
        startup_seconds: Time spent starting engines.
        gpu_seconds: GPUs times the seconds that they were held, start-ups included; 0 on a CPU or a server.
        cost: Money, if a price was given; see ``settings.Price``.
        seed: The seed from which the seeds of all responses are computed.
        sampling: Every sampling option as used.
        engine: Every engine option as used, the engine's version, the device, and the dtype and context as loaded.
        stop_token_ids: Tokens that end a response, id to text.
        template_digest: Digest of the chat template.
        first_prompt: The first prompt as the model saw it: ``text`` and ``token_ids``.
        warnings: What looked wrong and was accepted.
        paths: The Parquet files, in order.
    """

    model: str
    rows: int
    prompts: int
    finish_reasons: dict[str, int]
    failed: dict[str, int]
    retries: dict[str, int]
    reasoning_counts: dict[str, int]
    dropped: dict[str, list[str]]
    cut: list[str]
    unknown_tokens: list[str]
    duplicated: list[str]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    startup_seconds: float
    gpu_seconds: float
    cost: float | None
    seed: int
    sampling: dict[str, Any]
    engine: dict[str, Any]
    stop_token_ids: dict[str, str]
    template_digest: str
    first_prompt: dict[str, Any]
    warnings: list[str]
    paths: list[Path]
    _table: pa.Table | None = field(default=None, repr=False, compare=False)

    @property
    def truncated_share(self) -> float:
        """Share of the responses that were cut at the limit; 0 when there are none."""
        return self.finish_reasons.get("length", 0) / self.rows if self.rows else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, without starting engines."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0

    def table(self) -> pa.Table:
        """Return all responses (``Response.SCHEMA``) in the order of the prompts, then of the samples."""
        if self._table is not None:
            return self._table
        return pa.concat_tables(pq.read_table(path) for path in self.paths)

    def batches(self, rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Yield the responses in batches, for tables that are larger than memory."""
        if self._table is not None:
            yield from self._table.to_batches(max_chunksize=rows)
            return
        for path in self.paths:
            yield from pq.ParquetFile(path).iter_batches(batch_size=rows)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the responses and their files, as plain values."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("paths", "_table")]
        return {name: getattr(self, name) for name in names}


def load_result(job: Job, folder: Path) -> Generation | None:
    """Return the result that an earlier call has left in a folder; None when there is none.

    Raises:
        UserError: It is the result of another job.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if content["job"] != job.identity:
        raise UserError(
            f"{folder} holds the finished responses of another generation.",
            why=f"Its job is {content['job']}.",
            fix="Give another output folder, or delete this one.",
        )
    (folder / JOURNAL).unlink(missing_ok=True)  # left by a kill between the last two writes
    result = content["result"]
    if "thoughts" in result:  # its name in results of earlier versions
        result["reasoning_counts"] = result.pop("thoughts")
    return Generation(**result, paths=[folder / name for name in content["files"]])


def write_result(
    job: Job,
    folder: Path,
    journal: Journal,
    stats: Stats,
    chat: Chat | ServerChat,
    *,
    price: Price | None,
    warnings: list[str],
) -> Generation:
    """Make the result of a job whose responses are all in the journal, then delete the journal.

    Args:
        job: The job.
        folder: Where the result goes.
        journal: All responses of the job.
        stats: Notes of the job.
        chat: Renders the prompts.
        price: What generating costs, if that is wanted in the result.
        warnings: What looked wrong and was accepted.

    Raises:
        UserError: The disk is full.
    """
    counts = _Counts()
    paths = write_parquet(_records(job, journal, counts), Response.SCHEMA, folder / "data")
    engine, clock = stats.last("engine"), stats.last("clock")
    device_seconds = engine["startup_device_seconds"] + clock["device_seconds"]
    result = Generation(
        model=job.model_name,
        rows=counts.rows,
        prompts=job.prompts.count,
        finish_reasons=dict(counts.finish_reasons),
        failed=_most_common(counts.failed),
        retries=clock["retries"],
        reasoning_counts=dict(counts.reasoning),
        dropped={"too_long": stats.prompts("dropped")},
        cut=stats.prompts("cut"),
        unknown_tokens=stats.prompts("unknown_tokens"),
        duplicated=job.prompts.duplicated,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        seconds=clock["seconds"],
        startup_seconds=engine["startup_seconds"],
        gpu_seconds=round(device_seconds, 3),
        cost=None if price is None else price.of(device_seconds, counts.prompt_tokens, counts.completion_tokens),
        seed=job.seed,
        sampling=job.sampling.model_dump(mode="json"),
        engine={
            **job.engine.model_dump(mode="json"),
            **{key: engine[key] for key in ("version", "device", "dtype", "max_model_len")},
        },
        stop_token_ids=engine["stop_token_ids"],
        template_digest=chat.template_digest,
        first_prompt=_as_seen(chat, job.prompts.first(1)[0]),
        warnings=[*warnings, *_unknown_ends(clock.get("unknown_finish", {}))],
        paths=paths,
    )
    content = {"job": job.identity, "files": [str(p.relative_to(folder)) for p in paths], "result": result.to_json()}
    with storage_errors(folder, KEPT):
        write_json(folder / RESULT, content)
        journal.path.unlink()
    return result


@dataclass
class _Counts:
    rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: Counter[str] = field(default_factory=lambda: Counter(stop=0, length=0, error=0))
    failed: Counter[str] = field(default_factory=Counter)
    reasoning: Counter[str] = field(default_factory=Counter)


def _records(job: Job, journal: Journal, counts: _Counts) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``Response.SCHEMA`` in order, counting them on the way."""
    ids = enumerate(job.prompts.ids())
    at, prompt_id = next(ids)
    for entry in journal.entries():
        prompt, sample = divmod(entry["row"], job.sampling.n)
        while at < prompt:
            at, prompt_id = next(ids)
        counts.rows += 1
        counts.finish_reasons[entry["finish_reason"]] += 1
        counts.prompt_tokens += entry["prompt_tokens"]
        counts.completion_tokens += entry["completion_tokens"]
        if entry["error"] is not None:
            counts.failed[entry["error"]] += 1
        if entry["thought"] is not None:
            counts.reasoning[entry["thought"]] += 1
        yield {**entry, "prompt_id": prompt_id, "sample": sample, "model": job.model_name}


def _as_seen(chat: Chat | ServerChat, messages: Sequence[Message]) -> dict[str, Any]:
    if isinstance(chat, ServerChat):
        return {"messages": chat.messages(messages)}
    token_ids = chat.render(messages)
    return {"text": chat.decode(token_ids), "token_ids": token_ids}


def _unknown_ends(reasons: Mapping[str, int]) -> list[str]:
    """Say which finish reasons of a server are not known, and how they were read."""
    return [
        f"The server ended {count:,} responses with the finish reason {reason!r}, which is not known: they count as "
        "cut at the limit where max_tokens was reached, and else as finished."
        for reason, count in reasons.items()
    ]


def _most_common(failed: Counter[str]) -> dict[str, int]:
    """Return the most frequent reasons with their counts, and the number of all others together."""
    most = dict(failed.most_common(REASONS))
    others = failed.total() - sum(most.values())
    return {**most, "other reasons": others} if others else most
