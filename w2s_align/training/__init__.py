"""Training a student: data with its template checked, a trainer of TRL or transformers, health, saving, verifying.

    from w2s_align.training import DPOSettings, train

    train("path/to/model", "pairs.parquet", "out", DPOSettings(loss="sigmoid_norm", beta=5, learning_rate=5e-7))

The class of the settings says what kind of training it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from w2s_align.training.methods.classifier import ClassifierSettings
from w2s_align.training.methods.distill import DistillSettings
from w2s_align.training.methods.dpo import DPOSettings
from w2s_align.training.methods.grpo import GRPOSettings, RLOOSettings
from w2s_align.training.methods.kto import KTOSettings
from w2s_align.training.methods.online_dpo import OnlineDPOSettings
from w2s_align.training.methods.oprd import OPRDSettings
from w2s_align.training.methods.reference_free import CPOSettings, ORPOSettings, SimPOSettings
from w2s_align.training.methods.reward import RewardModelSettings
from w2s_align.training.methods.sft import SFTSettings
from w2s_align.training.renamed import RENAMED
from w2s_align.training.resources import LAUNCHES, TrainResources
from w2s_align.training.settings import Lora, QuickTask, TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.gguf import import_gguf
    from w2s_align.training.loop import train
    from w2s_align.training.report import TrainingReport

_LAZY = {"train": "loop", "import_gguf": "gguf", "TrainingReport": "report"}

__all__ = [
    "LAUNCHES",
    "RENAMED",
    "CPOSettings",
    "ClassifierSettings",
    "DPOSettings",
    "DistillSettings",
    "GRPOSettings",
    "KTOSettings",
    "Lora",
    "OPRDSettings",
    "ORPOSettings",
    "OnlineDPOSettings",
    "QuickTask",
    "RLOOSettings",
    "RewardModelSettings",
    "SFTSettings",
    "SimPOSettings",
    "TrainResources",
    "TrainSettings",
    "TrainingReport",
    "import_gguf",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what needs heavy libraries at its first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
