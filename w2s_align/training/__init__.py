"""Training a student: arguments for TRL and PEFT, data with its template checked, health, saving, verifying.

from w2s_align.training import DPOSettings, train_dpo

train_dpo("path/to/model", "pairs.parquet", "out", DPOSettings(loss="sigmoid_norm", beta=5, learning_rate=5e-7))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from w2s_align.training.methods.kto import KTOSettings
from w2s_align.training.methods.reference_free import CPOSettings, ORPOSettings, SimPOSettings
from w2s_align.training.methods.reward import RewardModelSettings
from w2s_align.training.renamed import RENAMED
from w2s_align.training.resources import LAUNCHES, TrainResources
from w2s_align.training.settings import DPOSettings, Lora, QuickTask, SFTSettings, TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.gguf import import_gguf
    from w2s_align.training.methods.dpo import train_dpo
    from w2s_align.training.methods.kto import train_kto
    from w2s_align.training.methods.reference_free import train_reference_free
    from w2s_align.training.methods.reward import train_reward
    from w2s_align.training.methods.sft import train_sft
    from w2s_align.training.report import TrainingReport

_LAZY = {
    "train_dpo": "methods.dpo",
    "train_kto": "methods.kto",
    "train_reference_free": "methods.reference_free",
    "train_reward": "methods.reward",
    "train_sft": "methods.sft",
    "import_gguf": "gguf",
    "TrainingReport": "report",
}

__all__ = [
    "LAUNCHES",
    "RENAMED",
    "CPOSettings",
    "DPOSettings",
    "KTOSettings",
    "Lora",
    "ORPOSettings",
    "QuickTask",
    "RewardModelSettings",
    "SFTSettings",
    "SimPOSettings",
    "TrainResources",
    "TrainSettings",
    "TrainingReport",
    "import_gguf",
    "train_dpo",
    "train_kto",
    "train_reference_free",
    "train_reward",
    "train_sft",
]


def __getattr__(name: str) -> Any:
    """Import what needs heavy libraries at its first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
