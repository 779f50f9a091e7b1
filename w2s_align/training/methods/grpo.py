"""grpo, rloo: reinforcement with verifiable rewards by TRL's trainers; the supervised ceiling of label-free methods.

    train("Qwen/Qwen2.5-1.5B-Instruct", "prompts.parquet", "out",
          GRPOSettings(learning_rate=1e-6, reward="math", num_generations=8))

The student writes a group of responses to a prompt, scorers of the catalogue reward them, and each response is learned
by its advantage over its group (GRPO, arXiv 2402.03300; RLOO, arXiv 2402.14740). See docs/methods/on_policy.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from w2s_align.errors import UserError
from w2s_align.scoring.scorers import ScorerSettings
from w2s_align.training.arguments import build_config
from w2s_align.training.layout import Layout
from w2s_align.training.method import Inputs, Method
from w2s_align.training.resources import TrainResources
from w2s_align.training.rewards import check_reward, reward_function
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

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"loss_type": "grpo", "scale_rewards": "group"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {
        "loss_type": "dapo",
        "scale_rewards": "group",
        "epsilon_high": 0.28,
        "mask_truncated_completions": True,
    },
}
"""The published variants in TRL's names; DAPO without its dynamic sampling, which TRL does not have."""


class RewardedSettings(RolloutSettings):
    """What is set where responses are rewarded."""

    reward: str | ScorerSettings | list[str | ScorerSettings] = "auto"
    """Scorer that rewards a response: its name, or {name: ..., options}; of several, their weighted sum. auto: the
    answer check of each prompt's task."""
    reward_weights: list[float] | None = None
    """A weight for each scorer; all 1 when not given."""
    num_generations: int = Field(8, ge=2)
    """Responses to a prompt that are compared with each other. batch_size counts responses and is a multiple."""

    @model_validator(mode="after")
    def _groups_are_whole(self) -> RewardedSettings:
        number = len(self.rewards)
        if self.reward_weights is not None and len(self.reward_weights) != number:
            raise ValueError(f"reward has {number} scorers and reward_weights {len(self.reward_weights)} numbers")
        if self.batch_size % self.num_generations:
            raise ValueError(
                f"batch_size {self.batch_size} counts responses and must be a multiple of num_generations "
                f"{self.num_generations}"
            )
        if self.held_out:
            raise ValueError("held_out has no loss to follow here; follow the accuracy: quick_task: {prompts: ...}")
        return self

    @property
    def rewards(self) -> list[str | ScorerSettings]:
        """The scorers as a list."""
        return list(self.reward) if isinstance(self.reward, list) else [self.reward]

    @property
    def responses_per_prompt(self) -> int:
        """The size of a group."""
        return self.num_generations

    def check_rollouts(self, resources: TrainResources, layout: Layout) -> None:
        """Refuse groups that processes would tear apart, scorers that cannot reward, and more.

        Raises:
            UserError: With what to use instead.
        """
        super().check_rollouts(resources, layout)
        for scorer in self.rewards:
            check_reward(scorer)
        if self.batch_size % (self.num_generations * layout.processes):
            raise UserError(
                f"batch_size {self.batch_size} gives {layout.processes} processes no whole groups of "
                f"{self.num_generations} responses.",
                fix=f"Use a multiple of {self.num_generations * layout.processes}.",
            )


class PulledSettings(RewardedSettings):
    """What is set where rewards pull away from the start model, and a penalty back to it."""

    beta: float = Field(0.0, ge=0)
    """Strength of the pull towards the start model; 0 keeps no second model."""

    def frozen_models(self) -> dict[str, str | None]:
        """Return the copy of the start that the pull needs; an adapter is switched off instead."""
        return {"reference": None} if self.beta and self.adapter is None else {}


class GRPOSettings(PulledSettings):
    """Group relative policy optimization and its variants."""

    variant: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    """grpo: loss by response, advantages divided by their group's deviation (arXiv 2402.03300). dr_grpo: neither
    (arXiv 2503.20783). dapo: loss by token, a higher upper clip, cut responses left out (arXiv 2503.14476)."""
    epsilon: float = Field(0.2, gt=0)
    """Probability ratios are clipped at 1 - epsilon and 1 + epsilon."""


class RLOOSettings(PulledSettings):
    """REINFORCE with the mean of the other responses as baseline."""

    num_generations: int = Field(4, ge=2)
    """Responses to a prompt, each compared with the mean of the others. batch_size counts responses."""
    beta: float = Field(0.05, ge=0)
    """Strength of the pull towards the start model, as a part of the reward."""


def prepare_rewarded(
    rows: Rows, encoder: ChatEncoder, settings: RewardedSettings, folder: Path, seed: int
) -> TrainingData:
    """Store prompts with what their rewards are made of; see :func:`~w2s_align.training.rollouts.prepare_prompts`."""
    return prepare_prompts(rows, encoder, settings, folder, seed, records=True)


def rewarded_trainer(trainer: Any, config: Any, plan: TrainingPlan, callbacks: list[Any], **own: Any) -> Any:
    """Make a trainer whose responses are rewarded.

    Args:
        trainer: Its class.
        config: Class of its configuration.
        plan: The training.
        callbacks: The callbacks that the loop wants to be called.
        **own: What only this configuration knows.
    """
    settings = plan.settings
    assert isinstance(settings, RewardedSettings)
    arguments = build_config(
        config,
        plan,
        num_generations=settings.num_generations,
        reward_weights=settings.reward_weights,
        **rollout_arguments(plan),
        **own,
    )
    rewards = [reward_function(check_reward(scorer), plan.start.stop_ids) for scorer in settings.rewards]
    return rollout_trainer(trainer, plan, callbacks, args=arguments, reward_funcs=rewards)


def _grpo(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    settings = plan.settings
    assert isinstance(settings, GRPOSettings)
    own = {"beta": settings.beta, "epsilon": settings.epsilon, **VARIANTS[settings.variant]}
    return rewarded_trainer(GRPOTrainer, GRPOConfig, plan, callbacks, **own)


def _rloo(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import RLOOConfig, RLOOTrainer

    settings = plan.settings
    assert isinstance(settings, RLOOSettings)
    return rewarded_trainer(RLOOTrainer, RLOOConfig, plan, callbacks, beta=settings.beta)


PROMPTS = Inputs(
    "prompts", ("prompts",), "Prompts that the student responds to in training, with what rewards are made of."
)
"""What is asked in a training with rewards."""

METHODS = (
    Method(
        name="grpo",
        title="group relative policy optimization",
        summary="Let a model write groups of responses, and teach it those that a scorer finds better.",
        settings=GRPOSettings,
        prepare=prepare_rewarded,
        trainer=_grpo,
        inputs=PROMPTS,
        health=rollout_health,
        sides=1,
        shuffled=False,
    ),
    Method(
        name="rloo",
        title="REINFORCE leave-one-out",
        summary="Let a model write responses, and teach each by its reward less the mean of the others'.",
        settings=RLOOSettings,
        prepare=prepare_rewarded,
        trainer=_rloo,
        inputs=PROMPTS,
        health=rollout_health,
        sides=1,
        shuffled=False,
        frozen_passes=1,
    ),
)
