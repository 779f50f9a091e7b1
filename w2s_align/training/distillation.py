"""TRL's distillation trainer with a target that it cannot compute itself: masked, or over the top tokens alone.

TRL's loss compares whole vocabularies tile by tile and knows no mask (TRL 1.16). Everything else of the trainer, from
the responses that the student writes to launches and checkpoints, stays as it is: the one method that computes a loss
of responses is replaced. Imports torch and TRL: import it late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint
from trl import DistillationTrainer

from w2s_align.families.fused_logits import token_divergence
from w2s_align.families.fusion import logit_scale

if TYPE_CHECKING:
    from w2s_align.training.fused_teacher import FusedTeacher

POSITIONS = 512
"""Positions whose logits are in memory together: 512 x 151,936 in float32 are 311 MB a tensor."""


class MaskedDistillationTrainer(DistillationTrainer):
    """Distills a :class:`~w2s_align.training.fused_teacher.FusedTeacher` with its mask.

    Args:
        divergence: See :func:`~w2s_align.families.fused_logits.token_divergence`.
        tokens: Compare the target's so many most likely tokens; None for all.
        **arguments: For TRL's trainer.
    """

    def __init__(self, divergence: str, tokens: int | None, **arguments: Any) -> None:
        self.divergence, self.tokens = divergence, tokens
        super().__init__(**arguments)

    def _compute_loss(
        self, unwrapped_student: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, the sum of the student's entropies and the number of response tokens."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        kept = inputs["completion_ids"].size(1)
        valid = inputs["completion_mask"].bool()  # [rows, response]
        student = self._get_last_hidden_state(unwrapped_student, ids, mask, kept)[valid]
        teacher: FusedTeacher = self.accelerator.unwrap_model(self.teacher_model)
        with torch.no_grad():
            hidden = self._forward_redirection(
                self.teacher_model, teacher, self._get_last_hidden_state, teacher, ids, mask, kept
            )[valid]
        head, scale = unwrapped_student.get_output_embeddings(), logit_scale(unwrapped_student.config)

        def tile(rows: torch.Tensor, frozen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = head(rows)[:, : teacher.rows].float() * scale
            own = (logits / self.temperature).log_softmax(-1)
            with torch.no_grad():
                target = teacher.log_probs(frozen)
                target = (target / self.temperature).log_softmax(-1)
                entropy = -(own.exp() * own).sum()
            return token_divergence(own, target, self.divergence, self.tokens).sum(), entropy

        loss, entropy = student.sum() * 0.0, student.new_zeros(())
        for rows, frozen in zip(student.split(POSITIONS), hidden.split(POSITIONS), strict=True):
            # Logits are computed again in the backward pass: one tile of them is kept at a time.
            part, spread = checkpoint(tile, rows, frozen, use_reentrant=False)
            loss, entropy = loss + part, entropy + spread.detach()
        number = valid.sum()
        total = number.clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return loss / total, entropy, number
