"""The one callback that every trainer gets: metrics to disk, health, checkpoints by time, progress.

Writes ``metrics.jsonl`` (one row per optimiser step, also after a resume) and marks each finished checkpoint, so that
one that a kill left half written is never resumed from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from w2s_align.training.health import Health
from w2s_align.training.report import write_json

if TYPE_CHECKING:
    import torch

DONE = "complete.json"
SAMPLE = 200_000
"""Weights looked at to see whether the first update moved anything."""


class Recorder(TrainerCallback):
    """Records a training.

    Args:
        out: Output folder.
        health: Rules that every row of metrics is held against.
        save_seconds: Time between checkpoints, or None when the trainer makes them by steps.
        state: What the checkpoint that is resumed from knew: ``rows``, ``alarms``, ``moved_share``, ``seconds``.
        progress: Called with steps done, steps in all and a note.
    """

    def __init__(
        self,
        out: Path,
        health: Health,
        save_seconds: float | None,
        state: dict[str, Any],
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self.file = out / "metrics.jsonl"
        self.health, self.save_seconds, self.progress = health, save_seconds, progress
        self.rows: list[dict[str, Any]] = list(state["rows"])
        self.moved_share: float | None = state["moved_share"]
        self.seconds_before: float = state["seconds"]
        self._begun = time.monotonic()
        health.alarms.extend(state["alarms"])
        self.tokens = 0
        self._saved_at = time.monotonic()
        self._sample: list[tuple[Any, torch.Tensor]] = []

    @property
    def seconds(self) -> float:
        """Wall time so far, that of killed calls up to their last checkpoint included."""
        return self.seconds_before + time.monotonic() - self._begun

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Start the metrics file from what the checkpoint knows, and remember some weights."""
        self._saved_at = time.monotonic()
        self._main = state.is_world_process_zero
        if self._main:
            self.file.write_text("".join(_line(row) for row in self.rows))
        for row in self.rows:
            self.health.observe(row)
        if not self.rows and model is not None:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            each = max(1, SAMPLE // max(1, len(trained)))
            self._sample = [(p, p.detach().flatten()[:each].clone()) for p in trained if p.numel()]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take in one step's metrics."""
        if not logs or "loss" not in logs:  # the summary after the last step
            return
        row = {"step": state.global_step, **{name: float(value) for name, value in logs.items()}}
        if "num_tokens" in row:
            # TRL counts from the start of the process; a count per step is the same after a resume.
            row["tokens"], self.tokens = row["num_tokens"] - self.tokens, row.pop("num_tokens")
        self.rows.append(row)
        if self._main:
            with self.file.open("a") as file:
                file.write(_line(row))
        self.health.observe(row)
        if self._sample and row.get("learning_rate", 1.0) > 0:
            self._see_movement(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when it is time."""
        due = self.save_seconds is not None and time.monotonic() - self._saved_at > self.save_seconds
        if due and state.global_step < state.max_steps:
            control.should_save = True
        if self.progress:
            self.progress(state.global_step, state.max_steps, self._note())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole."""
        self._saved_at = time.monotonic()
        if self._main:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            known = {"rows": self.rows, "alarms": self.health.alarms, "moved_share": self.moved_share}
            at = {"step": state.global_step, "world_size": args.world_size, "seconds": self.seconds}
            write_json(folder / DONE, {**at, **known})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge the whole curve."""
        self.health.finish(state.global_step)

    def _see_movement(self, step: int) -> None:
        moved = sum(int((p.detach().flatten()[: old.numel()] != old).sum()) for p, old in self._sample)
        total = sum(old.numel() for _, old in self._sample)
        self._sample = []
        self.moved_share = moved / total if total else None
        if self.moved_share == 0:
            message = f"None of {total} sampled weights moved in the first update: learning_rate is too small."
            self.health.alarm(step, "weights_still", message)

    def _note(self) -> str:
        return f"loss {self.rows[-1]['loss']:.4f}" if self.rows else ""


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
