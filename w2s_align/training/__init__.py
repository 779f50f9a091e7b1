"""Training a student: arguments for TRL and PEFT, data with its template checked, health, saving, verifying.

from w2s_align.training import DPOSettings, train_dpo

train_dpo("path/to/model", "pairs.parquet", "out", DPOSettings(loss="sigmoid_norm", beta=5, learning_rate=5e-7))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from w2s_align.training.settings import RENAMED, DPOSettings, Lora, SFTSettings, TrainResources, TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.dpo import train_dpo
    from w2s_align.training.gguf import import_gguf
    from w2s_align.training.report import TrainingReport
    from w2s_align.training.sft import train_sft

_LAZY = {
    "train_dpo": "dpo",
    "train_sft": "sft",
    "import_gguf": "gguf",
    "TrainingReport": "report",
}

__all__ = [
    "RENAMED",
    "DPOSettings",
    "Lora",
    "SFTSettings",
    "TrainResources",
    "TrainSettings",
    "TrainingReport",
    "import_gguf",
    "train_dpo",
    "train_sft",
]


def __getattr__(name: str) -> Any:
    """Import what needs heavy libraries at its first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
