"""Fused decoding: at every step the model's logits are shifted by contrasts of other models that read the same tokens.

Each member keeps its own attention cache, so that a step costs one token in every model. Imports torch: import it
late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor

from w2s_align.families.fused_logits import OUTSIDE, fused_log_probs
from w2s_align.families.fusion import Fusion, check_vocabularies
from w2s_align.generation.models import ModelFiles, find_model


class FusedMembers:
    """The models of a fusion, loaded.

    Args:
        fusion: Which they are.
        model: The model whose logits they shift.
        dtype: Name of the dtype to load them in.
        device: Where they go.

    Raises:
        UserError: One of them has another vocabulary, or cannot be found.
    """

    def __init__(self, fusion: Fusion, model: ModelFiles, dtype: str, device: str) -> None:
        self.fusion = fusion
        names = dict.fromkeys(fusion.models().values())
        files = {name: find_model(name) for name in names}
        folders = {model.name: model.tokenizer_folder} | {
            name: found.tokenizer_folder for name, found in files.items()
        }
        check_vocabularies(
            {
                name: AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False).get_vocab()
                for name, folder in folders.items()
            }
        )
        self.models: dict[str, Any] = {
            name: AutoModelForCausalLM.from_pretrained(
                str(found.folder), dtype=getattr(torch, dtype), trust_remote_code=False, use_safetensors=True
            )
            .to(device)
            .eval()
            for name, found in files.items()
        }

    def processor(self, mask: torch.Tensor) -> FuseLogits:
        """Return what shifts the logits of one batch.

        Args:
            mask: 1 for tokens of the prompts, 0 for padding on the left, [rows, longest prompt].
        """
        return FuseLogits(self, mask)


class FuseLogits(LogitsProcessor):
    """Replaces the scores of a step by those of the fused model.

    Args:
        members: The models.
        mask: See :meth:`FusedMembers.processor`.
    """

    def __init__(self, members: FusedMembers, mask: torch.Tensor) -> None:
        self._members, self._mask = members, mask
        self._caches: dict[str, Any] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the fused log-probabilities. ``input_ids``: rows x length so far; ``scores``: rows x vocabulary."""
        more = input_ids.shape[1] - self._mask.shape[1]
        if more:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), more)], dim=1)
        logits = {name: self._next(name, input_ids) for name in self._members.models}
        # Rows beyond the vocabulary fill a head up to a round number, another one in each size of a family.
        rows = min([scores.shape[1], *(found.shape[1] for found in logits.values())])
        contrasts: Sequence[tuple[float, torch.Tensor, torch.Tensor]] = [
            (c.alpha, logits[c.plus][:, :rows], logits[c.minus][:, :rows])
            for c in self._members.fusion.contrasts
            if c.alpha
        ]
        if not contrasts:
            return scores
        fused = fused_log_probs(scores[:, :rows], contrasts, self._members.fusion.plausibility, remove=True)
        beyond = fused.new_full((len(fused), scores.shape[1] - rows), OUTSIDE)
        return torch.cat([fused, beyond], dim=1)

    def _next(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """Return a member's logits of the next token, [rows, its vocabulary]."""
        cache = self._caches.get(name)
        new = ids if cache is None else ids[:, -1:]
        places = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
        output = self._members.models[name](
            input_ids=new, attention_mask=self._mask, position_ids=places, past_key_values=cache, use_cache=True
        )
        self._caches[name] = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits
