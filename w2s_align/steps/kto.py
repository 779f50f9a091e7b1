"""kto: learning from good and bad responses without pairs, by TRL's KTO trainer.

Reads pairs, which are taken apart, and a model; writes what dpo writes.
"""

from __future__ import annotations

from typing import Literal

from w2s_align.steps.train import PairsRefs, TrainStep, rows_of
from w2s_align.steps.work import Work
from w2s_align.training.methods.kto import KTOSettings


class Kto(TrainStep, KTOSettings):
    """Tune a model on the good and the bad responses of pairs, each by itself."""

    kind: Literal["kto"] = "kto"
    pairs: PairsRefs
    """Preference pairs, of one step or of several: chosen responses are good, rejected ones bad."""

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train_kto

        self.fit(work, train_kto, rows_of(work, "pairs"), KTOSettings)
