"""The experiment with bold sections of the delta learning paper, small enough for pencil and paper.

A policy writes k sections with probability (1 - p) p^k; its one parameter is the logit of p. SFT on answers with three
sections pulls the mean to three. DPO on "three over two" pushes p up forever, far past both examples; the reversed
pair pushes it down; a tied pair does nothing. Source: our analog of section 3 of arXiv 2507.06187 (there: 5.9
sections before, 81.1, 1.1 and 6.1 after DPO, 4.4 after SFT). Reads numbers, returns numbers.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from w2s_align.records import Settings

START_MEAN = 5.9
"""Sections that the untouched model of the paper writes on average."""


def mean_sections(logit: float) -> float:
    """Return the mean number of sections: p / (1 - p), which is the odds."""
    return math.exp(logit)


def sft_path(sections: int, *, start: float = START_MEAN, steps: int = 400, rate: float = 0.05) -> list[float]:
    """Train on answers with a given number of sections by gradient ascent on their log-likelihood.

    Args:
        sections: Number of sections of every answer.
        start: Mean number of sections before.
        steps: Number of steps.
        rate: Step size.

    Returns:
        The mean number of sections before the first and after every step.
    """
    logit = math.log(start)
    path = [start]
    for _ in range(steps):
        p = _sigmoid(logit)
        logit += rate * (sections * (1 - p) - p)
        path.append(mean_sections(logit))
    return path


def dpo_path(
    chosen: int,
    rejected: int,
    *,
    beta: float = 5.0,
    start: float = START_MEAN,
    steps: int = 400,
    rate: float = 0.05,
) -> list[float]:
    """Train with DPO on one pair of answers, by their numbers of sections.

    Args:
        chosen: Sections of the chosen answer.
        rejected: Sections of the rejected answer.
        beta: DPO's beta.
        start: Mean number of sections before.
        steps: Number of steps.
        rate: Step size.

    Returns:
        The mean number of sections before the first and after every step.
    """
    first = logit = math.log(start)
    path = [start]
    for _ in range(steps):
        p = _sigmoid(logit)
        margin = beta * (chosen - rejected) * (math.log(p) - math.log(_sigmoid(first)))
        logit += rate * beta * _sigmoid(-margin) * (chosen - rejected) * (1 - p)
        path.append(mean_sections(logit))
    return path


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


class SectionsSettings(Settings):
    """What is trained."""

    start: float = Field(START_MEAN, gt=0)
    """Sections that the untouched policy writes on average."""
    beta: float = Field(5.0, gt=0)
    """DPO's beta."""
    rate: float = Field(0.05, gt=0)
    """Step size."""
    steps: int = Field(400, ge=1)
    """Steps."""


def study_sections(settings: SectionsSettings) -> dict[str, list[float]]:
    """Return the mean number of sections over the steps: DPO 3 over 2, 2 over 3, 3 over 3, and SFT on 3."""
    options: dict[str, Any] = {"start": settings.start, "steps": settings.steps, "rate": settings.rate}
    pairs = {"DPO, 3 over 2": (3, 2), "DPO, 2 over 3": (2, 3), "DPO, 3 over 3": (3, 3)}
    paths = {name: dpo_path(*pair, beta=settings.beta, **options) for name, pair in pairs.items()}
    return {**paths, "SFT on 3": sft_path(3, **options)}
