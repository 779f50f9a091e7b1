"""sft: supervised fine-tuning by TRL's SFT trainer; the loss counts response tokens only.

Reads pairs (their chosen side, unless `side` says otherwise) and a model; writes what dpo writes.
"""

from __future__ import annotations

from typing import Literal

from w2s_align.recipe.schema import PairsRef
from w2s_align.steps.train import TrainStep, take_report
from w2s_align.steps.work import Work
from w2s_align.training.settings import SFTSettings


class Sft(TrainStep, SFTSettings):
    """Fine-tune a model on the chosen responses of pairs."""

    kind: Literal["sft"] = "sft"
    data: PairsRef
    """Preference pairs, of which one side is learned."""

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train_sft

        report = train_sft(
            work.model("model", self.model),
            work.inputs["data"].path / "data",
            work.out,
            SFTSettings.model_validate(self.model_dump(include=set(SFTSettings.model_fields))),
            seed=self.seed or 0,
            resources=self.resources,
            progress=work.progress,
        )
        take_report(work, report)
