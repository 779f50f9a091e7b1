"""What a training did, as plain values.

Written as ``training.json`` when all else is in place, so that it marks the end of a training.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_align.files import write_json
from w2s_align.training.counts import RowCounts

FILE = "training.json"
"""Name of the report's file; also of what a finished training leaves before it is verified."""


@dataclass(frozen=True)
class TrainingReport:
    """The result of a training.

    Attributes:
        method: ``dpo``, ``sft``, ...
        start: The model that training started from.
        model_dir: Folder of the trained model.
        adapter_dir: Folder of the adapter, when one was trained.
        settings: The settings as given.
        seed: Seed of row order, adapter initialization and dropout.
        steps: Optimizer steps.
        epochs: Passes over the data.
        rows: Rows trained on.
        batch: Effective ``batch_size`` and how it was made: ``processes``, ``micro_batch_size``, ``accumulation``.
        launch: How the processes were started.
        preflight: What was known before the first step: batch, steps, tokens, precision, memory.
        digests: SHA-256 of what the model read of the kept rows (``data``: token ids, and where the responses begin)
            and of the weights and configuration that training started from (``start``).
        counts: Rows in, kept, dropped, cut, held out, repeated.
        lengths: Tokens of the kept rows by side: minimum, mean, maximum and total.
        preview: First and last tokens of some rows, each with whether it carries loss.
        metrics: Means over the first and the last tenth of the steps: ``first`` and ``last``.
        held_out: What was measured during the training: loss and other metrics of the held-out rows, and
            ``accuracy``, ``cut`` and ``unscored`` of the quick task: ``{step, ...}``.
        alarms: What looked wrong: ``{step, kind, message}``.
        notes: What is unusual in settings or data.
        verified: What reopening the saved model showed; see :func:`w2s_align.training.verify.verify_model`.
        dtype: Precision of the arithmetic.
        save_dtype: Precision of the saved model.
        tokens: Tokens read over all steps, padding excluded; 0 where the trainer does not count them.
        seconds: Wall time of training, saving and verifying, killed calls up to their last checkpoint included.
        resumed_from: Step that the last call went on from; 0 when undisturbed.
        peak_memory: Peak bytes of accelerator memory, or None without one.
        versions: Libraries that made the weights.
    """

    method: str
    start: str
    model_dir: str
    adapter_dir: str | None
    settings: dict[str, Any]
    seed: int
    steps: int
    epochs: float
    rows: int
    batch: dict[str, int]
    launch: str
    preflight: dict[str, Any]
    digests: dict[str, str]
    counts: RowCounts
    lengths: dict[str, dict[str, float]]
    preview: list[dict[str, Any]]
    metrics: dict[str, dict[str, float]]
    held_out: list[dict[str, float]]
    alarms: list[dict[str, Any]]
    notes: list[str]
    verified: dict[str, Any]
    dtype: str
    save_dtype: str
    tokens: int
    seconds: float
    resumed_from: int
    peak_memory: int | None
    versions: dict[str, str]

    def save(self, out: Path) -> None:
        """Write it into an output folder, whole or not at all."""
        write_json(out / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, out: str | os.PathLike[str]) -> TrainingReport:
        """Read it from an output folder.

        Raises:
            FileNotFoundError: The training in this folder has not ended.
        """
        found = json.loads((Path(out) / FILE).read_text())
        return cls(**{**found, "counts": RowCounts(**found["counts"])})


def ends_of_curve(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean of every metric over the first and the last tenth of the steps."""
    size = max(1, len(rows) // 10)

    def mean(part: list[dict[str, Any]]) -> dict[str, float]:
        names = [name for name in part[0] if name not in ("step", "epoch") and all(name in row for row in part)]
        return {name: sum(row[name] for row in part) / len(part) for name in names}

    return {"first": mean(rows[:size]), "last": mean(rows[-size:])} if rows else {}
