"""One attempt at a job: collect what earlier attempts have left, generate what is missing, write the result.

Reads prompts; writes the journal while it works, then the result. The engine is given by the caller.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from w2s_align.errors import UserError
from w2s_align.generation.chat import Chat
from w2s_align.generation.chat_audit import AUDITED_PROMPTS, audit
from w2s_align.generation.completions import split_reasoning, storable, to_columns
from w2s_align.generation.data_parallel import DataParallelRun, collect_processes
from w2s_align.generation.engines import EngineCache, EngineRun, engine_version
from w2s_align.generation.examples import check_examples
from w2s_align.generation.job import Job
from w2s_align.generation.journal import Journal
from w2s_align.generation.reasoning import Splitter
from w2s_align.generation.requests import (
    check_turns,
    message_requests,
    prompt_limit,
    refuse_long_prompts,
    rendered_requests,
)
from w2s_align.generation.result import JOURNAL, Generation, write_result
from w2s_align.generation.row_check import ROW_COLUMNS
from w2s_align.generation.server_chat import ServerChat
from w2s_align.generation.settings import EngineResources
from w2s_align.generation.shards import collect_shards
from w2s_align.generation.stats import Clock, Progress, Stats


class Attempt:
    """One attempt at a job, or at some of its rows.

    Args:
        job: The job.
        journal: Where the responses go.
        engines: Gives the engine.
        resources: How much of the machine the engine takes.
        progress: See :data:`~.stats.Progress`.
    """

    def __init__(
        self,
        job: Job,
        journal: Journal,
        engines: EngineCache,
        resources: EngineResources,
        progress: Progress | None = None,
    ) -> None:
        self.job, self.journal, self.engines = job, journal, engines
        self.resources, self.progress = resources, progress
        self.stats = Stats(journal)
        self.chat = ServerChat(job.engine) if job.engine.api == "chat" else Chat(job.model, job.engine)

    def complete(self) -> list[str]:
        """Generate the responses that the journal lacks; what killed processes have left is collected first.

        Returns:
            What looked odd in the first prompts.

        Raises:
            UserError: See :func:`~.generate.generate`.
        """
        folder, job = self.journal.path.parent, self.job
        first = job.prompts.first(AUDITED_PROMPTS)
        check_turns(first)
        if job.prompts.examples is not None and not isinstance(self.chat, ServerChat):
            check_examples(self.chat, job.prompts.examples)
        warnings = self.chat.audit(first) if isinstance(self.chat, ServerChat) else audit(self.chat, first)
        collect_processes(folder, self.journal, self.stats)
        if self.journal.done + self.stats.count("dropped") * job.sampling.n < self.journal.requested:
            self.generate()
            self.journal.sync(now=True)
        return warnings

    def generate(self) -> None:
        """Generate the responses that the journal lacks, with one engine or with several side by side.

        Raises:
            UserError: See :func:`~.generate.generate`.
        """
        job, journal, stats, chat = self.job, self.journal, self.stats, self.chat
        stop_tokens = {} if isinstance(chat, ServerChat) else {i: chat.decode([i]) for i in chat.stop_token_ids()}
        start = time.monotonic()
        run, splitter = self._open_engine()
        startup, before = time.monotonic() - start, stats.last("engine")
        stats.note(
            "engine",
            version=engine_version(run.name),
            device=run.device,
            dtype=run.dtype,
            max_model_len=run.context_length,
            stop_token_ids={str(i): text for i, text in stop_tokens.items()},
            startup_seconds=before.get("startup_seconds", 0.0) + startup,
            startup_device_seconds=before.get("startup_device_seconds", 0.0) + run.devices * startup,
        )
        if isinstance(chat, ServerChat):
            requests = message_requests(job, chat, journal)
        else:
            limit = prompt_limit(job, run.context_length)
            if job.engine.too_long == "error":
                refuse_long_prompts(job, chat, limit)
            requests = rendered_requests(job, chat, journal, stats, limit)
        clock = Clock(journal, stats, job.sampling.n, run.devices, self.progress)
        failures: Counter[str] = Counter()
        with closing(run.run(requests, job.sampling, list(stop_tokens))) as steps:
            for completions in steps:
                completions = [storable(completion) for completion in completions]
                if completions:
                    if splitter is not None:
                        completions = [split_reasoning(completion, splitter) for completion in completions]
                    journal.append([(completion.request.row, to_columns(completion)) for completion in completions])
                    failures.update(completion.error for completion in completions if completion.error is not None)
                clock.tick(completions)
                if failures.total() > self.resources.max_failed_share * journal.requested:
                    clock.stop()
                    raise _too_many_failed(failures, journal.requested, self.resources)
        clock.stop()

    def _open_engine(self) -> tuple[EngineRun, Splitter | None]:
        """Return the engine, and what splits reasoning off; None where its processes do that themselves."""
        job = self.job
        if self.resources.data_parallel_size > 1:
            self.engines.close()  # the processes need its memory
            return DataParallelRun(job, self.journal, self.stats, self.resources), None
        run = self.engines.get(job.model, job.engine, self.resources)
        if isinstance(self.chat, ServerChat):
            return run, Splitter(job.engine.thinking, job.engine.think_tags)
        return run, self.chat.splitter(job.prompts.first(1)[0])


def run_job(
    job: Job, folder: Path, engines: EngineCache, resources: EngineResources, progress: Progress | None
) -> Generation:
    """Generate the responses that a folder lacks, and write the result into it.

    Args:
        job: The job.
        folder: The job's folder.
        engines: See :class:`Attempt`, as for the arguments below.
        resources: How much of the machine the engine takes.
        progress: Called about twice a second.

    Raises:
        UserError: See :func:`~.generate.generate`.
    """
    with closing(Journal(folder / JOURNAL, job.identity, job.rows, required=ROW_COLUMNS)) as journal:
        attempt = Attempt(job, journal, engines, resources, progress)
        collect_shards(folder, journal, attempt.stats)
        warnings = [*journal.warnings, *attempt.complete()]
        if journal.done + journal.failed == 0:
            raise UserError(
                f"All {job.prompts.count} prompts are too long.",
                why=f"The context of {job.model.name} is {attempt.stats.last('engine')['max_model_len']} tokens.",
                fix="Raise engine.max_model_len or engine.max_prompt_tokens, or set engine.too_long: cut_left.",
            )
        return write_result(
            job, folder, journal, attempt.stats, attempt.chat, price=resources.price, warnings=warnings
        )


def _too_many_failed(failures: Counter[str], requested: int, resources: EngineResources) -> UserError:
    reason, times = failures.most_common(1)[0]
    return UserError(
        f"{failures.total()} of {requested} responses failed for good, more than the "
        f"{resources.max_failed_share:.1%} that resources.max_failed_share allows.",
        why=f"Most often ({times} times): {reason}",
        fix="Finished responses are kept. Fix the cause and run the same command again; only the missing ones are "
        "requested. Or raise resources.max_failed_share to continue without them.",
    )
