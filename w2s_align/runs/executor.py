"""The loop that runs a plan: starts each node as soon as what it reads is there, wherever nodes are made.

:class:`~.local.LocalExecutor` makes them in processes of this machine, :class:`~w2s_align.cluster.ray.RayExecutor` as
tasks of a Ray cluster. A node that fails stops what depends on it; everything else continues.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from w2s_align.errors import Problem
from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.plan import Planned


class Executor(ABC):
    """Makes the artifacts of a plan that are not there yet.

    Args:
        planned: The plan.
        only: Make these nodes alone; all that they read must be there, or be among them.
    """

    def __init__(self, planned: Mapping[str, Planned], only: Collection[str] | None = None) -> None:
        self.planned, self._only = planned, only
        self.outcome = Outcome()
        self.on_event: Callable[[Event], None] = lambda event: None

    def run(self, outcome: Outcome, on_event: Callable[[Event], None]) -> None:
        """Run until nothing is left that can run.

        Args:
            outcome: Filled in while the plan runs.
            on_event: Called for everything that happens, in this process.

        Raises:
            KeyboardInterrupt: The user stopped it; nothing is at work any more, and what was begun can be continued.
        """
        self.outcome, self.on_event = outcome, on_event
        states = outcome.states
        for name, item in self.planned.items():
            if self._only is not None and name not in self._only and item.status != "cached":
                continue
            states[name] = "cached" if item.status == "cached" else "waiting"
            if states[name] == "cached":
                on_event(Event(name, "cached"))
        completed = False
        try:
            while True:
                for name in self._ready():
                    self.start(name)
                if not self.running():
                    break
                self.wait()
            completed = True
        finally:
            self.stop(completed)
        for name, state in states.items():
            if state == "waiting":
                states[name] = "skipped"
                on_event(Event(name, "skipped", note="it reads a step that failed"))

    @abstractmethod
    def start(self, name: str) -> None:
        """Start a node and set its state to ``running``; where nothing is free for it, do nothing."""

    @abstractmethod
    def running(self) -> Collection[str]:
        """Return the names of the nodes at work."""

    @abstractmethod
    def wait(self) -> None:
        """Wait a moment for something to happen, and report it."""

    @abstractmethod
    def stop(self, completed: bool) -> None:
        """End everything that is still there.

        Args:
            completed: Whether the run came to its end by itself.
        """

    def done(self, name: str, seconds: float, event: Event) -> None:
        """Record that a node was made.

        Args:
            name: Its name.
            seconds: What making it took.
            event: What to report.
        """
        self.outcome.states[name] = "done"
        self.outcome.seconds[name] = seconds
        self.on_event(event)
        self._settle_twins(name, "cached")

    def failed(self, name: str, event: Event, problems: Sequence[Problem] = ()) -> None:
        """Record that a node failed.

        Args:
            name: Its name.
            event: What to report.
            problems: What the user has to solve.
        """
        self.outcome.states[name] = "failed"
        self.outcome.problems += [Problem(p.what, p.why, p.fix, p.where or f"step {name}") for p in problems]
        self.on_event(event)
        self._settle_twins(name, "skipped")

    def artifact(self, name: str) -> tuple[str, str]:
        """Return kind and key of a node's artifact."""
        return self.planned[name].node.config.kind, self.planned[name].key

    def _ready(self) -> list[str]:
        """Return the nodes whose inputs are there; of twins, which ask for the same artifact, the first alone."""
        states = self.outcome.states
        found: dict[tuple[str, str], str] = {}
        for name, state in states.items():
            sources = self.planned[name].node.inputs.values()
            if state == "waiting" and all(states[source] in ("cached", "done") for source in sources):
                found.setdefault(self.artifact(name), name)
        running = {self.artifact(name) for name in self.running()}
        return [name for artifact, name in found.items() if artifact not in running]

    def _settle_twins(self, name: str, state: Literal["cached", "skipped"]) -> None:
        """Give a state to all that ask for the artifact which a node has made, or failed to make."""
        for other, waiting in list(self.outcome.states.items()):
            if waiting == "waiting" and self.artifact(other) == self.artifact(name):
                self.outcome.states[other] = state
                note = f"it is the same as {name}, which failed" if state == "skipped" else ""
                self.on_event(Event(other, state, note=note))
