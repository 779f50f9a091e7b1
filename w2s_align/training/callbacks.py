"""The one callback that every trainer gets: metrics to disk, health, checkpoints by time, progress.

Writes ``metrics.jsonl`` (one row per optimizer step, also after a resume) and marks each finished checkpoint, so that
one that a kill left half written is never resumed from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from w2s_align.errors import UserError
from w2s_align.files import write_json
from w2s_align.training.checkpoints import DONE, keep_weights, put_back_weights
from w2s_align.training.health import Health
from w2s_align.training.plan import TrainingPlan
from w2s_align.training.quick_eval import QuickCheck

if TYPE_CHECKING:
    import torch

SAMPLE = 200_000
"""Weights looked at to see whether the first update moved anything: a megabyte of them, spread over all tensors."""


class Recorder(TrainerCallback):
    """Records a training.

    Args:
        plan: The training.
        health: Rules that every row of metrics is held against.
        state: What the checkpoint that is resumed from knew: ``rows``, ``held_out``, ``alarms``, ``moved_share``,
            ``seconds``.
        progress: Called with steps done, steps in all and a note.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        health: Health,
        state: dict[str, Any],
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self.file = plan.out / "metrics.jsonl"
        self.plan, self.health, self.progress = plan, health, progress
        self.quick = QuickCheck(plan) if plan.settings.quick_task else None
        self.save_seconds = None if plan.resources.save_every else 60 * plan.resources.save_minutes
        self.rows: list[dict[str, Any]] = list(state["rows"])
        self.held_out: list[dict[str, float]] = list(state["held_out"])
        self.notes: list[str] = []
        self.moved_share: float | None = state["moved_share"]
        self.seconds_before: float = state["seconds"]
        self._begun = time.monotonic()
        health.alarms.extend(state["alarms"])
        self.tokens = 0
        self.best: dict[str, float] | None = None
        self.model: Any = None
        self._saved_at = time.monotonic()
        self._sample: list[tuple[torch.Tensor, torch.Tensor]] = []

    def join(self, trainer: Any) -> None:
        """Take the place before the trackers, so that they see what is added here, and keep their files.

        TensorBoard's would go with the checkpoints; trackio and wandb have places of their own, shared by all runs.
        """
        handler = trainer.callback_handler
        handler.callbacks.remove(self)
        handler.callbacks.insert(0, self)
        for callback in handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(self.plan.out / "tensorboard")

    @property
    def seconds(self) -> float:
        """Wall time so far, that of killed calls up to their last checkpoint included."""
        return self.seconds_before + time.monotonic() - self._begun

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Start the metrics file from what the checkpoint knows, and remember some weights."""
        self._saved_at = time.monotonic()
        self.tokens = state.num_input_tokens_seen
        self._main, self.model = state.is_world_process_zero, model
        if self._main:
            self.file.write_text("".join(_line(row) for row in self.rows))
        for row in self.rows:
            self.health.observe(row)
        if not self.rows and model is not None:
            trained = _weights_here(model)
            each = max(1, SAMPLE // max(1, len(trained)))
            self._sample = [(p, p.detach().flatten()[:each].clone()) for p in trained]
        if self.quick and not self.held_out:
            self.measured(state, control, self.quick.measure(model))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take in one step's metrics.

        Raises:
            UserError: They show that the training cannot work, or stop_on_alarm is set and there is an alarm.
        """
        if not logs or "loss" not in logs:  # the summary after the last step
            return
        row = {"step": state.global_step, **{name: float(v) for name, v in logs.items() if v is not None}}
        if "num_tokens" in row:
            # A count per step is the same after a resume. (TRL counts from the start of the process, or, where the
            # student writes the responses, from what the checkpoint knew.)
            row["tokens"], self.tokens = row["num_tokens"] - self.tokens, row.pop("num_tokens")
        row = self.health.normalized(row)
        logs.update(
            {name: value for name, value in row.items() if name != "step"}
        )  # for the trackers, which come next
        if self.held_out and self.held_out[-1]["step"] == state.global_step and self.quick:
            logs["quick_task/accuracy"] = self.held_out[-1]["accuracy"]
        self.rows.append(row)
        if self._main:
            with self.file.open("a") as file:
                file.write(_line(row))
        self.health.observe(row)
        if self._sample and row.get("learning_rate", 1.0) > 0:
            self._see_movement(state.global_step)
        if self.plan.settings.stop_on_alarm and self.health.alarms:
            alarm = self.health.alarms[0]
            raise UserError(
                f"Stopped at step {alarm['step']}: {alarm['message']}",
                "stop_on_alarm is set.",
                "Change the settings, or leave stop_on_alarm out to train on.",
            )

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Take in the held-out rows' metrics."""
        found = {name.removeprefix("eval_"): float(value) for name, value in (metrics or {}).items()}
        speed = ("runtime", "samples_per_second", "steps_per_second", "num_tokens")
        self.measured(state, control, {name: value for name, value in found.items() if name not in speed})

    def measured(self, state: Any, control: Any, values: dict[str, float]) -> None:
        """Keep what was measured after a step, and stop when it has not become better for long enough.

        Args:
            state: The trainer's state.
            control: Where the trainer is told to stop.
            values: ``loss`` and more of the held-out rows, or ``accuracy`` and more of the quick task.
        """
        if not self.held_out or self.held_out[-1]["step"] != state.global_step:
            self.held_out.append({"step": state.global_step})
        self.held_out[-1].update(values)
        settings = self.plan.settings
        name = "loss" if settings.quick_task is None else "accuracy"
        if name not in values or (settings.early_stopping is None and settings.keep == "last"):
            return
        rows = [row for row in self.held_out if name in row]
        # The first of equals: what is only kept up has not become better.
        best = min(rows, key=lambda row: row[name]) if name == "loss" else max(rows, key=lambda row: row[name])
        since = len(rows) - 1 - rows.index(best)
        self.best = best
        if settings.keep == "best" and best is rows[-1] and self._main:
            keep_weights(self.plan.out, self.model, state.global_step)
        if settings.early_stopping is None:
            return
        if since >= settings.early_stopping and state.global_step < state.max_steps:
            control.should_training_stop = True
            what = "held-out loss was lowest" if name == "loss" else "accuracy on the quick task was highest"
            self.notes.append(
                f"Stopped early at step {state.global_step} of {state.max_steps}: the {what} at "
                f"step {best['step']:.0f} ({best[name]:.4g}; now {values[name]:.4g})."
            )

    def put_back(self, model: Any, steps: int) -> None:
        """Go back to the weights of the best measurement, where the settings say so.

        Args:
            model: The trained model.
            steps: Steps that were trained.
        """
        if self.plan.settings.keep == "last" or self.best is None or self.best["step"] == steps:
            return
        step = int(self.best["step"])
        if put_back_weights(self.plan.out, model, step):
            self.notes.append(f"The saved weights are those after step {step} of {steps}, the best measurement.")
        else:
            self.notes.append(f"The weights after step {step}, the best measurement, are lost: the last are saved.")

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Ask for a checkpoint, and measure the quick task, when it is time."""
        if self.quick and (state.global_step % self.plan.evaluate_every == 0 or state.global_step == state.max_steps):
            self.measured(state, control, self.quick.measure(model))
        due = self.save_seconds is not None and time.monotonic() - self._saved_at > self.save_seconds
        if self.save_seconds is not None and args.world_size > 1:
            due = _first_says(due)  # clocks differ, and a checkpoint is made by all or by none
        if due and state.global_step < state.max_steps:
            control.should_save = True
        if self.progress:
            self.progress(state.global_step, state.max_steps, self._note())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole."""
        self._saved_at = time.monotonic()
        if args.world_size > 1:
            import torch.distributed

            torch.distributed.barrier()  # every process has written its part
        if self._main:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            known = {"rows": self.rows, "held_out": self.held_out, "alarms": self.health.alarms}
            layout = self.plan.layout
            made_by = {"world_size": layout.processes, "kind": layout.kind, "seconds": self.seconds}
            step = {"step": state.global_step, "moved_share": self.moved_share}
            write_json(folder / DONE, {**step, **made_by, **known})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge the whole curve."""
        self.health.finish(state.global_step)

    def _see_movement(self, step: int) -> None:
        # As in verify._difference: what is zero, as a padding token's weights are, can move by nothing worth the name.
        pairs = [(p.detach().flatten()[: old.numel()], old) for p, old in self._sample]
        moved = sum(int(((now - old).abs() > 1e-9 * old.abs().max()).sum()) for now, old in pairs)
        total = sum(old.numel() for _, old in self._sample)
        self._sample = []
        self.moved_share = moved / total if total else None
        if self.moved_share == 0:
            message = f"None of {total} sampled weights moved in the first update: raise learning_rate."
            self.health.alarm(step, "weights_still", message)

    def _note(self) -> str:
        alarms = "".join(f", alarm: {alarm['kind']}" for alarm in self.health.alarms)
        return f"loss {self.rows[-1]['loss']:.4f}{alarms}" if self.rows else alarms


def _weights_here(model: Any) -> list[torch.Tensor]:
    """Return the trained float32 weights that this process holds, or its parts of them.

    Under DeepSpeed in bfloat16 the model holds rounded copies, of which small updates say nothing: none are returned.
    """
    import torch

    parts = [getattr(p, "ds_tensor", p) for p in model.parameters() if p.requires_grad]
    local = [p.to_local() if hasattr(p, "to_local") else p for p in parts]
    return [p for p in local if p.dtype == torch.float32 and p.numel()]


def _first_says(value: bool) -> bool:
    import torch.distributed

    said = [value]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
