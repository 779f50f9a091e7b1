"""Running a plan on this machine: which node runs in which process, with which cores and GPUs.

Nodes that fit beside each other run side by side. Each runs in its own process, except that steps which name the same
:meth:`~w2s_align.recipe.schema.StepConfig.process` are served in turn by one, so that an engine is started once.
"""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from w2s_align.artifacts.store import Store
from w2s_align.errors import Problem
from w2s_align.machine import Machine
from w2s_align.recipe.schema import Resources
from w2s_align.runs.executor import Executor
from w2s_align.runs.outcome import Event
from w2s_align.runs.plan import Planned
from w2s_align.runs.worker import WorkItem
from w2s_align.runs.worker_process import WorkerProcess

LOG_TAIL = 15
"""Lines of the log that are shown of a process that died: enough for the usual message and where it came from."""


class LocalExecutor(Executor):
    """Makes the artifacts of a plan in processes of this machine.

    Args:
        planned: The plan.
        store: Where artifacts are made.
        machine: What the steps may use.
        only: Make these nodes alone; all that they read must be there, or be among them.
        shard: Of these, make this shard: its number, and how many there are.
    """

    def __init__(
        self,
        planned: Mapping[str, Planned],
        store: Store,
        machine: Machine,
        only: Collection[str] | None = None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(planned, only)
        self._store, self._machine, self._shard = store, machine, shard
        self._free_cpus, self._free_gpus = machine.cpus, list(machine.gpus)
        self._workers: list[WorkerProcess] = []
        self._idle: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()

    def running(self) -> list[str]:
        """Return the nodes at work."""
        return [worker.node for worker in self._workers if worker.node is not None]

    def start(self, name: str) -> None:
        """Start a node if enough cores and GPUs are free for it."""
        cpus, count = claim(self.planned[name].node.config.claims(), self._machine)
        if cpus > self._free_cpus or count > len(self._free_gpus):
            return
        self._free_cpus -= cpus
        gpus, self._free_gpus = tuple(self._free_gpus[:count]), self._free_gpus[count:]
        worker = self._worker(name, cpus, gpus)
        self.outcome.states[name] = "running"
        self.on_event(Event(name, "started", note="" if self._shard else self.planned[name].status))
        worker.send(name, self._item(name))

    def wait(self) -> None:
        """Wait until a process says something, and report it."""
        if self._machine.gpus:  # an idle engine would hold the memory that the next one needs
            self._release(self._idle)
        for key, _ in self._selector.select(timeout=1.0):
            self._read(key.data)

    def stop(self, completed: bool) -> None:
        """Let idle processes end by themselves after a run; kill all others."""
        if completed:
            self._release(self._idle)
        for worker in [*self._workers, *self._idle]:
            worker.kill()
        self._selector.close()

    def _worker(self, name: str, cpus: int, gpus: tuple[str, ...]) -> WorkerProcess:
        wanted = (self._process_name(name), cpus, gpus)
        same = (w for w in self._idle if w.name is not None and (w.name, w.cpus, w.gpus) == wanted)
        worker = next(same, None)
        if worker is not None:
            self._idle.remove(worker)
        else:
            worker = WorkerProcess(*wanted)
            self._selector.register(worker.popen.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        self._workers.append(worker)
        return worker

    def _process_name(self, name: str) -> str | None:
        return self.planned[name].node.config.process()

    def _item(self, name: str) -> WorkItem:
        item = self.planned[name]
        config = item.node.config
        recipe: dict[str, Any] = {}
        if config.shows_recipe:
            own = [other for other in self.planned.values() if other.recipe is item.recipe]
            names = {f"{other.node.config.kind}/{other.key}": other.node.name for other in own}
            recipe = {**item.recipe.resolved, "text": item.recipe.text, "names": names}
        sources = {place: self.planned[source] for place, source in item.node.inputs.items()}
        return WorkItem(
            root=str(self._store.root),
            name=item.node.name,
            step=WorkItem.path_of(type(config)),
            config=config.model_dump(mode="json"),
            key=item.key,
            material=dict(item.material),
            inputs={
                place: {"kind": source.node.config.kind, "key": source.key, "name": source.node.name}
                for place, source in sources.items()
            },
            recipe=recipe,
            shard=self._shard,
        )

    def _read(self, worker: WorkerProcess) -> None:
        events = worker.read()
        if events is None:
            self._ended(worker)
            return
        for event in events:
            name = worker.node
            assert name is not None
            seconds = time.monotonic() - worker.started
            if event["event"] == "progress":
                self.on_event(Event(name, "progress", event["done"], event["total"], event["note"], seconds))
            elif event["event"] == "waiting":
                self.on_event(Event(name, "waiting", note="another process is making the same artifact"))
            else:
                self._finished(worker, name, event, seconds)

    def _finished(self, worker: WorkerProcess, name: str, event: Mapping[str, Any], seconds: float) -> None:
        self._free(worker)
        if event["event"] == "done":
            self.done(name, event.get("seconds", seconds), Event(name, "done", seconds=seconds))
        elif event["event"] == "shard":
            number, count = self._shard or (1, 1)
            self.outcome.states[name] = "shard"
            self.on_event(Event(name, "done", note=f"shard {number} of {count}; others are not finished"))
        elif event["event"] == "refused":
            self.failed(name, Event(name, "failed", seconds=seconds), [Problem(**p) for p in event["problems"]])
        else:
            self.outcome.crashes.append((name, event["traceback"], event["log"]))
            self.failed(name, Event(name, "failed", seconds=seconds))
        if worker.name is not None and event["event"] == "done" and self._needed(worker):
            self._idle.append(worker)
        else:
            self._release([worker])

    def _needed(self, worker: WorkerProcess) -> bool:
        states = self.outcome.states.items()
        return any(state == "waiting" and self._process_name(name) == worker.name for name, state in states)

    def _free(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        self._free_cpus += worker.cpus
        self._free_gpus = sorted([*self._free_gpus, *worker.gpus])
        worker.node = None

    def _release(self, workers: list[WorkerProcess]) -> None:
        for worker in list(workers):
            self._selector.unregister(worker.popen.stdout)  # type: ignore[arg-type]
            worker.close()
            if worker in self._idle:
                self._idle.remove(worker)

    def _ended(self, worker: WorkerProcess) -> None:
        """Handle a process that ended by itself: killed from outside, or crashed in native code."""
        self._selector.unregister(worker.popen.stdout)  # type: ignore[arg-type]
        code = worker.popen.wait()
        name = worker.node
        if name is None:
            self._idle.remove(worker)
            return
        self._free(worker)
        log = self._store.partial(*self.artifact(name)) / "log.txt"
        self.outcome.crashes.append((name, _died(code, log), str(log)))
        self.failed(name, Event(name, "failed", seconds=time.monotonic() - worker.started))


def claim(resources: Resources, machine: Machine) -> tuple[int, int]:
    """Return the cores and the number of GPUs that a step gets: what it asks for, as far as the machine has it.

    A step on GPUs that says nothing about cores gets its share of them, so that the other GPUs can be used meanwhile.

    Args:
        resources: What the step asks for.
        machine: What there is.
    """
    gpus = min(len(machine.gpus) if resources.gpus is None else resources.gpus, len(machine.gpus))
    share = machine.cpus * gpus // len(machine.gpus) if gpus else machine.cpus
    return max(1, min(resources.cpus or share, machine.cpus)), gpus


def _died(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        cause = "Its process was killed (signal 9): most often the machine ran out of memory."
    elif code < 0:
        cause = f"Its process was killed by signal {-code}."
    else:
        cause = f"Its process exited with code {code}."
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:] if log.is_file() else []
    return "\n".join([*tail, cause])
