"""oprd: reinforcement whose gradient is amplified along what training has changed in a weak teacher.

    train(student, "prompts.parquet", "out",
          OPRDSettings(learning_rate=1e-6, teacher=after_rl, teacher_start=before_rl))

OPRD, arXiv 2609.08798: a verifier says which way, the teacher says where. See docs/methods/on_policy.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from w2s_align.families.fusion import check_vocabularies
from w2s_align.training.method import Method
from w2s_align.training.methods.grpo import PROMPTS, RewardedSettings, prepare_rewarded, rewarded_trainer
from w2s_align.training.models import open_start
from w2s_align.training.rollouts import rollout_health

if TYPE_CHECKING:
    from w2s_align.training.plan import TrainingPlan


class OPRDSettings(RewardedSettings):
    """On-policy reverse distillation (arXiv 2609.08798): GRPO without division by the deviation, times
    ``I + strength d d^T``, with d the direction in which the teacher was moved."""

    teacher: str
    """A weak model after reinforcement: a hub id, a folder, or $step."""
    teacher_start: str
    """What the teacher was before it."""
    strength: float = Field(0.5, ge=0)
    """Lambda: how much the part along the direction is amplified; 0 is GRPO."""
    strength_warmup: int = Field(30, ge=0)
    """Updates until parts that point against the teacher's direction are amplified as well."""
    top_k: int = Field(10, gt=0)
    """The direction is over the student's so many most likely tokens and the one that it wrote."""
    direction: Literal["teacher", "random"] = "teacher"
    """random: another direction at each token, as control. Exchanging teacher and teacher_start is none: the update
    is the same for d and -d."""

    def models(self) -> dict[str, str]:
        """Return the frozen models by the place that names them."""
        return {"teacher": self.teacher, "teacher_start": self.teacher_start}

    def frozen_models(self) -> dict[str, str | None]:
        """Return the teacher and what it was."""
        return {**self.models()}

    def with_models(self, models: dict[str, str]) -> OPRDSettings:
        """Return these settings with other models in the same places."""
        return self.model_copy(update=models)


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import GRPOConfig

    from w2s_align.training.oprd import OPRDTrainer

    settings = plan.settings
    assert isinstance(settings, OPRDSettings)
    opened = {name: open_start(model) for name, model in settings.models().items()}
    check_vocabularies(
        {plan.start.source: plan.start.tokenizer.get_vocab()}
        | {model.source: model.tokenizer.get_vocab() for model in opened.values()}
    )

    def trainer(**arguments: Any) -> Any:
        return OPRDTrainer(
            opened["teacher"].load(plan.dtype),
            opened["teacher_start"].load(plan.dtype),
            amount=settings.strength,
            warmup=settings.strength_warmup,
            top_k=settings.top_k,
            random_direction=settings.direction == "random",
            **arguments,
        )

    return rewarded_trainer(trainer, GRPOConfig, plan, callbacks, loss_type="dapo", scale_rewards="none")


METHODS = (
    Method(
        name="oprd",
        title="on-policy reverse distillation",
        summary="Reinforcement whose gradient is amplified along what training has changed in a weak teacher.",
        settings=OPRDSettings,
        prepare=prepare_rewarded,
        trainer=_trainer,
        inputs=PROMPTS,
        health=rollout_health,
        sides=1,
        shuffled=False,
        logits="whole",
        frozen_passes=2,
    ),
)
