"""online_dpo: preference tuning on pairs that the student writes and a scorer orders, by TRL's trainer.

    train("Qwen/Qwen2.5-1.5B-Instruct", "prompts.parquet", "out",
          OnlineDPOSettings(learning_rate=5e-7, reward="math"))

Online DPO, arXiv 2402.04792, with a scorer in place of the judge. See docs/methods/on_policy.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from w2s_align.training.arguments import build_config
from w2s_align.training.method import Method
from w2s_align.training.methods.grpo import PROMPTS, PulledSettings, prepare_rewarded
from w2s_align.training.rewards import check_reward, reward_function
from w2s_align.training.rollouts import rollout_health, rollout_trainer

if TYPE_CHECKING:
    from w2s_align.training.plan import TrainingPlan


class OnlineDPOSettings(PulledSettings):
    """Online DPO: two responses to each prompt, of which the better one is chosen; equal ones teach nothing."""

    num_generations: Literal[2] = 2
    """Responses to a prompt. batch_size counts responses."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: that of DPO. ipo: its squared form."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the start model."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _no_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value:
            raise ValueError("TRL's online DPO trainer gives the chat template no arguments; leave them out")
        return value


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl.experimental.online_dpo import OnlineDPOConfig

    from w2s_align.training.online_pairs import OnlinePairsTrainer

    settings = plan.settings
    assert isinstance(settings, OnlineDPOSettings)
    vllm = settings.rollouts != "transformers"
    config = build_config(
        OnlineDPOConfig,
        plan,
        per_device_train_batch_size=max(1, plan.micro_batch_size // 2),  # it counts prompts
        max_new_tokens=settings.max_completion_length,
        max_length=plan.data.longest,
        temperature=settings.temperature,
        beta=[settings.beta],
        loss_type=settings.loss,
        reward_weights=settings.reward_weights,
        use_vllm=vllm,
        **({"vllm_mode": settings.rollouts.removeprefix("vllm_")} if vllm else {}),
    )
    rewards = [reward_function(check_reward(scorer), plan.start.stop_ids) for scorer in settings.rewards]
    return rollout_trainer(OnlinePairsTrainer, plan, callbacks, args=config, reward_funcs=rewards)


METHODS = (
    Method(
        name="online_dpo",
        title="online direct preference optimization",
        summary="Let a model write two responses to each prompt, and tune it on the one that a scorer prefers.",
        settings=OnlineDPOSettings,
        prepare=prepare_rewarded,
        trainer=_trainer,
        inputs=PROMPTS,
        health=rollout_health,
        sides=1,
        logits="whole",
        frozen_passes=1,
    ),
)
