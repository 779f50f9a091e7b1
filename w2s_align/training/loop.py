"""One training from arguments to a verified model: what all kinds of training have in common.

Writes into the output folder: ``model/``, ``adapter/``, ``metrics.jsonl``, ``training.json`` (last); ``checkpoints/``,
``cache/``, ``launch/`` and ``trained/`` while it runs. Trainers are called, never subclassed.

    train        decides everything, refuses what cannot work, and starts the training here or in several processes
    train_here   trains, in each of these processes
    finish       (finish.py) merges, opens the saved model again, compares, describes: in the first process alone,
                 which holds no sharded model by then
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from w2s_align.errors import UserError
from w2s_align.files import write_json
from w2s_align.training.adapters import (
    adapter_folder,
    lora_of,
    merge_start,
    open_base,
    resume_adapter,
    save_adapter,
)
from w2s_align.training.checkpoints import last_checkpoint
from w2s_align.training.finish import LOGITS, finish
from w2s_align.training.formats import Rows
from w2s_align.training.launch import launch_ranks
from w2s_align.training.layout import Layout, find_layout
from w2s_align.training.methods import method_of
from w2s_align.training.models import Head, StartModel, open_start, save_model
from w2s_align.training.plan import TrainingPlan, is_main, plan_training
from w2s_align.training.preflight import check_rules, format_preflight, preflight
from w2s_align.training.quick_eval import read_questions
from w2s_align.training.quiet import quiet
from w2s_align.training.report import FILE, TrainingReport
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import TrainSettings, check_goes_on
from w2s_align.training.tokens import ChatEncoder
from w2s_align.training.verify import probe_logits

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a short note."""


def train(
    model: str | os.PathLike[str],
    rows: Rows,
    out: str | os.PathLike[str],
    settings: TrainSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    launch: str = "single",
    progress: Progress | None = None,
) -> TrainingReport:
    """Train a model; called again with the same arguments, go on where a killed call stopped.

    The class of the settings says what kind of training it is: ``DPOSettings``, ``SFTSettings``, ...

    Args:
        model: Start model: a folder or a hub id, of an adapter, too; that is merged into its base first, unless
            ``merge_start`` is false.
        rows: Preference pairs, chats or labeled responses, as the kind of training takes them; see prepare.py.
        out: Output folder, for this training alone.
        settings: What changes the result.
        seed: Seed of the order of rows, of dropout and of the adapter's initial values.
        resources: What does not change the result.
        launch: How many processes share the work: a name in :data:`~w2s_align.training.resources.LAUNCHES`, or the
            path of an accelerate YAML. It does not change the result either.
        progress: Called after each step.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    method, resources, folder = method_of(settings), resources or TrainResources(), Path(out)
    layout = find_layout(launch, resources)
    check_rules(settings, resources, layout)
    with quiet():
        settings = method.complete(rows, settings, seed)
        start, settings = _open(model, folder, settings, method.head_for(settings), layout)
        encoder = ChatEncoder(start.tokenizer, start.stop_ids, settings.chat_template_kwargs, settings.template_check)
        data = method.prepare(rows, encoder, settings, folder / "cache", seed)
        plan = plan_training(method, start, data, folder, settings, resources, seed, layout)
        _claim(plan)
        if (folder / FILE).exists():
            return TrainingReport.load(folder)
        if settings.quick_task:
            read_questions(plan)  # refuses before any model is loaded
        if not (folder / "trained" / FILE).exists():
            last_checkpoint(plan.checkpoints, layout.processes, layout.kind)  # refuses before any model is loaded
            if is_main():
                print(format_preflight(preflight(plan)), flush=True)
            if progress:
                progress(0, 0, "preparing" if layout.here else f"starting {layout.processes} processes")
            if layout.here:
                train_here(plan, progress)
            else:
                launch_ranks(plan, progress)
        return finish(plan) if is_main() else _await(folder)


def _open(
    model: str | os.PathLike[str], folder: Path, settings: TrainSettings, head: Head, layout: Layout
) -> tuple[StartModel, TrainSettings]:
    """Open a start model; an adapter is merged first, or its settings become those of the training."""
    adapter = adapter_folder(model)
    if settings.merge_start:
        start = open_start(merge_start(adapter, folder / "start") if adapter else model, head)
        return dataclasses.replace(start, source=str(model)), settings
    check_goes_on(settings)
    if adapter is None:
        raise UserError(
            f"merge_start: false needs an adapter to start from, which {model} is not.",
            fix="Leave merge_start out, or give the folder or hub id of a LoRA adapter.",
        )
    if layout.shards_weights:
        raise UserError(
            f"merge_start: false cannot be combined with launch: {layout.name}.",
            "A model with an adapter on it is not shared out among processes.",
            "Use launch: single, ddp, zero1 or zero2, or leave merge_start out.",
        )
    start = dataclasses.replace(open_base(adapter, head), source=str(model))
    return start, settings.model_copy(update={"adapter": lora_of(adapter)})


def train_here(plan: TrainingPlan, progress: Progress | None = None) -> None:
    """Train in this process, which may be one of several, and leave the model and what is known about it.

    Args:
        plan: The training.
        progress: Called after each step.

    Raises:
        UserError: The training diverges, its start is not its reference, or it has changed nothing.
    """
    from safetensors.torch import save_file
    from transformers import PrinterCallback

    from w2s_align.training.callbacks import Recorder

    checkpoint, state = last_checkpoint(plan.checkpoints, plan.layout.processes, plan.layout.kind)
    recorder = Recorder(plan, plan.method.health(plan), state, progress)
    with quiet():
        trainer = plan.method.trainer(plan, [recorder])
        trainer.remove_callback(PrinterCallback)  # it prints every row of metrics
        recorder.join(trainer)
        trainer.train_dataset = plan.whole_batches(trainer.train_dataset)
        _train_adapter_in_float32(trainer.model)
        if checkpoint and "ref" in getattr(trainer.model, "peft_config", {}):
            resume_adapter(trainer.model, checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        model = trainer.accelerator.unwrap_model(trainer.model)
        recorder.put_back(model, trainer.state.global_step)
        trained = probe_logits(model, plan.data.probes)
        weights = _gathered(trainer, plan)
        if not is_main():
            return
        if plan.settings.adapter:
            save_adapter(model, plan.start, plan.out, weights)
        else:
            save_model(model, plan.start, plan.out, plan.save_dtype, weights)
        (plan.out / "trained").mkdir(exist_ok=True)
        save_file({str(i): logits for i, logits in enumerate(trained)}, plan.out / "trained" / LOGITS)
        write_json(
            plan.out / "trained" / FILE,
            {
                "steps": trainer.state.global_step,
                "epochs": float(trainer.state.epoch or 0),
                "rows": recorder.rows,
                "held_out": recorder.held_out,
                "alarms": recorder.health.alarms,
                "notes": recorder.notes,
                "moved_share": recorder.moved_share,
                "seconds": recorder.seconds,
                "resumed_from": state["step"],
                "peak_memory": _peak_memory(),
            },
        )


def _train_adapter_in_float32(model: Any) -> None:
    """Undo the cast of an adapter on a 4-bit base to bfloat16, in which small updates would be lost (TRL 1.16)."""
    import torch

    for parameter in model.parameters():
        if (
            parameter.requires_grad
            and parameter.dtype == torch.bfloat16
            and getattr(model, "is_loaded_in_4bit", False)
        ):
            parameter.data = parameter.data.float()


def _gathered(trainer: Any, plan: TrainingPlan) -> dict[str, Any] | None:
    """Collect weights that the processes hold in parts; all of them must take part. None where nothing is in parts."""
    if not plan.layout.shards_weights:
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    if plan.layout.stage == 3 and plan.settings.adapter:
        # Only the adapter: gathering the base as well would cost its size in memory, and PEFT alone would save empty
        # matrices (peft#2892).
        import deepspeed

        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with deepspeed.zero.GatheredParameters(list(trained.values())):
            return {name: p.detach().cpu().clone() for name, p in trained.items()}
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def _await(folder: Path) -> TrainingReport:
    """Wait in the other processes of a foreign launcher until the first one has finished."""
    while not (folder / FILE).exists():
        time.sleep(0.5)
    return TrainingReport.load(folder)


def _claim(plan: TrainingPlan) -> None:
    """Write down which training the folder belongs to, or refuse it when it belongs to another one."""
    file = plan.out / "request.json"
    identity = json.loads(json.dumps(plan.identity()))
    if not file.exists():
        write_json(file, identity)
        return
    found = json.loads(file.read_text())
    if found != identity:
        different = [name for name in identity if found.get(name) != identity[name]]
        raise UserError(
            f"{plan.out} belongs to another training.",
            f"Different: {', '.join(different)}.",
            "Give another output folder, or remove this one.",
        )


def _peak_memory() -> int | None:
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
