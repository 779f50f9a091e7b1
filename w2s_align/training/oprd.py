"""TRL's GRPO trainer with the update of OPRD (arXiv 2609.08798): the one method that computes a loss is replaced.

TRL's loss never hands out logits, which this update needs (TRL 1.16). Imports torch and TRL: import it late.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from trl import GRPOTrainer

from w2s_align.training.distillation import POSITIONS
from w2s_align.training.oprd_gradient import oprd_surrogate, unit_direction


class OPRDTrainer(GRPOTrainer):
    """GRPO whose gradient is amplified along what set a teacher apart from its reference.

    Args:
        teacher: The teacher, frozen.
        reference: What it was before its training, frozen.
        amount: Lambda.
        warmup: Updates until parts that point the other way are amplified fully.
        top_k: The support is the sampled token and the student's so many most likely ones.
        random_direction: Take a random direction instead: the control.
        **arguments: For TRL's trainer.
    """

    def __init__(
        self,
        teacher: Any,
        reference: Any,
        amount: float,
        warmup: int,
        top_k: int,
        random_direction: bool,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.amount, self.warmup, self.top_k, self.random_direction = amount, warmup, top_k, random_direction
        self.frozen = [
            self.accelerator.prepare_model(model.requires_grad_(requires_grad=False).eval(), evaluation_mode=True)
            for model in (teacher, reference)
        ]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        written = inputs["completion_ids"]
        valid = inputs["completion_mask"].bool()
        asked = {"input_ids": ids, "attention_mask": mask, "use_cache": False}

        def logits_of(one: Any) -> torch.Tensor:
            with self.accelerator.autocast():
                found: torch.Tensor = one(**asked).logits[:, -written.size(1) - 1 : -1]
            return found[valid]

        own = logits_of(model)
        with torch.no_grad():
            teacher, reference = (logits_of(one) for one in self.frozen)
        tokens = written[valid]
        advantages = inputs["advantages"].unsqueeze(1).expand_as(written)[valid].float()
        update = self.state.global_step + 1

        def tile(own: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            teacher, reference, tokens, advantages, noise = rest
            log_probs = own.float().log_softmax(-1)
            sampled_log_prob = log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
            with torch.no_grad():
                # The sampled token first, then the student's most likely ones; where it is one of them its second
                # place gets no weight.
                likely = own.topk(min(self.top_k, own.shape[-1]), dim=-1).indices
                support = torch.cat([tokens.unsqueeze(-1), likely], dim=-1)
                twice = torch.zeros_like(support, dtype=torch.bool)
                twice[:, 1:] = likely == tokens.unsqueeze(-1)
                sampled = torch.zeros_like(support, dtype=torch.float32)
                sampled[:, 0] = 1.0
                if self.random_direction:
                    moved = noise
                else:
                    moved = teacher.gather(-1, support).float() - reference.gather(-1, support).float()
                direction = unit_direction(moved, twice)
                probs = log_probs.gather(-1, support).exp()
                entropy = -(log_probs.exp() * log_probs).sum()
            loss = oprd_surrogate(
                sampled_log_prob,
                own.float().gather(-1, support),
                probs,
                sampled,
                direction,
                advantages,
                self.amount,
                update,
                self.warmup,
            )
            return loss.sum(), entropy

        noise = torch.randn(len(tokens), 1 + min(self.top_k, own.shape[-1]), device=own.device)
        loss, entropy = own.sum() * 0.0, own.new_zeros(())
        parts = [part.split(POSITIONS) for part in (own, teacher, reference, tokens, advantages, noise)]
        for some in zip(*parts, strict=True):
            part, spread = checkpoint(tile, *some, use_reentrant=False)
            loss, entropy = loss + part, entropy + spread.detach()
        self._metrics["train"]["entropy"].append(float(entropy / valid.sum().clamp(min=1)))
        number = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        return loss / number
