"""One job of generation: which answers are missing, how their prompts are made, and what the finished job says.

Reads prompts; writes the journal while it works, then Parquet files and ``generation.json``. The engine is given by
the caller.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.generation.account import Account, Clock, Progress
from w2s_align.generation.chat import AUDITED_ROWS, Chat
from w2s_align.generation.engines import Completion, EngineCache, EngineRun, Request, engine_version
from w2s_align.generation.journal import Journal, disk_errors, write_json, write_parquet
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.result import Generation
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.records import Message, Prompt, Response, to_table

FORMAT = 1
RENDER_BATCH = 256

Prompts: TypeAlias = pa.Table | Sequence[Prompt] | Sequence[str]


def request_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Return the seed of one answer: 53 bits of SHA-256, so that it survives JSON readers that know only doubles."""
    digest = hashlib.sha256(f"{seed}/{prompt_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


def different_prompts(prompts: Prompts) -> tuple[pa.Table, list[str]]:
    """Return a table of the different prompts in their order, and the ids that were given more than once.

    Raises:
        UserError: There are no prompts, or the table has no prompts in it.
    """
    if isinstance(prompts, pa.Table):
        missing = [name for name in ("id", "messages") if name not in prompts.column_names]
        if missing:
            raise UserError(
                f"The table of prompts has no column {' and no column '.join(missing)}.",
                why=f"Its columns are: {', '.join(prompts.column_names)}.",
                fix="Give a table of records.Prompt.SCHEMA.",
            )
        table = prompts
    else:
        table = to_table([Prompt.of(p) if isinstance(p, str) else p for p in prompts], Prompt)
    if table.num_rows == 0:
        raise UserError("There are no prompts to answer.", fix="Check the source of the prompts and its filters.")
    table = table.select(["id", "messages"])
    first: dict[str, int] = {}
    repeated: dict[str, None] = {}
    for i, prompt_id in enumerate(table["id"].to_pylist()):
        if first.setdefault(prompt_id, i) != i:
            repeated[prompt_id] = None
    if repeated:
        table = table.take(pa.array(list(first.values())))
    return table, list(repeated)


@dataclass(frozen=True)
class Job:
    """One model, one set of different prompts, one way of sampling. Row ``i * n + s`` is sample s of prompt i."""

    model: ModelFiles
    model_name: str
    prompts: pa.Table
    duplicated: list[str]
    sampling: Sampling
    engine: Engine
    seed: int

    @property
    def answers(self) -> int:
        """How many answers are wanted, those to dropped prompts included."""
        return self.prompts.num_rows * self.sampling.n

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that must be equal for the answers of an earlier attempt to belong to this job."""
        ids = self.prompts["id"].to_pylist()
        return {
            "format": FORMAT,
            "model": self.model_name,
            "config": hashlib.sha256(json.dumps(dict(self.model.config), sort_keys=True).encode()).hexdigest()[:16],
            "sampling": self.sampling.model_dump(mode="json"),
            "engine": self.engine.model_dump(mode="json"),
            "seed": self.seed,
            "prompts": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16],
            "duplicated": len(self.duplicated),
        }

    def finished(self, folder: Path) -> Generation | None:
        """Return the result that an earlier call has left, if it is of this job."""
        path = folder / "generation.json"
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        if content["job"] != self.identity:
            raise UserError(
                f"{folder} holds the finished answers of another generation.",
                why=f"Its job is {content['job']}.",
                fix="Give another output folder, or delete this one.",
            )
        (folder / "journal.jsonl").unlink(missing_ok=True)  # left by a kill between the last two writes
        return Generation(**content["result"], paths=[folder / name for name in content["files"]])

    def run(
        self, folder: Path, engines: EngineCache, resources: EngineResources, progress: Progress | None
    ) -> Generation:
        """Make the answers that are missing, then the result."""
        chat = Chat(self.model, self.engine)
        first = self.prompts["messages"][:AUDITED_ROWS].to_pylist()
        _check_turns(first)
        warnings = chat.audit(first)
        identity = self.identity
        with closing(Journal(folder / "journal.jsonl", identity, self.answers)) as journal:
            account = Account(journal)
            if journal.done + len(account.prompts["dropped"]) * self.sampling.n < self.answers:
                self._answer(chat, journal, account, engines, resources, progress)
                journal.sync(now=True)
            if journal.done == 0:
                raise UserError(
                    f"None of the {self.prompts.num_rows} prompts fits.",
                    why=f"The context of {self.model.name} is {account.last('engine')['max_model_len']} tokens.",
                    fix="Raise engine.max_model_len or engine.max_prompt_tokens, or set engine.too_long: cut_left.",
                )
            result = self._result(folder, chat, journal, account, warnings)
            content = {
                "job": identity,
                "files": [str(p.relative_to(folder)) for p in result.paths],
                "result": result.to_json(),
            }
            write_json(folder / "generation.json", content)
            with disk_errors(folder):
                journal.path.unlink()
        return result

    def _answer(
        self,
        chat: Chat,
        journal: Journal,
        account: Account,
        engines: EngineCache,
        resources: EngineResources,
        progress: Progress | None,
    ) -> None:
        stop_token_ids = chat.stop_token_ids()
        start = time.monotonic()
        run = engines.get(self.model, self.engine, resources)
        account.note(
            "engine",
            version=engine_version(run.name),
            device=run.device,
            dtype=run.dtype,
            max_model_len=run.context_length,
            stop_token_ids={str(i): chat.decode([i]) for i in stop_token_ids},
            startup_seconds=time.monotonic() - start,
        )
        limit = self._prompt_limit(run)
        if self.engine.too_long == "error":
            self._refuse_long(chat, limit)
        clock = Clock(journal, account, self.answers, self.sampling.n, progress)
        requests = self._requests(chat, journal, account, limit)
        with closing(run.run(requests, self.sampling, stop_token_ids)) as steps:
            for completions in steps:
                rows = [(done.request.row, _columns(done)) for done in completions]
                if rows:
                    journal.append(rows)
                clock.tick(sum(done.completion_tokens for done in completions))
        clock.stop()

    def _prompt_limit(self, run: EngineRun) -> int:
        context, engine = run.context_length, self.engine
        if engine.max_prompt_tokens is not None:
            if engine.max_prompt_tokens >= context:
                raise UserError(
                    f"max_prompt_tokens {engine.max_prompt_tokens} leaves no room for an answer.",
                    why=f"The context of {self.model.name} is {context} tokens.",
                    fix=f"Set engine.max_prompt_tokens below {context}, or leave it out.",
                )
            return engine.max_prompt_tokens
        if engine.too_long in ("cut_left", "cut_right"):
            return max(context - self.sampling.max_tokens, context // 2)
        return context - 1

    def _batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        start = 0
        for batch in self.prompts.select(["id", "messages"]).to_batches(max_chunksize=RENDER_BATCH):
            yield start, batch
            start += batch.num_rows

    def _requests(self, chat: Chat, journal: Journal, account: Account, limit: int) -> Iterator[Request]:
        """Yield what is missing, rendering a batch of prompts at a time."""
        n = self.sampling.n
        for start, batch in self._batches():
            ids = batch.column("id").to_pylist()
            wanted = [
                i
                for i, prompt_id in enumerate(ids)
                if not account.is_dropped(prompt_id) and not all(journal.has((start + i) * n + s) for s in range(n))
            ]
            if not wanted:
                continue
            chats = batch.column("messages").take(pa.array(wanted)).to_pylist()
            _check_turns(chats)
            for i, messages, rendered in zip(wanted, chats, chat.render_batch(chats), strict=True):
                token_ids = self._fitted(chat, ids[i], messages, rendered, limit, account)
                if token_ids is None:
                    continue
                for sample in range(n):
                    row = (start + i) * n + sample
                    if not journal.has(row):
                        yield Request(row, token_ids, self._seed(ids[i], sample))

    def _fitted(
        self,
        chat: Chat,
        prompt_id: str,
        messages: list[dict[str, str]],
        token_ids: list[int],
        limit: int,
        account: Account,
    ) -> list[int] | None:
        """Return the prompt's tokens, cut if need be and allowed; None when it is left out. Either is noted."""
        if chat.has_unknown_tokens(token_ids):
            account.prompt("unknown_tokens", prompt_id, len(token_ids))
        if len(token_ids) <= limit:
            return token_ids
        side = self.engine.too_long
        fitted = chat.cut(messages, limit, side) if side in ("cut_left", "cut_right") else None
        account.prompt("dropped" if fitted is None else "cut", prompt_id, len(token_ids))
        return fitted

    def _refuse_long(self, chat: Chat, limit: int) -> None:
        long: list[str] = []
        count = 0
        for _, batch in self._batches():
            chats = batch.column("messages").to_pylist()
            _check_turns(chats)
            lengths = [len(token_ids) for token_ids in chat.render_batch(chats)]
            over = [(i, tokens) for i, tokens in enumerate(lengths) if tokens > limit]
            count += len(over)
            long += [f"{batch.column('id')[i].as_py()} ({tokens} tokens)" for i, tokens in over[: 3 - len(long)]]
        if count:
            raise UserError(
                f"{count} of {self.prompts.num_rows} prompts have more than {limit} tokens, e.g. {', '.join(long)}.",
                fix="Set engine.too_long to drop, cut_left or cut_right, or raise engine.max_model_len.",
            )

    def _seed(self, prompt_id: str, sample: int) -> int | None:
        return None if self.sampling.temperature == 0 else request_seed(self.seed, prompt_id, sample)

    def _result(self, folder: Path, chat: Chat, journal: Journal, account: Account, warnings: list[str]) -> Generation:
        totals: Counter[str] = Counter()
        reasons: Counter[str] = Counter(stop=0, length=0, error=0)
        ids = self.prompts["id"].combine_chunks()

        def rows() -> Iterator[dict[str, Any]]:
            for entry in journal.rows():
                prompt, sample = divmod(entry["row"], self.sampling.n)
                reasons[entry["finish_reason"]] += 1
                totals.update(rows=1, prompt=entry["prompt_tokens"], completion=entry["completion_tokens"])
                yield {**entry, "prompt_id": ids[prompt].as_py(), "sample": sample, "model": self.model_name}

        paths = write_parquet(rows(), Response.SCHEMA, folder / "data")
        loaded = account.last("engine")
        first_ids = chat.render(self.prompts["messages"][0].as_py())
        return Generation(
            model=self.model_name,
            rows=totals["rows"],
            prompts=self.prompts.num_rows,
            finish_reasons=dict(reasons),
            dropped={"too_long": account.prompts["dropped"]},
            cut=account.prompts["cut"],
            unknown_tokens=account.prompts["unknown_tokens"],
            duplicated=self.duplicated,
            prompt_tokens=totals["prompt"],
            completion_tokens=totals["completion"],
            seconds=account.last("clock")["seconds"],
            startup_seconds=account.startup_seconds,
            seed=self.seed,
            sampling=self.sampling.model_dump(mode="json"),
            engine={
                **self.engine.model_dump(mode="json"),
                **{key: loaded[key] for key in ("version", "device", "dtype", "max_model_len")},
            },
            stop_token_ids=loaded["stop_token_ids"],
            template_digest=chat.template_digest,
            first_prompt={"text": chat.decode(first_ids), "token_ids": first_ids},
            warnings=warnings,
            paths=paths,
        )


def _columns(done: Completion) -> dict[str, Any]:
    return {
        "text": done.text,
        "finish_reason": done.finish_reason,
        "prompt_tokens": len(done.request.token_ids),
        "completion_tokens": done.completion_tokens,
        "seed": done.request.seed,
        "logprob": done.logprob,
        "error": done.error,
    }


def _check_turns(chats: Sequence[Sequence[Message]]) -> None:
    for messages in chats:
        if not messages or messages[-1]["role"] == "assistant":
            raise UserError(
                f"A prompt {'has no turns' if not messages else 'ends with a turn of the assistant'}.",
                fix="Every prompt needs messages of which the last is the user's.",
            )
