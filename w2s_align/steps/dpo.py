"""dpo: preference tuning by TRL's DPO trainer. The reference is the model that training starts from.

Reads pairs and a model; writes model/ (safetensors), adapter/ for LoRA, metrics.jsonl and training.json.
"""

from __future__ import annotations

from typing import Literal

from w2s_align.steps.train import PairsRefs, TrainStep, rows_of
from w2s_align.steps.work import Work
from w2s_align.training.settings import DPOSettings


class Dpo(TrainStep, DPOSettings):
    """Tune a model on preference pairs."""

    kind: Literal["dpo"] = "dpo"
    pairs: PairsRefs
    """Preference pairs; of a list of steps, all of their pairs together."""

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train_dpo

        self.fit(work, train_dpo, rows_of(work, "pairs"), DPOSettings)
