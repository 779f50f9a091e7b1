"""Supervised fine-tuning on responses by TRL's SFT trainer, from a pretrained model or from random weights.

Reads a start model and chats or pairs; writes what :mod:`w2s_align.training.loop` describes.

    report = train_sft("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", SFTSettings(learning_rate=1e-7))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from w2s_align.training.data import Rows, prepare_chats
from w2s_align.training.health import Health
from w2s_align.training.loop import Progress, build_config, check_devices, fit, plan, quiet
from w2s_align.training.models import lora_config, open_start
from w2s_align.training.report import TrainingReport
from w2s_align.training.settings import SFTSettings, TrainResources
from w2s_align.training.tokens import ChatEncoder


def train_sft(
    model: str | os.PathLike[str],
    rows: Rows,
    out: str | os.PathLike[str],
    settings: SFTSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    progress: Progress | None = None,
) -> TrainingReport:
    """Train a model on responses; the prompt carries no loss.

    Calling it again with the same arguments goes on where a killed call stopped, and ends in the same weights.

    Args:
        model: Start model: a folder (its weights may be random) or a hub id.
        rows: See :func:`w2s_align.training.data.prepare_chats`.
        out: Output folder, for this training alone.
        settings: What changes the result.
        seed: Seed of the order of rows, of dropout and of the adapter's initial values.
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
        data = prepare_chats(rows, encoder, settings, folder / "cache")
        job = plan("sft", start, data, folder, settings, resources, seed, sides=1)

    def make_trainer(callbacks: list[Any]) -> Any:
        from transformers import AutoTokenizer
        from trl import SFTConfig, SFTTrainer

        config = build_config(
            SFTConfig,
            job,
            loss_type=settings.loss,
            # Rows are tokens with labels already, which also keeps a true EOS trained where pad equals EOS (trl#3091).
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        return SFTTrainer(
            model=start.path,
            args=config,
            train_dataset=data.dataset(),
            processing_class=AutoTokenizer.from_pretrained(start.path),
            peft_config=lora_config(settings.adapter) if settings.adapter else None,
            callbacks=callbacks,
        )

    return fit(job, make_trainer, Health(exact=job.dtype == "float32"), progress)
