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

from w2s_align.lab.arguments import NAME as ARGUMENTS
from w2s_align.lab.arguments import argument_chats
from w2s_align.lab.carry import NAME as CARRY
from w2s_align.lab.carry import best_supervisors, carry_items, check_options
from w2s_align.lab.settings import LabModel, LabResources
from w2s_align.lab.tasks import TASKS, Split, check, checkers, find_task, problems, wrong_steps
from w2s_align.lab.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from w2s_align.lab.train import LabTraining, train_lab_model

__all__ = [
    "ARGUMENTS",
    "CARRY",
    "TASKS",
    "LabModel",
    "LabResources",
    "LabTraining",
    "Split",
    "argument_chats",
    "best_supervisors",
    "build_tokenizer",
    "carry_items",
    "check",
    "check_options",
    "checkers",
    "find_task",
    "problems",
    "train_lab_model",
    "wrong_steps",
]


def __getattr__(name: str) -> Any:
    if name in ("LabTraining", "train_lab_model"):
        from w2s_align.lab import train

        return getattr(train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
