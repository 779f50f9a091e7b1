"""Supervised fine-tuning on responses by TRL's SFT trainer, from a pretrained model or from random weights.

Reads a start model and chats or pairs; writes what :mod:`w2s_align.training.loop` describes.

    report = train_sft("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", SFTSettings(learning_rate=1e-7))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from w2s_align.training.arguments import build_config, trainer_arguments
from w2s_align.training.data import TrainingData, prepare_chats
from w2s_align.training.formats import Rows
from w2s_align.training.health import Health
from w2s_align.training.job import Job
from w2s_align.training.loop import Progress, train
from w2s_align.training.methods.catalogue import Method
from w2s_align.training.padding_free import packed_passes
from w2s_align.training.report import TrainingReport
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import SFTSettings
from w2s_align.training.tokens import ChatEncoder


def train_sft(
    model: str | os.PathLike[str],
    rows: Rows,
    out: str | os.PathLike[str],
    settings: SFTSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    launch: str = "single",
    progress: Progress | None = None,
) -> TrainingReport:
    """Train a model on responses; the prompt carries no loss.

    The arguments are those of :func:`w2s_align.training.loop.train`; for the rows see
    :func:`w2s_align.training.data.prepare_chats`. The weights of the start model may be random.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    return train(
        METHODS["sft"], model, rows, out, settings, seed=seed, resources=resources, launch=launch, progress=progress
    )


def _prepare(rows: Rows, encoder: ChatEncoder, settings: SFTSettings, folder: Path, seed: int) -> TrainingData:
    return prepare_chats(rows, encoder, settings, folder)


def _trainer(job: Job, callbacks: list[Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    settings = job.settings
    assert isinstance(settings, SFTSettings)
    rows, held_out = job.split()
    config = build_config(
        SFTConfig,
        job,
        loss_type=settings.loss,
        # Rows are tokens with labels already, which also keeps a true EOS trained where pad equals EOS (trl#3091).
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    with packed_passes("sft_trainer", pairs=False, on=job.padded_because is None):
        return SFTTrainer(args=config, train_dataset=rows, eval_dataset=held_out, **trainer_arguments(job, callbacks))


def _health(job: Job) -> Health:
    return Health(exact=job.dtype == "float32")


METHODS = {
    "sft": Method(
        name="sft",
        title="supervised fine-tuning",
        settings=SFTSettings,
        sides=1,
        prepare=_prepare,
        trainer=_trainer,
        health=_health,
    )
}
