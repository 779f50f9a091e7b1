"""TRL's online DPO trainer, in which responses of equal reward teach nothing.

TRL takes the first of two equal responses for the chosen one (TRL 1.16): with a reward of 0 or 1 most pairs would be
noise. Imports torch and TRL: import it late.
"""

from __future__ import annotations

from typing import Any

import torch
from trl.experimental.online_dpo import OnlineDPOTrainer


class OnlinePairsTrainer(OnlineDPOTrainer):
    """Online DPO without ties: their responses are masked, so that their loss is a constant."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.stats["ties"] = []
        self._mask: torch.Tensor | None = None

    def _generate(self, model: Any, prompts: Any, images: Any = None) -> Any:
        found = super()._generate(model, prompts, images)
        self._mask = found[3]  # 1 for tokens of a response, [2 x prompts, response]; read again once rewards are known
        return found

    def _generate_vllm(self, prompts: Any, images: Any = None) -> Any:
        found = super()._generate_vllm(prompts, images)
        self._mask = found[3]
        return found

    def _calculate_rewards_from_functions(self, *arguments: Any, **columns: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards_from_functions(*arguments, **columns)
        first, second = rewards.chunk(2)
        tied = first == second
        assert self._mask is not None
        self._mask[torch.cat([tied, tied])] = 0
        self.stats["ties"].append(tied.float().mean().item())
        return rewards
