"""One generation on several devices of this machine: independent processes, with files as their only contact.

Reads and writes the folder ``shards`` beside the journal. ``job.json`` and ``prompts.parquet`` say what to do; process
K has ``K.rows`` (the answers that are its own), ``K.jsonl`` (its journal), ``K.log`` and, when it refuses the job,
``K.error.json``. The parent reads the journals as they grow and copies every answer into its own; what a killed
attempt has left is copied first of all. Each process is a run of this file.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.generation.chat import Chat
from w2s_align.generation.engines import Completion, EngineCache, Request
from w2s_align.generation.engines.devices import visible_gpus
from w2s_align.generation.job import SHARDS, Job
from w2s_align.generation.journal import Journal, disk_errors
from w2s_align.generation.models import find_model
from w2s_align.generation.prompts import PromptRows
from w2s_align.generation.rows import columns
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling
from w2s_align.generation.stats import PROMPT_EVENTS, Account
from w2s_align.processes import PARENT, die_with_parent

POLL_SECONDS = 0.1
COPIED_AT_ONCE = 2_000


class Shards:
    """The processes of one attempt; to its caller an engine that needs no requests, see ``engines.base.EngineRun``.

    Its constructor returns when the first process is ready to answer.

    Args:
        job: What is wanted.
        folder: The job's folder.
        journal: The job's journal, to which all answers go.
        account: Where what happened to prompts goes.
        resources: ``data_parallel_size`` processes share the devices; each gets as many as one engine takes.

    Raises:
        UserError: There are too few devices, or a process has refused the job or died.
    """

    def __init__(self, job: Job, folder: Path, journal: Journal, account: Account, resources: EngineResources) -> None:
        if job.engine.name in ("openai", "ray"):
            raise UserError(
                f"resources.data_parallel_size {resources.data_parallel_size} is for engines on this machine.",
                fix="For a server set resources.concurrency, for a Ray cluster resources.replicas.",
            )
        self._folder = folder / SHARDS
        self._journal = journal
        self._account = account
        shares = device_shares(resources)
        parts = [part for part in _parts(job, journal, len(shares)) if part]
        spread = resources.tensor_parallel_size * resources.pipeline_parallel_size
        self._write(job, resources, parts)
        self._shards = [_Shard(self._folder, number, shares[number]) for number in range(len(parts))]
        try:
            running = True
            while running and not any(shard.engine for shard in self._shards):
                time.sleep(POLL_SECONDS)
                running = self._running()
                self._waiting = self._read()
            first = next((shard.engine for shard in self._shards if shard.engine), None)
            if first is None:
                raise UserError("The processes ended without a word.", fix=f"Their logs are {self._folder}/*.log.")
        except BaseException:
            self.close()
            raise
        self.name: EngineName = job.engine.name  # type: ignore[assignment]  # resolved by generate()
        self.dtype: str = first["dtype"]
        self.device: str = first["device"]
        self.devices = spread * len(parts) if visible_gpus() else 0
        self.context_length: int | None = first["max_model_len"]

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Yield the answers of all processes as they come; the arguments are not looked at."""
        try:
            yield self._waiting
            running = True
            while running:
                time.sleep(POLL_SECONDS)
                running = self._running()  # asked before reading, so that the last words are read too
                yield self._read()
        finally:
            self.close()
        self._journal.sync(now=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """End the processes that still run; their finished answers stay."""
        for shard in self._shards:
            shard.end()

    def _write(self, job: Job, resources: EngineResources, parts: list[array[int]]) -> None:
        with disk_errors(self._folder):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            batches = (batch for _, batch in job.prompts.batches())
            first = next(batches)
            with pq.ParquetWriter(self._folder / "prompts.parquet", first.schema) as writer:
                writer.write_batch(first)
                for batch in batches:
                    writer.write_batch(batch)
            for number, part in enumerate(parts):
                (self._folder / f"{number}.rows").write_bytes(part.tobytes())
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
        """Return whether a process still works.

        Raises:
            UserError: One of them has refused the job, or died.
        """
        codes = [shard.process.poll() for shard in self._shards]
        for number, code in enumerate(codes):
            if code not in (None, 0):
                self._read_into_journal()
                raise self._shards[number].failure(len(codes), code)
        return None in codes

    def _read(self) -> list[Completion]:
        completions: list[Completion] = []
        for shard in self._shards:
            for entry in shard.read():
                if "row" in entry:
                    completions.append(_completion(entry))
                else:
                    _take_note(entry, self._account)
        return completions

    def _read_into_journal(self) -> None:
        rows = [(done.request.row, columns(done)) for done in self._read()]
        if rows:
            self._journal.append(rows)


class _Shard:
    """One process, as its parent sees it."""

    def __init__(self, folder: Path, number: int, share: dict[str, str]) -> None:
        self._folder = folder
        self._number = number
        self._journal = folder / f"{number}.jsonl"
        self._at = 0
        self.engine: dict[str, Any] | None = None
        with (folder / f"{number}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "w2s_align.generation.data_parallel", str(folder), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **share, PARENT: str(os.getpid())},
            )

    def read(self) -> list[dict[str, Any]]:
        """Return what the process has written since the last time; an unfinished line waits for its end."""
        if not self._journal.exists():
            return []
        with self._journal.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        entries = [json.loads(line) for line in data.splitlines()]
        for entry in entries:
            if entry.get("note") == "engine":
                self.engine = entry
        return entries

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def failure(self, shards: int, code: int) -> UserError:
        refusal = self._folder / f"{self._number}.error.json"
        if refusal.exists():
            return UserError.from_json(json.loads(refusal.read_text()))
        log = self._folder / f"{self._number}.log"
        lines = log.read_text(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return UserError(
            f"Process {self._number + 1} of {shards} of the generation {how}.",
            why=lines[-1] if lines else "It said nothing; killed processes often mean that the memory is full.",
            fix=f"Run the same command again: finished answers are kept, and it goes on. The process's log is {log}.",
        )


def device_shares(resources: EngineResources) -> list[dict[str, str]]:
    """Return the environment of each process: its own GPUs, or its own cores where there are none.

    Raises:
        UserError: There are fewer devices than processes need.
    """
    wanted = resources.data_parallel_size
    spread = resources.tensor_parallel_size * resources.pipeline_parallel_size
    gpus = visible_gpus()
    cores = [str(core) for core in _cores()]
    things, each = (gpus, spread) if gpus else (cores, 1)
    if wanted * each > len(things):
        raise UserError(
            f"resources.data_parallel_size {wanted} needs {wanted * each} {'GPUs' if gpus else 'CPU cores'}, "
            f"but there {'is' if len(things) == 1 else 'are'} {len(things)}.",
            why=f"Each of the {wanted} engines takes {each}"
            + (f" (tensor_parallel_size x pipeline_parallel_size = {spread})." if gpus else "; there is no GPU here."),
            fix=f"Set resources.data_parallel_size to at most {len(things) // each}.",
        )
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * each : (i + 1) * each])} for i in range(wanted)]
    own = [cores[i::wanted] for i in range(wanted)]
    return [{"W2S_CORES": ",".join(part), "OMP_NUM_THREADS": str(len(part))} for part in own]


def collect_shards(folder: Path, job: Job, journal: Journal, account: Account) -> None:
    """Copy into the journal what the processes of a killed attempt have finished, then delete their folder.

    Raises:
        UserError: One of them still runs, or the files are those of another job.
    """
    for path in sorted((folder / SHARDS).glob("*.jsonl")):
        copy_answers(path, job, journal, account)
    journal.sync(now=True)
    shutil.rmtree(folder / SHARDS, ignore_errors=True)


def copy_answers(path: Path, job: Job, journal: Journal, account: Account) -> dict[str, dict[str, Any]]:
    """Copy the answers of another journal of the same job, and what happened to its prompts; return all its notes.

    Raises:
        UserError: A process still writes it, or it is that of another job.
    """
    with closing(Journal(path, job.identity, job.answers)) as part:
        missing = ((entry.pop("row"), entry) for entry in part.rows() if not journal.has(entry["row"]))
        while some := list(itertools.islice(missing, COPIED_AT_ONCE)):
            journal.append(some)
        for key, values in part.notes.items():
            _take_note({"note": key, **values}, account)
        return part.notes


def _parts(job: Job, journal: Journal, count: int) -> list[array[int]]:
    """Deal the prompts whose answers are missing to the processes, one after the other."""
    parts = [array("q") for _ in range(count)]
    n, turn = job.sampling.n, 0
    for prompt in range(job.prompts.count):
        rows = [row for row in range(prompt * n, (prompt + 1) * n) if not journal.has(row)]
        if rows:
            parts[turn % count].extend(rows)
            turn += 1
    return parts


def _completion(entry: dict[str, Any]) -> Completion:
    return Completion(
        Request(entry["row"], [], entry["seed"]),
        **{name: entry[name] for name in entry if name not in ("row", "seed")},
    )


def _take_note(entry: dict[str, Any], account: Account) -> None:
    event, _, prompt_id = str(entry.get("note")).partition("/")
    for known in PROMPT_EVENTS:
        if event == known:
            account.prompt(known, prompt_id, entry["tokens"])


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _answer(folder: Path, number: int) -> None:
    """Be one of the processes: answer the rows of ``NUMBER.rows`` into ``NUMBER.jsonl``."""
    if cores := os.environ.get("W2S_CORES"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    content = json.loads((folder / "job.json").read_text())
    engine = Engine(**content["engine"])
    model = find_model(content["model"], engine.revision)
    prompts = PromptRows(folder / "prompts.parquet")
    job = Job(model, content["model_name"], prompts, Sampling(**content["sampling"]), engine, content["seed"])
    rows = array("q")
    rows.frombytes((folder / f"{number}.rows").read_bytes())
    journal = Journal(folder / f"{number}.jsonl", content["identity"], job.answers, only=rows)
    with closing(journal), EngineCache() as engines:
        resources = EngineResources(**content["resources"])
        job.answer(Chat(model, engine), journal, Account(journal), engines, resources, None)
        journal.sync(now=True)


def main() -> None:
    """Run one process of a generation: ``python -m w2s_align.generation.data_parallel FOLDER NUMBER``."""
    die_with_parent()
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    try:
        _answer(folder, number)
    except UserError as error:
        (folder / f"{number}.error.json").write_text(json.dumps(error.to_json()))
        sys.exit(2)


if __name__ == "__main__":
    main()
