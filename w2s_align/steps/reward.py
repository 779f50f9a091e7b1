"""reward: a reward model from pairs, by TRL's reward trainer.

Reads pairs and a model; writes a sequence classifier with one label, for the `reward` scorer of a score step.
"""

from __future__ import annotations

from typing import Literal

from w2s_align.steps.train import PairsRefs, TrainStep, rows_of
from w2s_align.steps.work import Work
from w2s_align.training.methods.reward import RewardModelSettings


class Reward(TrainStep, RewardModelSettings):
    """Train a reward model: one score for a chat, higher for the chosen response."""

    kind: Literal["reward"] = "reward"
    pairs: PairsRefs
    """Preference pairs; of a list of steps, all of their pairs together."""

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train_reward

        self.fit(work, train_reward, rows_of(work, "pairs"), RewardModelSettings)
