"""Preference tuning: pairs in, a tuned model out, by TRL's DPO trainer.

Reads a start model and preference pairs; writes what :mod:`w2s_align.training.loop` describes.

    report = train_dpo("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out",
                       DPOSettings(loss="sigmoid_norm", beta=5, learning_rate=5e-7))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from w2s_align.training.arguments import build_config, pad_id, trainer_arguments
from w2s_align.training.data import TrainingData, prepare_pairs
from w2s_align.training.formats import Rows
from w2s_align.training.health import Health
from w2s_align.training.job import Job
from w2s_align.training.loop import Progress, train
from w2s_align.training.methods.catalogue import Method
from w2s_align.training.padding_free import packed_passes
from w2s_align.training.reference import Reference
from w2s_align.training.report import TrainingReport
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import NORMALISED_LOSSES, DPOSettings
from w2s_align.training.tokens import ChatEncoder


def train_dpo(
    model: str | os.PathLike[str],
    pairs: Rows,
    out: str | os.PathLike[str],
    settings: DPOSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    launch: str = "single",
    progress: Progress | None = None,
) -> TrainingReport:
    """Tune a model on preference pairs; the reference is the model as given.

    The arguments are those of :func:`w2s_align.training.loop.train`; for the pairs see
    :func:`w2s_align.training.data.prepare_pairs`.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    return train(
        METHODS["dpo"], model, pairs, out, settings, seed=seed, resources=resources, launch=launch, progress=progress
    )


def _prepare(pairs: Rows, encoder: ChatEncoder, settings: DPOSettings, folder: Path, seed: int) -> TrainingData:
    return prepare_pairs(pairs, encoder, settings, folder, ld_alpha=settings.ld_alpha)


def _trainer(job: Job, callbacks: list[Any]) -> Any:
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    settings, resources = job.settings, job.resources
    assert isinstance(settings, DPOSettings)
    rows, held_out = job.split()
    arguments = trainer_arguments(job, callbacks)
    reference = Reference.of(job, {"ld_alpha": settings.ld_alpha})
    rows, held_out, known = reference.offer(rows, held_out)
    config = build_config(
        DPOConfig,
        job,
        loss_type=settings.losses,
        loss_weights=settings.loss_weights,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        f_divergence_type=settings.f_divergence_type,
        f_alpha_divergence_coef=settings.f_alpha_divergence_coef,
        ld_alpha=settings.ld_alpha,
        use_weighting=settings.use_weighting,
        discopop_tau=settings.discopop_tau,
        disable_dropout=settings.disable_dropout,
        precompute_ref_log_probs=resources.precompute_ref_log_probs and not known,
        precompute_ref_batch_size=resources.precompute_ref_batch_size,
    )
    collator = None
    if settings.too_long == "truncate":
        pad = pad_id(arguments["processing_class"])
        collator = DataCollatorForPreference(pad_token_id=pad, max_length=settings.max_length)
    with packed_passes("dpo_trainer", pairs=True, on=job.padded_because is None):
        trainer = DPOTrainer(
            args=config, train_dataset=rows, eval_dataset=held_out, data_collator=collator, **arguments
        )
    reference.take(trainer)
    return trainer


def _health(job: Job) -> Health:
    settings = job.settings
    assert isinstance(settings, DPOSettings)
    lengths = (job.data.lengths["chosen"]["mean"], job.data.lengths["rejected"]["mean"])
    return Health(
        start_loss=settings.start_loss(),
        beta=settings.beta,
        check_start=settings.disable_dropout,
        exact=job.dtype == "float32" and not (settings.adapter and settings.adapter.load_in_4bit),
        lengths=lengths if NORMALISED_LOSSES & set(settings.losses) else None,
    )


METHODS = {
    "dpo": Method(
        name="dpo",
        title="direct preference optimisation",
        settings=DPOSettings,
        sides=2,
        prepare=_prepare,
        trainer=_trainer,
        health=_health,
    )
}
