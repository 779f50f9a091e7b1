"""Tiny language models with a known weakness, trained from scratch on a CPU in under a minute.

A lab model is a real Llama-architecture model in the ordinary Hugging Face format. It has learned one task from an
author who forgets the carry with a known probability, so that a weak-to-strong effect can be shown, and measured
exactly, on a laptop without a network.

    from w2s_align.lab import problems, train_lab_model
    trained = train_lab_model("weak", slip=0.7, seed=1)                # writes weak/model
    prompts = problems("lab/addition", 500, seed=0, split="test")

Importing this package imports numpy and nothing heavier; the trainer is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_align.lab.settings import LabModel, LabResources
from w2s_align.lab.tasks import TASKS, check, checkers, problems
from w2s_align.lab.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from w2s_align.lab.train import LabTraining, train_lab_model

__all__ = [
    "TASKS",
    "LabModel",
    "LabResources",
    "LabTraining",
    "build_tokenizer",
    "check",
    "checkers",
    "problems",
    "train_lab_model",
]


def __getattr__(name: str) -> Any:
    if name in ("LabTraining", "train_lab_model"):
        from w2s_align.lab import train

        return getattr(train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
