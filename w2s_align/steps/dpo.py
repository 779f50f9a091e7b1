"""dpo: preference tuning by TRL's DPO trainer. The reference is the model that training starts from.

Reads pairs and a model; writes model/ (safetensors), adapter/ for LoRA, metrics.jsonl and training.json.
"""

from __future__ import annotations

from typing import Literal

from w2s_align.recipe.schema import PairsRef
from w2s_align.steps.train import TrainStep, take_report
from w2s_align.steps.work import Work
from w2s_align.training.settings import DPOSettings


class Dpo(TrainStep, DPOSettings):
    """Tune a model on preference pairs."""

    kind: Literal["dpo"] = "dpo"
    pairs: PairsRef
    """Preference pairs."""

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train_dpo

        report = train_dpo(
            work.model("model", self.model),
            work.inputs["pairs"].path / "data",
            work.out,
            DPOSettings.model_validate(self.model_dump(include=set(DPOSettings.model_fields))),
            seed=self.seed or 0,
            resources=self.resources,
            progress=work.progress,
        )
        take_report(work, report)
