"""distill: on-policy distillation; the student writes responses and learns a target on each of their tokens.

    train(student, "prompts.parquet", "out", DistillSettings(
        learning_rate=1e-6, contrasts=[{"plus": "Qwen/Qwen3-4B", "minus": "Qwen/Qwen3-0.6B"}]))

The target is that of fused models (families/fusion.py): the student's own start, shifted by what a weak expert has
learned (W2S-OPD, arXiv 2607.26246), or a teacher alone (on-policy distillation, arXiv 2306.13649). See
docs/methods/on_policy.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from w2s_align.errors import UserError
from w2s_align.families.fusion import Contrast, check_vocabularies, contrast_models, replace_models
from w2s_align.training.arguments import build_config
from w2s_align.training.layout import Layout
from w2s_align.training.method import Inputs, Method
from w2s_align.training.models import open_start
from w2s_align.training.resources import TrainResources
from w2s_align.training.rollouts import (
    RolloutSettings,
    prepare_prompts,
    rollout_arguments,
    rollout_health,
    rollout_trainer,
)

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder

BETAS = {"forward_kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}
"""TRL's ``beta``, which names a divergence."""


class DistillSettings(RolloutSettings):
    """On-policy distillation towards a teacher, or towards the student's own start shifted by contrasts."""

    teacher: str | None = None
    """The model that the target begins with: a hub id, a folder, or $step. Default: the start model as it is before
    the first step (W2S-OPD). With contrasts of itself and alpha = lambda - 1 it is ExOPD (arXiv 2602.12125)."""
    contrasts: list[Contrast] = []
    """Pairs of models whose differences shift the target: [{plus: $weak, minus: $weaker, alpha: 1}]."""
    plausibility: float | None = Field(0.1, gt=0, lt=1)
    """The contrasts shift only tokens that the anchor finds at least this likely, relative to its most likely one.
    null shifts all, and then TRL's own loss is used."""
    top_k: int | None = Field(None, gt=0)
    """Compare only the target's so many most likely tokens (32 in arXiv 2607.26246). Default: all."""
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    """reverse_kl: KL(student || target), which asks only about what the student writes. forward_kl: the other way
    round. jsd: Jensen-Shannon."""

    @model_validator(mode="after")
    def _has_a_target(self) -> DistillSettings:
        if self.teacher is None and not self.contrasts:
            raise ValueError(
                "there is nothing to learn: the student's own start is the target. Give contrasts: "
                "[{plus: ..., minus: ...}], or a teacher"
            )
        return self

    def models(self) -> dict[str, str]:
        """Return the frozen models by the place that names them."""
        return ({} if self.teacher is None else {"teacher": self.teacher}) | contrast_models(self.contrasts)

    def frozen_models(self) -> dict[str, str | None]:
        """Return the members of the target, the start among them where it is the anchor."""
        return {**({} if self.teacher else {"anchor": None}), **self.models()}

    def with_models(self, models: dict[str, str]) -> DistillSettings:
        """Return these settings with other models in the same places."""
        contrasts = replace_models(self.contrasts, models)
        return self.model_copy(update={"teacher": models.get("teacher", self.teacher), "contrasts": contrasts})

    def check_rollouts(self, resources: TrainResources, layout: Layout) -> None:
        """Refuse a launch that would take the members of the target apart.

        Raises:
            UserError: With what to use instead.
        """
        super().check_rollouts(resources, layout)
        if layout.shards_weights:
            raise UserError(
                f"distill cannot be combined with launch: {layout.name}.",
                "The heads of the target's models are read outside of their forward pass, where none is whole.",
                "Use ddp or zero2, with an adapter where memory is short.",
            )

    def advice(self) -> list[str]:
        """Return sentences about settings that are allowed but rarely meant."""
        strong = [c.alpha for c in self.contrasts if abs(c.alpha) > 1]
        if strong and self.plausibility is None:
            return [
                f"alpha {strong[0]:g} without plausibility: beyond 1 the shift makes tokens likely that no model "
                "would write (docs/methods/on_policy.md)."
            ]
        return []


def _prepare(rows: Rows, encoder: ChatEncoder, settings: DistillSettings, folder: Path, seed: int) -> TrainingData:
    return prepare_prompts(rows, encoder, settings, folder, seed)


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from transformers import AutoConfig
    from trl import DistillationConfig

    from w2s_align.training.fused_teacher import load_teacher

    settings = plan.settings
    assert isinstance(settings, DistillSettings)
    anchor = settings.teacher or plan.start.path
    contrasts = [(c.alpha, c.plus, c.minus) for c in settings.contrasts]
    members = {model: open_start(model) for model in [anchor, *settings.models().values()]}
    check_vocabularies(
        {plan.start.source: plan.start.tokenizer.get_vocab()}
        | {model: opened.tokenizer.get_vocab() for model, opened in members.items()}
    )
    config = AutoConfig.from_pretrained(plan.start.path, trust_remote_code=False)
    student_rows = config.get_text_config().vocab_size
    teacher = load_teacher(
        anchor, contrasts, lambda model: members[model].load(plan.dtype), settings.plausibility, student_rows
    )
    arguments = {
        "teacher_model": teacher,
        "args": build_config(
            DistillationConfig, plan, beta=BETAS[settings.divergence], disable_dropout=True, **rollout_arguments(plan)
        ),
    }
    masked = settings.top_k is not None or (contrasts and settings.plausibility is not None)
    if not masked and teacher.rows == student_rows:
        from trl import DistillationTrainer

        return rollout_trainer(DistillationTrainer, plan, callbacks, **arguments)
    from w2s_align.training.distillation import MaskedDistillationTrainer

    own = {"divergence": settings.divergence, "tokens": settings.top_k}
    return rollout_trainer(MaskedDistillationTrainer, plan, callbacks, **arguments, **own)


METHODS = (
    Method(
        name="distill",
        title="on-policy distillation",
        summary="Let a model write responses, and teach it a target on each of their tokens.",
        settings=DistillSettings,
        prepare=_prepare,
        trainer=_trainer,
        inputs=Inputs("prompts", ("prompts",), "Prompts that the student responds to in training."),
        health=rollout_health,
        sides=1,
        shuffled=False,
        frozen_passes=3,
    ),
)
