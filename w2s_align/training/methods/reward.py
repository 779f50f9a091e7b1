"""Reward models: one score for a chat, trained on pairs (Bradley-Terry) by TRL's reward trainer.

Reads a start model and preference pairs; writes a sequence classifier with one label, which the reward scorer opens.

    report = train_reward("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", RewardSettings(learning_rate=1e-5))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from w2s_align.errors import UserError
from w2s_align.training.methods.catalogue import Method
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.health import Health
    from w2s_align.training.job import Job
    from w2s_align.training.loop import Progress
    from w2s_align.training.report import TrainingReport
    from w2s_align.training.resources import TrainResources
    from w2s_align.training.tokens import ChatEncoder


class RewardModelSettings(TrainSettings):
    """Loss: -log sigmoid(score of the chosen - score of the rejected), arXiv 2203.02155, equation 1."""

    center_rewards: float | None = Field(None, gt=0)
    """Weight of a term that keeps the mean score at 0 (arXiv 2312.09244, equation 2); 0.01 is usual."""
    pad_token: str | None = None
    """Token that fills up batches. The score is read at the last token that is not this one, so that it must not end a
    turn. Default: the tokenizer's own, or a special token of its vocabulary that is named for padding."""
    disable_dropout: bool = True
    """Switch off all dropout."""

    @field_validator("quick_task")
    @classmethod
    def _writes_no_answers(cls, value: object) -> None:
        if value is not None:
            raise ValueError("a reward model writes no answers; follow held-out pairs: held_out")


def train_reward(
    model: str | os.PathLike[str],
    pairs: Rows,
    out: str | os.PathLike[str],
    settings: RewardModelSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    launch: str = "single",
    progress: Progress | None = None,
) -> TrainingReport:
    """Train a reward model on preference pairs; a start without a score head gets one with random weights.

    The arguments are those of :func:`w2s_align.training.loop.train`; for the pairs see
    :func:`w2s_align.training.data.prepare_pairs`.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    from w2s_align.training.loop import train

    reward = METHODS["reward"]
    return train(reward, model, pairs, out, settings, seed=seed, resources=resources, launch=launch, progress=progress)


def padding_token(tokenizer: Any, wanted: str | None) -> str:
    """Return the token that may fill up the batches of a reward model.

    Args:
        tokenizer: The start model's tokenizer.
        wanted: The token that the user names, or None.

    Raises:
        UserError: There is none, or it ends turns: the score would be read at the wrong place.
    """
    vocabulary = tokenizer.get_vocab()
    named = [t for t in tokenizer.get_added_vocab() if "pad" in t.lower()]
    candidates = [wanted] if wanted else [tokenizer.pad_token, *named]
    for token in candidates:
        if token is not None and token in vocabulary and token != tokenizer.eos_token:
            return str(token)
    found = wanted or tokenizer.pad_token
    raise UserError(
        f"The tokenizer has no token for padding{f' but {found!r}, which is its EOS' if found in vocabulary else ''}.",
        "A reward model's score is read at the last token that is no padding: an EOS would be passed over.",
        "Set pad_token to a special token of its vocabulary that no chat contains.",
    )


def _prepare(
    pairs: Rows, encoder: ChatEncoder, settings: RewardModelSettings, folder: Path, seed: int
) -> TrainingData:
    from w2s_align.training.data import prepare_pairs

    # The tokenizer is the start model's own object: the saved model tells its padding token by it.
    encoder.tokenizer.pad_token = padding_token(encoder.tokenizer, settings.pad_token)
    return prepare_pairs(pairs, encoder, settings, folder, tokens=True)


def _trainer(job: Job, callbacks: list[Any]) -> Any:
    from trl import RewardConfig, RewardTrainer

    from w2s_align.training.arguments import build_config, trainer_arguments

    settings = job.settings
    assert isinstance(settings, RewardModelSettings)
    arguments = trainer_arguments(job, callbacks)
    for tokenizer in (arguments["processing_class"], job.start.tokenizer):
        tokenizer.pad_token = padding_token(tokenizer, settings.pad_token)
    config = build_config(
        RewardConfig,
        job,
        center_rewards_coefficient=settings.center_rewards,
        disable_dropout=settings.disable_dropout,
    )
    rows, held_out = job.split()
    return RewardTrainer(args=config, train_dataset=rows, eval_dataset=held_out, **arguments)


def _health(job: Job) -> Health:
    from w2s_align.training.health import Health

    return Health(exact=job.dtype == "float32")


METHODS = {
    "reward": Method(
        name="reward",
        title="reward modelling",
        settings=RewardModelSettings,
        sides=2,
        prepare=_prepare,
        trainer=_trainer,
        health=_health,
        task="reward",
    )
}
