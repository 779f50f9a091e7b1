"""What a training will take: steps, tokens, memory of a device, time; and what to change where it does not fit.

Reads the shape of its model and, where they are there, its rows. Batches and memory come from the rules that the
training itself follows (training/batching.py), so that plan and run agree.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.artifacts.artifact import Artifact
from w2s_align.estimates.costs import PROMPT_TOKENS, START, TRAINING_USE, Range, StepEstimate, answer_tokens
from w2s_align.estimates.gpus import Hardware
from w2s_align.families import Shape
from w2s_align.training.adapters import lora_of
from w2s_align.training.batching import RowSizes, held_out_rows, memory_setup, optimizer_steps, trained_tokens
from w2s_align.training.layout import Layout, check_launch
from w2s_align.training.memory import Setup, training_memory
from w2s_align.training.method import Method
from w2s_align.training.settings import Lora

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData

FULL = 0.94
"""Share of a device's memory that a training may be estimated to take; the rest is for fragments and kernels."""
SMALL = "{optimize_for: memory}"
"""The resources that make a training smallest on a device, as a recipe writes them."""
MOST_GPUS = (16, 32, 64, 128)
"""Numbers of GPUs that are tried where those that are there do not suffice."""


def estimate_training(
    config: Any,
    rows: int | None,
    counted: TrainingData | None,
    shape: Shape | None,
    hardware: Hardware | None,
    frozen: int = 0,
) -> StepEstimate:
    """Estimate a training.

    Args:
        config: Its step.
        rows: Rows of its data at most, where they have not been counted.
        counted: Its prepared rows, or None.
        shape: Shape of its model, or None when that is not known.
        hardware: The GPUs that it is to run on; None for the CPU of this machine.
        frozen: Weights of the frozen models beside the trained one.
    """
    if not config.merge_start:  # it goes on with an adapter, whose rank only a local folder tells before the run
        config = config.model_copy(update={"adapter": _adapter_of(config.model)})
    method: Method = config.method
    if rows is not None:
        rows *= method.rows_per_input
    found = StepEstimate(rows if counted is None else counted.rows, exact=counted is not None)
    sizes = counted.sizes if counted is not None else _assumed(config.max_length or 4096, method.sides)
    if found.rows is not None:
        trained = found.rows - held_out_rows(config, found.rows)
        found.steps = optimizer_steps(config, trained)
        if counted is not None:
            number = trained_tokens(config, counted.row_tokens, config.seed or 0, shuffled=method.shuffled)
            found.tokens = (number, number)
        else:
            seen = found.steps * config.batch_size * method.sides
            written = getattr(config, "max_completion_length", sizes.longest)
            low, high = (p + a for p, a in zip(PROMPT_TOKENS, answer_tokens(written), strict=True))
            found.tokens = (seen * min(low, sizes.longest), seen * min(high, sizes.longest))
    if shape is None:
        return found
    wanted = _layout(config, hardware)
    there = wanted.processes if hardware is None else hardware.count
    layout = replace(wanted, processes=min(wanted.processes, there))
    setup = _setup(config, shape, layout, sizes, found.rows, hardware, frozen)
    memory = training_memory(shape, setup)
    found.memory, found.parts = memory.total, asdict(memory)
    found.fits = memory.total <= FULL * _memory(hardware)
    if not found.fits:
        found.advice = _ways_out(config, shape, layout, sizes, found.rows, hardware, frozen)
    if hardware is None:
        return found
    found.gpus = layout.processes
    if found.fits and wanted.processes > there:
        found.advice = f"it wants {wanted.processes} GPUs of {there}: {_on_fewer(config, hardware)}"
    elif found.fits and config.batch_size % layout.processes:
        found.advice = f"batch_size {config.batch_size} is no multiple of its {layout.processes} processes"
    if found.tokens is not None:
        found.seconds = _seconds(shape, found.tokens, sizes, setup, config, hardware)
    return found


def count_rows(config: Any, inputs: Mapping[str, Artifact], start: str) -> TrainingData:
    """Tokenize the data of a training as the training will: exact, in the time that tokenizing takes.

    Args:
        config: Its step.
        inputs: What it reads, by the place that names it.
        start: Folder or hub id of the model that it starts from.
    """
    from w2s_align.training.models import open_start
    from w2s_align.training.tokens import ChatEncoder

    method: Method = config.method
    settings: Any = method.settings.model_validate(config.model_dump(include=set(method.settings.model_fields)))
    rows, _ = config.rows(inputs)
    settings = method.complete(rows, settings, config.seed or 0)
    opened = open_start(start, method.head_for(settings))
    encoder = ChatEncoder(opened.tokenizer, opened.stop_ids, settings.chat_template_kwargs, settings.template_check)
    with tempfile.TemporaryDirectory() as folder:
        return method.prepare(rows, encoder, settings, Path(folder), config.seed or 0)


def _adapter_of(model: str) -> Lora:
    folder = Path(model).expanduser()
    return lora_of(folder) if (folder / "adapter_config.json").is_file() else Lora()


def _assumed(longest: int, sides: int) -> RowSizes:
    """Return sizes of rows that nobody has seen: as long as prompts and answers are taken to be at most."""
    prompt, answer = PROMPT_TOKENS[1], answer_tokens(longest)[1]
    mean = float(min(prompt + sides * answer, sides * longest))
    return RowSizes(mean, 0.0, sides * longest, longest, targets=sides * answer / (prompt + sides * answer))


def _layout(config: Any, hardware: Hardware | None) -> Layout:
    kind, stage = check_launch(config.launch)
    resources, processes = config.resources, 1
    if config.launch != "single":
        given = resources.gpus * (resources.machines or 1) if resources.gpus else None
        processes = resources.processes or given or (hardware.count if hardware else 1)
    return Layout(config.launch, None, processes, resources.machines or 1, kind, stage)


def _setup(
    config: Any,
    shape: Shape,
    layout: Layout,
    sizes: RowSizes,
    rows: int | None,
    hardware: Hardware | None,
    frozen: int,
) -> Setup:
    return memory_setup(
        config.method,
        config,
        config.resources,
        layout,
        sizes,
        rows or 10_000,
        family=shape.model_type,
        parameters=shape.parameters,
        dtype=config.dtype if config.dtype != "auto" else "bfloat16" if hardware else "float32",
        save_dtype=config.save_dtype if config.save_dtype != "auto" else shape.dtype,
        cpu=hardware is None,
        frozen=frozen,
    )


def _memory(hardware: Hardware | None) -> float:
    if hardware is not None:
        return hardware.gpu.memory
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _ways_out(
    config: Any,
    shape: Shape,
    layout: Layout,
    sizes: RowSizes,
    rows: int | None,
    hardware: Hardware | None,
    frozen: int,
) -> str:
    """Return up to three changes that make a training fit, those that change nothing in what is learned first."""

    def fits(changed: Any, where: Layout, on: Hardware | None) -> bool:
        cut = min(1.0, (changed.max_length or sizes.longest) / sizes.longest)
        then = replace(sizes, longest=int(sizes.longest * cut), largest=int(sizes.largest * cut))
        setup = _setup(changed, shape, where, then, rows, on, frozen)
        return training_memory(shape, setup).total <= FULL * _memory(on)

    found = []
    for words, changed, where in _changes(config, layout, sizes, hardware):
        if fits(changed, where, hardware):
            host = f" ({16 * shape.parameters / 1e9:.0f} GB of the machine's own memory)"
            found.append(words + (host if where.name == "zero3_offload" else ""))
    if hardware is not None:
        small, zero3 = _smallest(config), Layout("zero3", None, 1, 1, "deepspeed", 3)
        more = (number for number in MOST_GPUS if number > hardware.count)
        enough = next((n for n in more if fits(small, replace(zero3, processes=n), replace(hardware, count=n))), None)
        found += [f"launch: zero3, resources: {SMALL} on {enough} of these GPUs"] if enough else []
    return ", or ".join(found[:3]) or "a smaller model, or larger GPUs"


def _smallest(config: Any) -> Any:
    update = {"optimize_for": "memory", "micro_batch_size": None, "gradient_checkpointing": "auto"}
    return config.model_copy(update={"resources": config.resources.model_copy(update=update)})


def _changes(
    config: Any, layout: Layout, sizes: RowSizes, hardware: Hardware | None
) -> Iterator[tuple[str, Any, Layout]]:
    """Yield changes with their words: the step and its processes afterwards."""
    small, shared = _smallest(config), f", resources: {SMALL}"
    one = config.model_copy(update={"resources": config.resources.model_copy(update={"micro_batch_size": 1})})
    yield "resources: {micro_batch_size: 1}", one, layout
    yield f"resources: {SMALL}", small, layout
    if hardware is not None:
        zero3 = Layout("zero3", None, hardware.count, 1, "deepspeed", 3)
        if hardware.count > 1:
            yield "launch: zero3", config, zero3
            yield "launch: zero3" + shared, small, zero3
        if not (config.adapter and config.adapter.load_in_4bit):
            yield "launch: zero3_offload" + shared, small, replace(zero3, name="zero3_offload")
    adapters = {
        "adapter: {r: 64, alpha: 128}": Lora(),
        "adapter: {r: 64, alpha: 128, load_in_4bit: true}": Lora(load_in_4bit=True),
    }
    if config.adapter is not None:
        adapters = {"adapter: {load_in_4bit: true}": config.adapter.model_copy(update={"load_in_4bit": True})}
    whole = layout.stage < 3 and layout.kind != "fsdp"
    for words, adapter in adapters.items():
        changed = small.model_copy(update={"adapter": adapter})
        yield words, changed, layout if whole else Layout("ddp", None, layout.processes, 1, "ddp")
    if sizes.longest >= 1024:
        shorter = 2 ** ((sizes.longest - 1).bit_length() - 1)
        yield f"max_length: {shorter}{shared}", small.model_copy(update={"max_length": shorter}), layout


def _on_fewer(config: Any, hardware: Hardware) -> str:
    """Return what to set for a training that wants more GPUs than there are; its result is the same."""
    resources = config.resources
    if (resources.machines or 1) > 1:
        return f"resources.machines={max(1, hardware.count // (resources.gpus or hardware.count))}"
    return f"resources.gpus={hardware.count}"


def _seconds(shape: Shape, tokens: Range, sizes: RowSizes, setup: Setup, config: Any, hardware: Hardware) -> Range:
    """Time of the passes over the tokens.

    One forward; two backward, one less for a frozen base; one to recompute; one of each frozen model.
    """
    passes = 1 + (2 if setup.rank is None else 1) + (1 if setup.recompute else 0)
    passes += config.method.frozen_passes
    work = passes * shape.forward_flops(sizes.longest / 4) / (hardware.gpu.flops * setup.processes)
    low, high = (count * work for count in tokens)
    return low / TRAINING_USE[1] + START[0], high / TRAINING_USE[0] + START[1]
