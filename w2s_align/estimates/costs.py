"""What a plan says about an artifact and about all of them: rows, tokens, steps, memory, time, money; its assumptions.

Plain values; estimate.py computes them, and terminal/plan_view.py shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from w2s_align.estimates.gpus import Hardware
from w2s_align.recipe import Node

PROMPT_TOKENS = (100, 400)
"""Tokens of a prompt, where none has been counted yet."""
ANSWER_SHARE = (0.1, 0.5)
"""Length of an answer as a share of the longest that is allowed, at least 100 and 400 tokens."""
TRAINING_USE = (0.15, 0.45)
"""Share of a GPU's arithmetic that a training reaches (model FLOPs utilization)."""
GENERATION_USE = (0.15, 0.5)
"""Share of a GPU's arithmetic or memory bandwidth, whichever is short, that a generation reaches."""
START = (30, 180)
"""Seconds until a model is loaded and its engine or trainer is up."""

Range = tuple[float, float]


@dataclass
class StepEstimate:
    """What one artifact will be and take.

    Attributes:
        rows: Rows of the artifact, or that a training sees in an epoch; None when nothing is known.
        exact: Whether ``rows`` is certain; else it is an upper limit.
        tokens: Tokens that are read and written, or trained on.
        steps: Optimiser steps.
        memory: Bytes of one GPU.
        parts: What it is made of.
        fits: Whether it fits into a GPU of the plan's hardware; None without one.
        advice: What to change when it does not.
        gpus: GPUs that it takes at a time.
        seconds: How long it takes.
    """

    rows: int | None = None
    exact: bool = False
    tokens: Range | None = None
    steps: int | None = None
    memory: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    fits: bool | None = None
    advice: str = ""
    gpus: int = 0
    seconds: Range | None = None


class Item(Protocol):
    """What an estimate needs to know of an artifact of a plan; ``runs.plan.Planned`` is one."""

    @property
    def node(self) -> Node:
        """The step that makes it."""

    @property
    def key(self) -> str:
        """Its key."""


@dataclass
class Costs:
    """The estimate of a whole plan.

    Attributes:
        hardware: What it is for.
        steps: Estimate of every artifact, by the name of its node.
        downloads: Bytes of models that are not in the hub's cache, by hub id.
        unknown: Models whose shape is not known here, each with the known model that has the nearest name, or None.
        unread: Models that the hub was asked for and did not show.
    """

    hardware: Hardware | None
    steps: dict[str, StepEstimate]
    downloads: dict[str, float]
    unknown: dict[str, str | None]
    unread: list[str] = field(default_factory=list)

    @property
    def gpu_hours(self) -> Range:
        """GPU-hours of everything that is still to be made."""
        used = [(e.seconds, e.gpus) for e in self.steps.values() if e.seconds is not None]
        return sum(s[0] * n for s, n in used) / 3600, sum(s[1] * n for s, n in used) / 3600

    @property
    def price(self) -> Range | None:
        """What these GPU-hours cost, US dollars."""
        if self.hardware is None:
            return None
        low, high = self.gpu_hours
        return low * self.hardware.price[0], high * self.hardware.price[1]


def answer_tokens(longest: int) -> Range:
    """Return how long an answer of at most ``longest`` tokens is taken to be."""
    low, high = ANSWER_SHARE
    return min(longest, max(100, low * longest)), min(longest, max(400, high * longest))
