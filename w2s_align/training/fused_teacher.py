"""A fused target as a teacher that TRL's distillation trainer takes.

The trainer asks a teacher for its last hidden states and the weight of its head, never for logits (TRL 1.16). Here the
hidden states are those of all members side by side, and the head is theirs side by side, each times its weight: head
times hidden states is then the weighted sum of all members' logits. Imports torch: import it late.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from w2s_align.errors import UserError
from w2s_align.families.fused_logits import fused_log_probs
from w2s_align.families.fusion import logit_scale

SCALES = ("logit_scale", "lm_head_multiplier", "logits_scaling", "output_multiplier")
"""Names under which configurations say what logits are multiplied by; TRL reads them of a teacher."""


class _Bodies(nn.Module):
    """The members without their heads."""

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, **inputs: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        parts = [member.base_model(**inputs).last_hidden_state.float() for member in self.members]
        return BaseModelOutput(last_hidden_state=torch.cat(parts, dim=-1))


class FusedTeacher(nn.Module):
    """Frozen models with one vocabulary, as one teacher.

    Args:
        members: Models by name, the anchor first.
        contrasts: For each alpha, the names of plus and minus.
        plausibility: See :class:`~w2s_align.families.fusion.Fusion`; only :meth:`log_probs` knows it.
        rows: Rows of the student's head, which the trainer compares with.

    Raises:
        UserError: The logits of a member cannot be added up.
    """

    def __init__(
        self,
        members: dict[str, Any],
        contrasts: Sequence[tuple[float, str, str]],
        plausibility: float | None,
        rows: int,
    ) -> None:
        super().__init__()
        names = list(members)
        self.contrasts = [(alpha, names.index(plus), names.index(minus)) for alpha, plus, minus in contrasts if alpha]
        self.plausibility = plausibility
        self.base_model = _Bodies([*members.values()])
        self.scales = [logit_scale(member.config) for member in members.values()]
        heads = [member.get_output_embeddings() for member in members.values()]
        for name, head in zip(members, heads, strict=True):
            if getattr(head, "bias", None) is not None:
                raise UserError(
                    f"The output head of {name} has a bias.", fix="Use models without one: nearly all recent ones."
                )
        self.widths = [head.weight.shape[1] for head in heads]
        # Rows beyond the vocabulary fill a head up to a round number, which is another one in each size of a family.
        self.rows = min(rows, *(head.weight.shape[0] for head in heads))
        self.config = copy.deepcopy(next(iter(members.values())).config.get_text_config())
        self.config.vocab_size = rows
        for name in SCALES:
            if getattr(self.config, name, None) is not None:
                setattr(self.config, name, None)  # already in the weights of the head
        self._head: nn.Linear | None = None
        self.requires_grad_(requires_grad=False)
        self.eval()

    def get_output_embeddings(self) -> nn.Linear:
        """Return the heads of all members side by side, each times its weight in the sum of logits."""
        if self._head is None:
            weights = [1.0] + [0.0] * (len(self.widths) - 1)
            for alpha, plus, minus in self.contrasts:
                weights[plus] += alpha
                weights[minus] -= alpha
            parts = [
                head[: self.rows].float() * (weight * scale)
                for head, weight, scale in zip(self._heads(), weights, self.scales, strict=True)
            ]
            joined = torch.cat(parts, dim=1)
            self._head = nn.Linear(joined.shape[1], joined.shape[0], bias=False, device="meta")
            self._head.weight = nn.Parameter(joined, requires_grad=False)
        return self._head

    def log_probs(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the target's log-probabilities, with its mask.

        Args:
            hidden: Last hidden states of all members side by side, [positions, sum of widths].

        Returns:
            [positions, vocabulary], in float32.
        """
        logits = [
            part @ head[: self.rows].float().T * scale
            for part, head, scale in zip(
                hidden.float().split(self.widths, dim=-1), self._heads(), self.scales, strict=True
            )
        ]
        contrasts = [(alpha, logits[plus], logits[minus]) for alpha, plus, minus in self.contrasts]
        return fused_log_probs(logits[0], contrasts, self.plausibility)

    def _heads(self) -> list[torch.Tensor]:
        return [member.get_output_embeddings().weight.detach() for member in self.base_model.members]


def load_teacher(
    anchor: str,
    contrasts: Sequence[tuple[float, str, str]],
    load: Callable[[str], Any],
    plausibility: float | None,
    rows: int,
) -> FusedTeacher:
    """Load a fused teacher; a model that stands in several places is loaded once.

    Args:
        anchor: Model whose logits are shifted.
        contrasts: For each alpha, plus and minus.
        load: Loads a model.
        plausibility: See :class:`~w2s_align.families.fusion.Fusion`.
        rows: Rows of the student's head.
    """
    names = dict.fromkeys([anchor, *(name for _, plus, minus in contrasts for name in (plus, minus))])
    return FusedTeacher({name: load(name) for name in names}, contrasts, plausibility, rows)
