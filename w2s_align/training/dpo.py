"""Preference tuning: pairs in, a tuned model out, by TRL's DPO trainer.

Reads a start model and preference pairs; writes what :mod:`w2s_align.training.loop` describes.

    report = train_dpo("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out",
                       DPOSettings(loss="sigmoid_norm", beta=5, learning_rate=5e-7))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from w2s_align.training.data import Rows, prepare_pairs
from w2s_align.training.health import Health
from w2s_align.training.loop import Progress, build_config, check_devices, fit, plan, quiet
from w2s_align.training.models import lora_config, open_start
from w2s_align.training.report import TrainingReport
from w2s_align.training.settings import DPOSettings, TrainResources
from w2s_align.training.tokens import ChatEncoder


def train_dpo(
    model: str | os.PathLike[str],
    pairs: Rows,
    out: str | os.PathLike[str],
    settings: DPOSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    progress: Progress | None = None,
) -> TrainingReport:
    """Tune a model on preference pairs; the reference is the model as given.

    Calling it again with the same arguments goes on where a killed call stopped, and ends in the same weights.

    Args:
        model: Start model: a folder or a hub id.
        pairs: See :func:`w2s_align.training.data.prepare_pairs`.
        out: Output folder, for this training alone.
        settings: What changes the result.
        seed: Seed of the order of pairs and of the adapter's initial values.
        resources: What does not change the result.
        progress: Called after each step with steps done, steps in all, and a note.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    resources = resources or TrainResources()
    check_devices(resources)
    with quiet():
        start = open_start(model)
        encoder = ChatEncoder(start.tokenizer, start.stop_ids, settings.chat_template_kwargs, settings.template_check)
        folder = Path(out)
        cache = Path(resources.cache_dir) if resources.cache_dir else folder / "cache"
        data = prepare_pairs(pairs, encoder, settings, cache)
        job = plan("dpo", start, data, folder, settings, resources, seed, sides=2)

    def make_trainer(callbacks: list[Any]) -> Any:
        from transformers import AutoTokenizer
        from trl import DPOConfig, DPOTrainer
        from trl.trainer.dpo_trainer import DataCollatorForPreference

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
            precompute_ref_log_probs=resources.precompute_ref_log_probs,
            precompute_ref_batch_size=resources.precompute_ref_batch_size,
        )
        # The trainer changes its tokenizer (pad token); the one that is saved stays as it was.
        tokenizer = AutoTokenizer.from_pretrained(start.path)
        collator = None
        if settings.too_long == "truncate":
            pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
            collator = DataCollatorForPreference(pad_token_id=pad, max_length=settings.max_length)
        return DPOTrainer(
            model=start.path,
            args=config,
            train_dataset=data.dataset(),
            data_collator=collator,
            processing_class=tokenizer,
            peft_config=lora_config(settings.adapter) if settings.adapter else None,
            callbacks=callbacks,
        )

    health = Health(
        start_loss=settings.start_loss(),
        beta=settings.beta,
        check_start=settings.disable_dropout,
        exact=job.dtype == "float32",
    )
    return fit(job, make_trainer, health, progress)
