"""What happens while a plan runs, and what became of it in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from w2s_align.errors import Problem

State = Literal["cached", "waiting", "running", "done", "shard", "failed", "skipped"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a step.

    Attributes:
        name: Name of the node.
        kind: ``cached``, ``started``, ``progress``, ``waiting`` (for a twin), ``done``, ``failed``, ``skipped``;
            ``note``: what a step has to guess, before anything runs.
        done: Progress, in units of the step.
        total: Progress, in units of the step; 0 when it is not known.
        note: Progress in words, e.g. tokens per second and the time left; the reason of a skip; a guess.
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
        states: State of every node; ``shard``: its shard is done, and others are missing.
        seconds: Seconds of every node that ran.
        problems: What the user has to solve.
        crashes: Name, end of the traceback and log file of every step that crashed: a bug, not a mistake of the user.
    """

    states: dict[str, State] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    crashes: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that was to be made is there."""
        return all(state in ("cached", "done", "shard") for state in self.states.values())
