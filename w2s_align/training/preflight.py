"""What is known before the first step, in seconds and without loading a model: sizes, tokens, memory, and rules.

Reads a :class:`~w2s_align.training.plan.TrainingPlan`; returns plain values and a text that is printed. The rules
refuse combinations that cannot work, in words.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from w2s_align.errors import UserError, missing_package
from w2s_align.families.shapes import Shape, find_shape
from w2s_align.training.adapters import lora_config
from w2s_align.training.batching import memory_setup
from w2s_align.training.counts import RowCounts
from w2s_align.training.layout import Layout, on_cpu
from w2s_align.training.memory import training_memory
from w2s_align.training.plan import TrainingPlan
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import TrainSettings

GIB = 2**30
"""Bytes of a GiB, in which memory is shown."""
SHOWN_ROWS = 8
"""Rows whose tokens are shown: a screenful."""


def check_rules(settings: TrainSettings, resources: TrainResources, layout: Layout) -> None:
    """Refuse combinations that cannot work.

    Args:
        settings: What is learned.
        resources: What the training may use.
        layout: The processes that train together.

    Raises:
        UserError: With what to use instead.
    """
    adapter = settings.adapter
    if adapter and adapter.load_in_4bit:
        if find_spec("bitsandbytes") is None:
            raise missing_package("bitsandbytes", "qlora", "adapter: {load_in_4bit: true}")
        if layout.shards_weights:
            raise UserError(
                f"adapter.load_in_4bit cannot be combined with launch: {layout.name}.",
                "A base in 4 bits is not shared out among processes.",
                "Use ddp or zero2: in 4 bits the base is small enough for each process to hold it.",
            )
    if settings.keep == "best" and layout.shards_weights:
        raise UserError(
            f"keep: best cannot be combined with launch: {layout.name}.",
            "No process holds the whole model that was measured.",
            "Use launch: single, ddp, zero1 or zero2, or leave keep out.",
        )
    if adapter and adapter.use_dora and layout.shards_weights:
        raise UserError(
            f"adapter.use_dora cannot be combined with launch: {layout.name}.",
            "DoRA needs the norm of every whole weight matrix.",
            "Use ddp or zero2, or LoRA without use_dora.",
        )
    if (
        settings.save_dtype == "float32"
        and settings.dtype == "bfloat16"
        and layout.kind == "deepspeed"
        and not adapter
    ):
        raise UserError(
            "save_dtype float32 cannot be combined with dtype bfloat16 under DeepSpeed.",
            "DeepSpeed hands out the model in the precision of its arithmetic, so that the rest would be zeros.",
            "Use save_dtype: bfloat16, dtype: float32, or launch: ddp.",
        )
    if settings.dtype == "bfloat16" and layout.kind == "deepspeed" and on_cpu(resources):
        raise UserError(
            f"dtype bfloat16 cannot be combined with launch: {layout.name} on a CPU.",
            "transformers takes bfloat16 on a CPU only where DeepSpeed would not start.",
            "Use dtype: float32 (or auto), or launch: ddp or single.",
        )
    if settings.quick_task and layout.shards_weights:
        raise UserError(
            f"quick_task cannot be combined with launch: {layout.name}.",
            "No process holds the whole model, and each token of an answer would gather it again.",
            "Use ddp or zero2, or follow held-out rows: held_out.",
        )
    settings.check_rollouts(resources, layout)
    for name in resources.report_to:
        _check_tracker(name)


def _check_tracker(name: str) -> None:
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    if name not in INTEGRATION_TO_CALLBACK:
        raise UserError(
            f"{name} is not a tracker that transformers knows.",
            fix=f"Use one of {', '.join(INTEGRATION_TO_CALLBACK)}.",
        )
    if name not in get_available_reporting_integrations():
        raise UserError(
            f"The tracker {name} is not installed.", fix=f"pip install {name}, or take it out of report_to."
        )


def preflight(plan: TrainingPlan) -> dict[str, Any]:
    """Return what is known about a training before its first step.

    Args:
        plan: The training.

    Returns:
        Plain values: ``batch``, ``steps``, ``rows``, ``tokens`` (per epoch, by side), ``trained_parameters``,
        ``dtype`` (of weights and arithmetic), ``memory`` (bytes; see :func:`estimate_memory`).
    """
    trained = _trained_parameters(plan)
    memory = estimate_memory(plan, trained)
    sizes = {name: int(size["total"]) for name, size in plan.data.lengths.items()}
    return {
        "launch": plan.layout.name,
        "batch": {
            "effective": plan.settings.batch_size,
            "processes": plan.layout.processes,
            "micro": plan.micro_batch_size,
            "accumulation": plan.accumulation,
        },
        "steps": plan.steps,
        "rows": asdict(plan.counts),
        "tokens": sizes,
        "parameters": plan.start.parameters,
        "trained_parameters": trained,
        "dtype": {"weights": "float32", "base": _base_dtype(plan), "arithmetic": plan.dtype, "saved": plan.save_dtype},
        "memory": memory,
        "padded_because": plan.padded_because,
        "examples": plan.data.preview[: SHOWN_ROWS * plan.method.sides],
    }


def format_preflight(found: dict[str, Any]) -> str:
    """Return :func:`preflight` as text for a terminal or a log."""
    batch, memory = found["batch"], found["memory"]
    lines = [
        f"effective batch {batch['effective']} = {batch['processes']} processes x {batch['micro']} rows "
        f"x {batch['accumulation']} accumulated   (launch: {found['launch']})",
        f"optimizer steps {found['steps']}",
        "rows            " + ", ".join(f"{name} {n:,}" for name, n in RowCounts(**found["rows"]).in_words().items()),
        "tokens          " + ", ".join(f"{name} {n:,}" for name, n in found["tokens"].items()),
        f"trained weights {found['trained_parameters']:,} of {found['parameters']:,}, in float32; base in "
        f"{found['dtype']['base']}, arithmetic in {found['dtype']['arithmetic']}, saved in {found['dtype']['saved']}",
        f"memory          {_memory_line(memory)}; the device has {memory['device'] / GIB:.1f}",
        "micro batches   "
        + (f"padded to their longest row: {why}" if (why := found["padded_because"]) else "without padding"),
        "tokens of the first rows; those in [ ] carry loss",
    ]
    for row in found["examples"]:
        text = _marked(row["first"]) + (f" ... {_marked(row['last'])}" if row["last"] else "")
        lines.append(f"  {row['row']} {row['side']:<9}{row['tokens']:>6}  {text}")
    if memory["estimate"] is not None and memory["estimate"] > memory["device"]:
        lines.append(memory_warning(found))
    return "\n".join(lines)


def _memory_line(memory: dict[str, Any]) -> str:
    if memory["estimate"] is None:
        return "not estimated, for a model of this kind"
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    made_of = ", ".join(f"{part} {memory[part] / GIB:.2f}" for part in parts)
    return f"about {memory['estimate'] / GIB:.2f} GiB for each process ({made_of})"


def memory_warning(found: dict[str, Any]) -> str:
    """Return the sentence about a training that will probably not fit."""
    memory = found["memory"]
    return (
        f"This training needs about {memory['estimate'] / GIB:.1f} GiB and the device has "
        f"{memory['device'] / GIB:.1f}: use an adapter, launch: zero3, a smaller micro_batch_size, or "
        "gradient_checkpointing."
    )


def estimate_memory(plan: TrainingPlan, trained: int) -> dict[str, int | None]:
    """Estimate the bytes that a training takes of each process's device, as a plan does; see memory.py.

    Args:
        plan: The training.
        trained: Number of trained parameters.

    Returns:
        ``weights``, ``gradients``, ``optimizer``, ``activations``, ``logits``, their sum ``estimate`` (None for a
        model of an unusual kind), and ``device``: the bytes that the device has in all.
    """
    device = _device_memory(plan.resources)
    shape = find_shape(plan.start.path)
    if shape is None:
        return {"estimate": None, "device": device}
    setup = memory_setup(
        plan.method,
        plan.settings,
        plan.resources,
        plan.layout,
        plan.data.sizes,
        plan.rows,
        family=shape.model_type,
        parameters=plan.start.parameters,
        dtype=plan.dtype,
        save_dtype=plan.save_dtype,
        trained=trained,
        frozen=_frozen_parameters(plan, shape),
        cpu=on_cpu(plan.resources),
    )
    memory = training_memory(shape, setup)
    parts = {name: int(size) for name, size in asdict(memory).items()}
    return {**parts, "estimate": int(memory.total), "device": device}


def _frozen_parameters(plan: TrainingPlan, start: Shape) -> int:
    """Return the weights of the frozen models beside the trained one, each counted once."""
    named = set(plan.settings.frozen_models().values())
    return sum(((find_shape(model) if model else None) or start).parameters for model in named)


def _base_dtype(plan: TrainingPlan) -> str:
    adapter = plan.settings.adapter
    if adapter is None:
        return "float32"
    return "4 bits" if adapter.load_in_4bit else plan.dtype


def _trained_parameters(plan: TrainingPlan) -> int:
    if plan.settings.trains_head_alone:
        return (plan.start.head.labels or 0) * plan.start.width
    if plan.settings.adapter is None:
        return plan.start.parameters
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(plan.start.path, trust_remote_code=False))
        return sum(
            p.numel()
            for p in get_peft_model(model, lora_config(plan.settings.adapter)).parameters()
            if p.requires_grad
        )


def _device_memory(resources: TrainResources) -> int:
    import torch

    if on_cpu(resources):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(torch.cuda.get_device_properties(0).total_memory)


def _marked(tokens: list[list[Any]]) -> str:
    """Return tokens as text, those with loss in brackets."""
    parts: list[tuple[bool, str]] = []
    for token, loss in tokens:
        text = repr(token)[1:-1]
        if parts and parts[-1][0] == loss:
            parts[-1] = (loss, parts[-1][1] + text)
        else:
            parts.append((loss, text))
    return "".join(f"[{text}]" if loss else text for loss, text in parts)
