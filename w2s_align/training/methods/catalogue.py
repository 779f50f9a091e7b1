"""What a kind of training has of its own: its settings, its rows, its trainer, its rules of health.

All else is the loop's (loop.py). A new kind is a file that makes a :class:`Method`, and a line in :data:`FILES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.health import Health
    from w2s_align.training.job import Job
    from w2s_align.training.tokens import ChatEncoder

FILES = {
    "sft": "sft",
    "dpo": "dpo",
    "kto": "kto",
    "reward": "reward",
    "simpo": "reference_free",
    "cpo": "reference_free",
    "orpo": "reference_free",
}
"""File of each kind of training."""


@dataclass(frozen=True)
class Method:
    """One kind of training.

    Attributes:
        name: Its name in recipes.
        title: Its name in a model card.
        settings: Class of its settings.
        sides: Sequences per row in a forward pass: 2 for pairs, 1 for chats.
        prepare: Checks, filters and stores rows: ``prepare(rows, encoder, settings, folder, seed)``.
        trainer: Makes TRL's trainer of a job with the callbacks that it is given.
        health: Makes the rules that every step is held against.
        task: What the model is trained for.
        reference: Whether log-probabilities of the start model are part of the loss.
    """

    name: str
    title: str
    settings: type[TrainSettings]
    sides: int
    prepare: Callable[[Rows, ChatEncoder, Any, Path, int], TrainingData]
    trainer: Callable[[Job, list[Any]], Any]
    health: Callable[[Job], Health]
    task: Literal["generate", "reward"] = "generate"
    reference: bool = False


def method_named(name: str) -> Method:
    """Return the kind of training of this name."""
    methods: dict[str, Method] = importlib.import_module(f"w2s_align.training.methods.{FILES[name]}").METHODS
    return methods[name]
