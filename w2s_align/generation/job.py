"""One job of generation: which answers are missing, how their prompts are made, and what the finished job says.

Reads prompts; writes the journal while it works, then Parquet files and ``generation.json``. The engine is given by
the caller.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.generation.chat import AUDITED_ROWS, Chat
from w2s_align.generation.engines import EngineCache, EngineRun, Request, engine_version
from w2s_align.generation.journal import Journal, disk_errors, write_json, write_parquet
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.prompts import PromptRows
from w2s_align.generation.reasoning import Splitter
from w2s_align.generation.result import Generation
from w2s_align.generation.rows import columns, told_apart
from w2s_align.generation.server_chat import ServerChat
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.generation.stats import Account, Clock, Progress
from w2s_align.records import Message, Response
from w2s_align.shards import PARTS

FORMAT = 2
SHARDS = "shards"
"""Folder of the processes of a generation on several devices, beside the journal; see ``shards.py``."""
REASONS = 20
"""How many different reasons of failures are kept with their counts; the rest is counted together."""


def request_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Return the seed of one answer: 53 bits of SHA-256, so that it survives JSON readers that know only doubles."""
    digest = hashlib.sha256(f"{seed}/{prompt_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


@dataclass(frozen=True)
class Job:
    """One model, one set of different prompts, one way of sampling. Row ``i * n + s`` is sample s of prompt i."""

    model: ModelFiles
    model_name: str
    prompts: PromptRows
    sampling: Sampling
    engine: Engine
    seed: int

    @property
    def answers(self) -> int:
        """How many answers are wanted, those to dropped prompts included."""
        return self.prompts.count * self.sampling.n

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that must be equal for the answers of an earlier attempt to belong to this job."""
        return {
            "format": FORMAT,
            "model": self.model_name,
            "config": hashlib.sha256(json.dumps(dict(self.model.config), sort_keys=True).encode()).hexdigest()[:16],
            "sampling": self.sampling.model_dump(mode="json"),
            "engine": self.engine.model_dump(mode="json"),
            "seed": self.seed,
            "prompts": self.prompts.digest,
            "duplicated": len(self.prompts.duplicated),
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
        identity = self.identity
        with closing(Journal(folder / "journal.jsonl", identity, self.answers)) as journal:
            account = Account(journal)
            if (folder / PARTS).exists():
                from w2s_align.generation.shards import collect_parts

                collect_parts(folder, self, journal, account)
            chat, warnings = self.complete(journal, account, engines, resources, progress)
            if journal.done + journal.failed == 0:
                raise UserError(
                    f"None of the {self.prompts.count} prompts fits.",
                    why=f"The context of {self.model.name} is {account.last('engine')['max_model_len']} tokens.",
                    fix="Raise engine.max_model_len or engine.max_prompt_tokens, or set engine.too_long: cut_left.",
                )
            result = self._result(folder, chat, journal, account, resources, warnings)
            content = {
                "job": identity,
                "files": [str(p.relative_to(folder)) for p in result.paths],
                "result": result.to_json(),
            }
            write_json(folder / "generation.json", content)
            with disk_errors(folder):
                journal.path.unlink()
        return result

    def complete(
        self,
        journal: Journal,
        account: Account,
        engines: EngineCache,
        resources: EngineResources,
        progress: Progress | None,
    ) -> tuple[Chat | ServerChat, list[str]]:
        """Make the answers that a journal lacks; what killed processes have left beside it is taken first.

        Returns:
            How prompts are rendered, and what looked odd in the first of them.
        """
        chat = ServerChat(self.engine) if self.engine.api == "chat" else Chat(self.model, self.engine)
        first = self.prompts.first(AUDITED_ROWS)
        _check_turns(first)
        warnings = chat.audit(first)
        if (journal.path.parent / SHARDS).exists():
            from w2s_align.generation.data_parallel import collect_shards

            collect_shards(journal.path.parent, self, journal, account)
        if journal.done + account.count("dropped") * self.sampling.n < journal.wanted:
            self.answer(chat, journal, account, engines, resources, progress)
            journal.sync(now=True)
        return chat, warnings

    def answer(
        self,
        chat: Chat | ServerChat,
        journal: Journal,
        account: Account,
        engines: EngineCache,
        resources: EngineResources,
        progress: Progress | None,
    ) -> None:
        """Make the answers that the journal does not have, with one engine or with one on each part of the devices."""
        stop_token_ids = [] if isinstance(chat, ServerChat) else chat.stop_token_ids()
        start = time.monotonic()
        run: EngineRun
        splitter: Splitter | None = None
        if resources.data_parallel_size > 1:
            from w2s_align.generation.data_parallel import Shards

            engines.close()  # its memory is the shards' now
            run = Shards(self, journal.path.parent, journal, account, resources)
        else:
            run = engines.get(self.model, self.engine, resources)
            splitter = self._splitter(chat)
        startup, before = time.monotonic() - start, account.last("engine")
        account.note(
            "engine",
            version=engine_version(run.name),
            device=run.device,
            dtype=run.dtype,
            max_model_len=run.context_length,
            stop_token_ids={} if isinstance(chat, ServerChat) else {str(i): chat.decode([i]) for i in stop_token_ids},
            startup_seconds=before.get("startup_seconds", 0.0) + startup,
            startup_device_seconds=before.get("startup_device_seconds", 0.0) + run.devices * startup,
        )
        if isinstance(chat, ServerChat):
            requests = self._messages(chat, journal)
        else:
            limit = self._prompt_limit(run)
            if self.engine.too_long == "error":
                self._refuse_long(chat, limit)
            requests = self._requests(chat, journal, account, limit)
        clock = Clock(journal, account, journal.wanted, self.sampling.n, run.devices, progress)
        reasons: Counter[str] = Counter()
        with closing(run.run(requests, self.sampling, stop_token_ids)) as steps:
            for completions in steps:
                if completions:
                    if splitter is not None:  # else the shards have done it
                        completions = [told_apart(done, splitter) for done in completions]
                    journal.append([(done.request.row, columns(done)) for done in completions])
                    reasons.update(done.error for done in completions if done.error is not None)
                clock.tick(completions)
                if reasons.total() > resources.max_failed_share * journal.wanted:
                    clock.stop()
                    raise _too_many_failed(reasons, journal.wanted, resources)
        clock.stop()

    def _splitter(self, chat: Chat | ServerChat) -> Splitter:
        if isinstance(chat, ServerChat):
            return Splitter(self.engine.thinking, self.engine.think_tags)
        return chat.splitter(self.prompts.first(1)[0])

    def _prompt_limit(self, run: EngineRun) -> int:
        context, engine = run.context_length, self.engine
        if context is None:  # a server that does not tell, and a model whose files do not either
            return engine.max_prompt_tokens or sys.maxsize
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

    def _messages(self, chat: ServerChat, journal: Journal) -> Iterator[Request]:
        """Yield what is missing, as messages."""
        n = self.sampling.n
        for start, batch in self.prompts.batches():
            chats = batch.column("messages").to_pylist()
            _check_turns(chats)
            for i, prompt_id in enumerate(batch.column("id").to_pylist()):
                for sample in range(n):
                    row = (start + i) * n + sample
                    if not journal.has(row):
                        yield Request(row, [], self._seed(prompt_id, sample), chat.messages(chats[i]))

    def _requests(self, chat: Chat, journal: Journal, account: Account, limit: int) -> Iterator[Request]:
        """Yield what is missing, rendering a batch of prompts at a time."""
        n = self.sampling.n
        for start, batch in self.prompts.batches():
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
        for _, batch in self.prompts.batches():
            chats = batch.column("messages").to_pylist()
            _check_turns(chats)
            lengths = [len(token_ids) for token_ids in chat.render_batch(chats)]
            over = [(i, tokens) for i, tokens in enumerate(lengths) if tokens > limit]
            count += len(over)
            long += [f"{batch.column('id')[i].as_py()} ({tokens} tokens)" for i, tokens in over[: 3 - len(long)]]
        if count:
            raise UserError(
                f"{count} of {self.prompts.count} prompts have more than {limit} tokens, e.g. {', '.join(long)}.",
                fix="Set engine.too_long to drop, cut_left or cut_right, or raise engine.max_model_len.",
            )

    def _seed(self, prompt_id: str, sample: int) -> int | None:
        return None if self.sampling.temperature == 0 else request_seed(self.seed, prompt_id, sample)

    def _result(
        self,
        folder: Path,
        chat: Chat | ServerChat,
        journal: Journal,
        account: Account,
        resources: EngineResources,
        warnings: list[str],
    ) -> Generation:
        total = prompt_tokens = completion_tokens = 0
        reasons: Counter[str] = Counter(stop=0, length=0, error=0)
        failed: Counter[str] = Counter()
        thoughts: Counter[str] = Counter()

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal total, prompt_tokens, completion_tokens
            ids = enumerate(self.prompts.ids())
            at, prompt_id = next(ids)
            for entry in journal.rows():
                prompt, sample = divmod(entry["row"], self.sampling.n)
                while at < prompt:
                    at, prompt_id = next(ids)
                reasons[entry["finish_reason"]] += 1
                total += 1
                prompt_tokens += entry["prompt_tokens"]
                completion_tokens += entry["completion_tokens"]
                if entry["error"] is not None:
                    failed[entry["error"]] += 1
                if entry["thought"] is not None:
                    thoughts[entry["thought"]] += 1
                entry.update(prompt_id=prompt_id, sample=sample, model=self.model_name)
                yield entry

        paths = write_parquet(rows(), Response.SCHEMA, folder / "data")
        loaded, clock = account.last("engine"), account.last("clock")
        device_seconds = loaded["startup_device_seconds"] + clock["device_seconds"]
        return Generation(
            model=self.model_name,
            rows=total,
            prompts=self.prompts.count,
            finish_reasons=dict(reasons),
            failed=_most(failed),
            retries=clock["retries"],
            thoughts=dict(thoughts),
            dropped={"too_long": account.prompts("dropped")},
            cut=account.prompts("cut"),
            unknown_tokens=account.prompts("unknown_tokens"),
            duplicated=self.prompts.duplicated,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            seconds=clock["seconds"],
            startup_seconds=loaded["startup_seconds"],
            gpu_seconds=round(device_seconds, 3),
            cost=None
            if resources.price is None
            else resources.price.of(device_seconds, prompt_tokens, completion_tokens),
            seed=self.seed,
            sampling=self.sampling.model_dump(mode="json"),
            engine={
                **self.engine.model_dump(mode="json"),
                **{key: loaded[key] for key in ("version", "device", "dtype", "max_model_len")},
            },
            stop_token_ids=loaded["stop_token_ids"],
            template_digest=chat.template_digest,
            first_prompt=_shown(chat, self.prompts.first(1)[0]),
            warnings=warnings,
            paths=paths,
        )


def _too_many_failed(reasons: Counter[str], wanted: int, resources: EngineResources) -> UserError:
    most, times = reasons.most_common(1)[0]
    return UserError(
        f"{reasons.total()} of {wanted} answers failed for good, more than the "
        f"{resources.max_failed_share:.1%} that resources.max_failed_share allows.",
        why=f"Most often ({times} times): {most}",
        fix="What is finished is kept. Mend the cause and run the same command again: only the rest is asked for. "
        "Or raise resources.max_failed_share, to go on without these answers.",
    )


def _check_turns(chats: Sequence[Sequence[Message]]) -> None:
    for messages in chats:
        if not messages or messages[-1]["role"] == "assistant":
            raise UserError(
                f"A prompt {'has no turns' if not messages else 'ends with a turn of the assistant'}.",
                fix="Every prompt needs messages of which the last is the user's.",
            )


def _shown(chat: Chat | ServerChat, messages: Sequence[Message]) -> dict[str, Any]:
    if isinstance(chat, ServerChat):
        return {"messages": chat.messages(messages)}
    token_ids = chat.render(messages)
    return {"text": chat.decode(token_ids), "token_ids": token_ids}


def _most(failed: Counter[str]) -> dict[str, int]:
    """The most frequent reasons with their counts, and how many others there are."""
    most = dict(failed.most_common(REASONS))
    others = failed.total() - sum(most.values())
    return {**most, "other reasons": others} if others else most
