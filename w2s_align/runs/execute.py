"""Execution of a plan: which step runs when, in which process, with which cores and GPUs.

Steps that fit beside each other run side by side. Each runs in its own process, except that steps which name the same
:meth:`~w2s_align.steps.step.Step.process` are served in turn by one, so that an engine is started once. A step that
fails stops what depends on it; everything else goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from w2s_align.artifacts.store import Store
from w2s_align.errors import Problem
from w2s_align.generation.processes import PARENT
from w2s_align.recipe.schema import Resources
from w2s_align.runs.machine import Machine
from w2s_align.runs.plan import Planned
from w2s_align.runs.worker import Job

State = Literal["cached", "waiting", "running", "done", "part", "failed", "skipped"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a step.

    Attributes:
        name: Name of the node.
        kind: ``cached``, ``started``, ``progress``, ``waiting`` (for a twin), ``done``, ``failed``, ``skipped``.
        done: Progress, in units of the step.
        total: Progress, in units of the step.
        note: Progress in words, e.g. tokens per second and the time left; the reason of a skip.
        seconds: Time since the step started.
    """

    name: str
    kind: str
    done: int = 0
    total: int = 0
    note: str = ""
    seconds: float = 0.0


@dataclass
class Outcome:
    """What became of a plan.

    Attributes:
        states: State of every node; ``part``: its part is done, and others are missing.
        seconds: Seconds of every node that ran.
        problems: What the user has to solve.
        crashes: Name, end of the traceback and log file of every step that broke: a bug, not a mistake of the user.
    """

    states: dict[str, State] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    crashes: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that was to be made is there."""
        return all(state in ("cached", "done", "part") for state in self.states.values())


class _Worker:
    """One worker process, and the job that it is at."""

    def __init__(self, process_name: str | None, cpus: int, gpus: tuple[str, ...]) -> None:
        self.shape = (process_name, cpus, gpus)
        self.cpus, self.gpus = cpus, gpus
        self.job: str | None = None
        self.started = 0.0
        self.buffer = b""
        self.popen = subprocess.Popen(
            [sys.executable, "-c", "from w2s_align.runs.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(cpus, gpus),
            start_new_session=True,  # a Ctrl-C reaches the parent alone, which then stops its workers in order
        )

    def send(self, name: str, job: Job) -> None:
        assert self.popen.stdin is not None
        self.job, self.started = name, time.monotonic()
        self.popen.stdin.write(job.to_line())
        self.popen.stdin.flush()

    def read(self) -> list[dict[str, Any]] | None:
        """Return the events that have come; None when the process has ended."""
        assert self.popen.stdout is not None
        chunk = os.read(self.popen.stdout.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        assert self.popen.stdin is not None and self.popen.stdout is not None
        self.popen.stdin.close()
        try:
            self.popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.popen.stdout.close()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def _environment(cpus: int, gpus: tuple[str, ...]) -> dict[str, str]:
    threads = str(cpus)
    return (
        os.environ
        | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "RAYON_NUM_THREADS": threads,
            "POLARS_MAX_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",  # datasets' forks hang with it: https://github.com/huggingface/datasets/issues/5094
            "PYTHONUNBUFFERED": "1",
            PARENT: str(os.getpid()),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        }
    )


class Executor:
    """Runs the artifacts of a plan that are not there yet.

    Args:
        planned: The plan.
        store: Where artifacts are made.
        machine: What the steps may use.
        on_event: Called for everything that happens, in this process.
        outcome: Filled in while the plan runs.
        only: Make these artifacts alone; all that they read must be there, or be among them.
        part: Of these, make this part: its number, and how many there are.
    """

    def __init__(
        self,
        planned: Mapping[str, Planned],
        store: Store,
        machine: Machine,
        on_event: Callable[[Event], None],
        outcome: Outcome,
        only: Collection[str] | None = None,
        part: tuple[int, int] | None = None,
    ) -> None:
        self._only, self._part = only, part
        self._planned, self._store, self._machine = planned, store, machine
        self._on_event, self.outcome = on_event, outcome
        self._free_cpus, self._free_gpus = machine.cpus, list(machine.gpus)
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until nothing is left that can run.

        Raises:
            KeyboardInterrupt: The user stopped it; all workers are gone, and their work is kept to go on from.
        """
        states = self.outcome.states
        for name, item in self._planned.items():
            if self._only is not None and name not in self._only and item.status != "cached":
                continue
            states[name] = "cached" if item.status == "cached" else "waiting"
            if states[name] == "cached":
                self._on_event(Event(name, "cached"))
        try:
            while True:
                self._start_ready()
                if not self._workers:
                    break
                for key, _ in self._selector.select(timeout=1.0):
                    self._read(key.data)
            self._release(self._idle)
        finally:
            for worker in [*self._workers, *self._idle]:
                worker.kill()
            self._selector.close()
        for name, state in states.items():
            if state == "waiting":
                states[name] = "skipped"
                self._on_event(Event(name, "skipped", note="it reads a step that failed"))

    def _ready(self) -> list[str]:
        states = self.outcome.states
        found: dict[tuple[str, str], str] = {}
        for name, state in states.items():
            sources = self._planned[name].node.inputs.values()
            if state == "waiting" and all(states[source] in ("cached", "done") for source in sources):
                found.setdefault(self._artifact(name), name)
        running = {self._artifact(worker.job) for worker in self._workers if worker.job is not None}
        return [name for artifact, name in found.items() if artifact not in running]

    def _artifact(self, name: str) -> tuple[str, str]:
        return self._planned[name].node.config.kind, self._planned[name].key

    def _start_ready(self) -> None:
        for name in self._ready():
            cpus, count = claim(self._planned[name].node.config.claims(), self._machine)
            if cpus > self._free_cpus or count > len(self._free_gpus):
                continue
            self._free_cpus -= cpus
            gpus, self._free_gpus = tuple(self._free_gpus[:count]), self._free_gpus[count:]
            worker = self._worker(name, cpus, gpus)
            self.outcome.states[name] = "running"
            self._on_event(Event(name, "started", note="" if self._part else self._planned[name].status))
            worker.send(name, self._job(name))
        if self._machine.gpus:  # an idle engine would hold the memory that the next one needs
            self._release(self._idle)

    def _worker(self, name: str, cpus: int, gpus: tuple[str, ...]) -> _Worker:
        process = self._process_name(name)
        worker = next((w for w in self._idle if process is not None and w.shape == (process, cpus, gpus)), None)
        if worker is not None:
            self._idle.remove(worker)
        else:
            worker = _Worker(process, cpus, gpus)
            self._selector.register(worker.popen.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        self._workers.append(worker)
        return worker

    def _process_name(self, name: str) -> str | None:
        return self._planned[name].node.config.process()  # type: ignore[attr-defined]

    def _job(self, name: str) -> Job:
        item = self._planned[name]
        own = [other for other in self._planned.values() if other.recipe is item.recipe]
        names = {f"{p.node.config.kind}/{p.key}": p.node.name for p in own}
        recipe = {**item.recipe.resolved, "text": item.recipe.text, "names": names}
        return Job(
            root=str(self._store.root),
            name=item.node.name,
            config=item.node.config.model_dump(mode="json"),
            key=item.key,
            material=dict(item.material),
            inputs={
                place: {
                    "kind": self._planned[source].node.config.kind,
                    "key": self._planned[source].key,
                    "name": self._planned[source].node.name,
                }
                for place, source in item.node.inputs.items()
            },
            recipe=recipe if item.node.config.shows_recipe else {},
            part=self._part,
        )

    def _read(self, worker: _Worker) -> None:
        events = worker.read()
        if events is None:
            self._ended(worker)
            return
        for event in events:
            name = worker.job
            assert name is not None
            seconds = time.monotonic() - worker.started
            if event["event"] == "progress":
                self._on_event(Event(name, "progress", event["done"], event["total"], event["note"], seconds))
            elif event["event"] == "waiting":
                self._on_event(Event(name, "waiting", note="another process is making the same artifact"))
            else:
                self._finish(worker, name, event, seconds)

    def _finish(self, worker: _Worker, name: str, event: Mapping[str, Any], seconds: float) -> None:
        self._free(worker)
        if event["event"] == "done":
            self.outcome.states[name] = "done"
            self.outcome.seconds[name] = event.get("seconds", seconds)
            self._on_event(Event(name, "done", seconds=seconds))
            self._settle_twins(name, "cached")
        elif event["event"] == "part":
            number, count = self._part or (1, 1)
            self.outcome.states[name] = "part"
            self._on_event(Event(name, "done", note=f"shard {number} of {count}; others are not finished"))
        elif event["event"] == "refused":
            self._fail(name, seconds, [Problem(**p) for p in event["problems"]])
        else:
            self.outcome.crashes.append((name, event["traceback"], event["log"]))
            self._fail(name, seconds)
        if worker.shape[0] is not None and event["event"] == "done" and self._needed(worker):
            self._idle.append(worker)
        else:
            self._release([worker])

    def _needed(self, worker: _Worker) -> bool:
        return any(
            state == "waiting" and self._process_name(name) == worker.shape[0]
            for name, state in self.outcome.states.items()
        )

    def _fail(self, name: str, seconds: float, problems: Sequence[Problem] = ()) -> None:
        self.outcome.states[name] = "failed"
        self.outcome.problems += [Problem(p.what, p.why, p.fix, p.where or f"step {name}") for p in problems]
        self._on_event(Event(name, "failed", seconds=seconds))
        self._settle_twins(name, "skipped")

    def _settle_twins(self, name: str, state: Literal["cached", "skipped"]) -> None:
        """Give a state to all that ask for the artifact which a step has made, or failed to make."""
        for other, waiting in list(self.outcome.states.items()):
            if waiting == "waiting" and self._artifact(other) == self._artifact(name):
                self.outcome.states[other] = state
                note = f"it is the same as {name}, which failed" if state == "skipped" else ""
                self._on_event(Event(other, state, note=note))

    def _free(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._free_cpus += worker.cpus
        self._free_gpus = sorted([*self._free_gpus, *worker.gpus])
        worker.job = None

    def _release(self, workers: list[_Worker]) -> None:
        for worker in list(workers):
            self._selector.unregister(worker.popen.stdout)  # type: ignore[arg-type]
            worker.close()
            if worker in self._idle:
                self._idle.remove(worker)

    def _ended(self, worker: _Worker) -> None:
        """Handle a process that ended by itself: killed from outside, or crashed in native code."""
        self._selector.unregister(worker.popen.stdout)  # type: ignore[arg-type]
        code = worker.popen.wait()
        name = worker.job
        if name is None:
            self._idle.remove(worker)
            return
        self._free(worker)
        item = self._planned[name]
        log = self._store.partial(item.node.config.kind, item.key) / "log.txt"
        self.outcome.crashes.append((name, _died(code, log), str(log)))
        self._fail(name, time.monotonic() - worker.started)


def claim(resources: Resources, machine: Machine) -> tuple[int, int]:
    """Return the cores and the number of GPUs that a step gets: what it asks for, as far as the machine has it.

    A step on GPUs that says nothing about cores gets its share of them, so that the other GPUs can be used meanwhile.
    """
    gpus = min(len(machine.gpus) if resources.gpus is None else resources.gpus, len(machine.gpus))
    share = machine.cpus * gpus // len(machine.gpus) if gpus else machine.cpus
    return max(1, min(resources.cpus or share, machine.cpus)), gpus


def _died(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        cause = "Its process was killed (signal 9): most often the machine ran out of memory."
    elif code < 0:
        cause = f"Its process was ended by signal {-code}."
    else:
        cause = f"Its process ended with exit code {code}."
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:] if log.is_file() else []
    return "\n".join([*tail, cause])
