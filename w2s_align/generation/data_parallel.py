"""One generation on several devices of this machine: independent processes that communicate only through files.

Reads and writes the folder ``processes`` beside the journal. ``job.json`` and ``prompts.parquet`` say what to do;
process K has ``K.rows`` (the rows that it generates), ``K.jsonl`` (its journal), ``K.log`` and, when it refuses the
job, ``K.error.json``. The parent reads the journals as they grow and copies every response into its own; what a killed
attempt has left is copied first. Each process runs :mod:`~w2s_align.generation.data_parallel_worker`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.files import storage_errors
from w2s_align.generation.completions import from_columns, to_columns
from w2s_align.generation.engines import Completion, Request
from w2s_align.generation.engines.devices import visible_gpus
from w2s_align.generation.job import Job
from w2s_align.generation.journal import KEPT, Journal
from w2s_align.generation.settings import EngineName, EngineResources, Sampling
from w2s_align.generation.stats import Stats
from w2s_align.processes import PARENT

PROCESSES = "processes"
"""Folder of the processes, beside the journal."""
EARLIER_NAME = "shards"
"""Name of that folder in earlier versions, whose unfinished generations are resumed."""
CORES = "W2S_CORES"
"""Environment variable that tells a process on which CPU cores it runs."""
POLL_SECONDS = 0.1
"""Time between two looks at the processes: short beside a response, long beside a read of their journals."""


class DataParallelRun:
    """The processes of one attempt; to its caller an engine that needs no requests, see ``engines.base.EngineRun``.

    Its constructor returns when the first process has loaded the model.

    Args:
        job: The job.
        journal: The job's journal, to which all responses go.
        stats: Where what happened to prompts is noted.
        resources: ``data_parallel_size`` processes share the devices; each gets as many as one engine takes.

    Raises:
        UserError: There are too few devices, or a process has refused the job or died.
    """

    def __init__(self, job: Job, journal: Journal, stats: Stats, resources: EngineResources) -> None:
        if job.engine.name in ("openai", "ray"):
            raise UserError(
                f"resources.data_parallel_size {resources.data_parallel_size} is for engines on this machine.",
                fix="For a server set resources.concurrency, for a Ray cluster resources.replicas.",
            )
        self._folder = journal.path.parent / PROCESSES
        self._journal = journal
        self._stats = stats
        environments = device_environments(resources)
        rows = [own for own in _deal(job, journal, len(environments)) if own]
        gpus_each = resources.tensor_parallel_size * resources.pipeline_parallel_size
        self._write(job, resources, rows)
        self._processes = [_Process(self._folder, number, environments[number]) for number in range(len(rows))]
        self._waiting: list[Completion] = []
        try:
            running = True
            while running and not any(process.engine for process in self._processes):
                time.sleep(POLL_SECONDS)
                running = self._running()
                self._waiting += self._read()
            first = next((process.engine for process in self._processes if process.engine), None)
            if first is None:
                raise UserError(
                    "The processes of the generation exited without an error message.",
                    fix=f"See their logs: {self._folder}/*.log.",
                )
        except BaseException:
            self.close()
            raise
        self.name: EngineName = job.engine.name  # type: ignore[assignment]  # resolved by generate()
        self.dtype: str = first["dtype"]
        self.device: str = first["device"]
        self.devices = gpus_each * len(rows) if visible_gpus() else 0
        self.context_length: int | None = first["max_model_len"]

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Yield the completions of all processes as they arrive; the arguments are ignored."""
        try:
            yield self._waiting
            running = True
            while running:
                time.sleep(POLL_SECONDS)
                running = self._running()  # before reading, so that what an ending process wrote last is read too
                yield self._read()
        finally:
            self.close()
        self._journal.sync(now=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Kill the processes that still run; their finished responses are kept."""
        for process in self._processes:
            process.kill()

    def _write(self, job: Job, resources: EngineResources, rows: list[array[int]]) -> None:
        with storage_errors(self._folder, KEPT):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            batches = (batch for _, batch in job.prompts.batches())
            first = next(batches)
            with pq.ParquetWriter(self._folder / "prompts.parquet", first.schema) as writer:
                writer.write_batch(first)
                for batch in batches:
                    writer.write_batch(batch)
            for number, own in enumerate(rows):
                (self._folder / f"{number}.rows").write_bytes(own.tobytes())
            # Not resources.model_dump(): a step passes a subclass with fields of its own.
            single = {name: getattr(resources, name) for name in EngineResources.model_fields}
            content = {
                "identity": job.identity,
                "model": job.model.name,
                "model_name": job.model_name,
                "sampling": job.sampling.model_dump(mode="json"),
                "engine": job.engine.model_dump(mode="json", exclude_unset=True),
                "resources": EngineResources(**{**single, "data_parallel_size": 1}).model_dump(mode="json"),
                "seed": job.seed,
            }
            (self._folder / "job.json").write_text(json.dumps(content))

    def _running(self) -> bool:
        """Return whether a process is still running.

        Raises:
            UserError: One of them has refused the job, or died.
        """
        codes = [process.popen.poll() for process in self._processes]
        for number, code in enumerate(codes):
            if code not in (None, 0):
                self._read_into_journal()
                raise self._processes[number].failure(len(codes), code)
        return None in codes

    def _read(self) -> list[Completion]:
        completions: list[Completion] = []
        for process in self._processes:
            for entry in process.read():
                if "row" in entry:
                    completions.append(from_columns(entry.pop("row"), entry))
                else:
                    self._stats.take_note(entry)
        return completions

    def _read_into_journal(self) -> None:
        rows = [(completion.request.row, to_columns(completion)) for completion in self._read()]
        if rows:
            self._journal.append(rows)


class _Process:
    """One process, as its parent sees it."""

    def __init__(self, folder: Path, number: int, environment: dict[str, str]) -> None:
        self._folder = folder
        self._number = number
        self._journal = folder / f"{number}.jsonl"
        self._offset = 0
        self.engine: dict[str, Any] | None = None
        with (folder / f"{number}.log").open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "w2s_align.generation.data_parallel_worker", str(folder), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, PARENT: str(os.getpid())},
            )

    def read(self) -> list[dict[str, Any]]:
        """Return what the process has written since the last call; an unfinished line waits for its end."""
        if not self._journal.exists():
            return []
        with self._journal.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        entries = [json.loads(line) for line in data.splitlines()]
        for entry in entries:
            if entry.get("note") == "engine":
                self.engine = entry
        return entries

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def failure(self, processes: int, code: int) -> UserError:
        refusal = self._folder / f"{self._number}.error.json"
        if refusal.exists():
            return UserError.from_json(json.loads(refusal.read_text()))
        log = self._folder / f"{self._number}.log"
        lines = log.read_text(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        return UserError(
            f"Process {self._number + 1} of {processes} of the generation {how}.",
            why=lines[-1] if lines else "Its log is empty; the kernel kills processes when the memory is full.",
            fix=f"Run the same command again; finished responses are kept, and it resumes. Log of the process: {log}",
        )


def device_environments(resources: EngineResources) -> list[dict[str, str]]:
    """Return the environment of each process: its own GPUs, or its own cores where there are none.

    Raises:
        UserError: There are fewer devices than the processes need.
    """
    processes = resources.data_parallel_size
    gpus_each = resources.tensor_parallel_size * resources.pipeline_parallel_size
    gpus = visible_gpus()
    cores = [str(core) for core in _cores()]
    devices, each = (gpus, gpus_each) if gpus else (cores, 1)
    if processes * each > len(devices):
        raise UserError(
            f"resources.data_parallel_size {processes} needs {processes * each} {'GPUs' if gpus else 'CPU cores'}, "
            f"but there {'is' if len(devices) == 1 else 'are'} {len(devices)}.",
            why=f"Each of the {processes} engines takes {each}"
            + (f" (tensor_parallel_size x pipeline_parallel_size = {gpus_each})." if gpus else "; there is no GPU."),
            fix=f"Set resources.data_parallel_size to at most {len(devices) // each}.",
        )
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * each : (i + 1) * each])} for i in range(processes)]
    own = [cores[i::processes] for i in range(processes)]
    return [{CORES: ",".join(some), "OMP_NUM_THREADS": str(len(some))} for some in own]


def collect_processes(folder: Path, journal: Journal, stats: Stats) -> None:
    """Copy into the journal what the processes of a killed attempt have finished, then delete their folder.

    Args:
        folder: Folder of the journal whose processes they were.
        journal: Where the responses go.
        stats: Where what happened to prompts is noted.

    Raises:
        UserError: One of them still runs, or the files belong to another job.
    """
    for left in (folder / PROCESSES, folder / EARLIER_NAME):
        if left.exists():
            for path in sorted(left.glob("*.jsonl")):
                stats.copy_journal(path)
            journal.sync(now=True)
            shutil.rmtree(left, ignore_errors=True)


def _deal(job: Job, journal: Journal, count: int) -> list[array[int]]:
    """Deal the prompts with missing responses to the processes in turn; return the rows of each."""
    rows = [array("q") for _ in range(count)]
    n, turn = job.sampling.n, 0
    for prompt in range(job.prompts.count):
        missing = [row for row in range(prompt * n, (prompt + 1) * n) if not journal.has(row)]
        if missing:
            rows[turn % count].extend(missing)
            turn += 1
    return rows


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):  # the cores that this process may use, on Linux
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
