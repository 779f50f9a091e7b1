"""Fusion of language models with one vocabulary: the logits of one, shifted by what sets others apart.

The target of a prefix is the softmax of ``z(anchor) + sum over contrasts of alpha * (z(plus) - z(minus))``. The same
target decodes (proxy tuning, arXiv 2401.08565; contrastive decoding) and teaches (weak-to-strong on-policy
distillation, arXiv 2607.26246). Formulas and sources: docs/methods/on_policy.md. Imports no torch; the arithmetic is
in fused_logits.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.records import Settings


class Contrast(Settings):
    """Two models of one vocabulary; the better one less the worse one is a direction."""

    plus: str
    """The better of the two: a hub id, a folder, or $step."""
    minus: str
    """The worse of the two: its base before training, or a smaller one of its family."""
    alpha: float = 1.0
    """How far the target goes in that direction; below 0, the opposite way."""


class Fusion(Settings):
    """What the logits of a model are shifted by."""

    contrasts: list[Contrast] = Field(min_length=1)
    """Pairs of models whose differences are added up."""
    plausibility: float | None = Field(0.1, gt=0, lt=1)
    """Only tokens that the model itself finds at least this likely, relative to its most likely one, are shifted: the
    differences of other tokens are noise, which at alpha above 1 makes nonsense likely. null shifts all."""

    def models(self) -> dict[str, str]:
        """Return the models of the contrasts by the place that names them."""
        return contrast_models(self.contrasts)

    def with_models(self, models: Mapping[str, str]) -> Fusion:
        """Return the same fusion with other models in the same places."""
        return self.model_copy(update={"contrasts": replace_models(self.contrasts, models)})


def contrast_models(contrasts: Sequence[Contrast]) -> dict[str, str]:
    """Return the models of contrasts by the place that names them, e.g. ``contrasts.0.plus``."""
    return {
        f"contrasts.{number}.{side}": getattr(contrast, side)
        for number, contrast in enumerate(contrasts)
        for side in ("plus", "minus")
    }


def replace_models(contrasts: Sequence[Contrast], models: Mapping[str, str]) -> list[Contrast]:
    """Return contrasts with other models in the same places.

    Args:
        contrasts: The contrasts.
        models: New models, by the places of :func:`contrast_models`.
    """
    return [
        contrast.model_copy(
            update={
                side: models.get(f"contrasts.{number}.{side}", getattr(contrast, side)) for side in ("plus", "minus")
            }
        )
        for number, contrast in enumerate(contrasts)
    ]


def check_vocabularies(vocabularies: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse models that do not read the same token ids.

    Args:
        vocabularies: ``tokenizer.get_vocab()`` by model; the first one's is the student's.

    Raises:
        UserError: One of them differs, by its first token that does.
    """
    (student, known), *others = vocabularies.items()
    for model, found in others:
        if found == known:
            continue
        different = sorted((token for token in {*known, *found} if known.get(token) != found.get(token)), key=str)
        raise UserError(
            f"{model} has another vocabulary than {student}.",
            f"{len(different):,} tokens differ, e.g. {different[0]!r}: {known.get(different[0])} against "
            f"{found.get(different[0])}. Logits are added up by token id.",
            "Name models of one family, with the same tokenizer.",
        )


def logit_scale(config: Any) -> float:
    """Return what a model multiplies its logits by.

    Args:
        config: Its configuration in transformers.

    Raises:
        UserError: Its logits are bounded by a function that no factor replaces.
    """
    text = config.get_text_config()
    if getattr(text, "final_logit_softcapping", None):
        raise UserError(
            f"The logits of a {text.model_type} model are capped (final_logit_softcapping).",
            "A sum of its logits is not what a fused model would say.",
            "Use models without it, e.g. of the Qwen, Llama or OLMo families.",
        )
    if getattr(text, "logits_scaling", None) is not None:  # Granite divides
        return 1 / float(text.logits_scaling)
    found: Sequence[Any] = [getattr(text, name, None) for name in ("logit_scale", "lm_head_multiplier")]
    return float(next((value for value in found if value is not None), 1.0))
