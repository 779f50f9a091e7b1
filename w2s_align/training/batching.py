"""How rows become micro batches and steps: the rules that a plan and a training share, so that they cannot differ.

Plain values in, plain values out; :func:`memory_setup` is what memory.py estimates from. Imports no torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from w2s_align.training.layout import Layout
from w2s_align.training.memory import Setup
from w2s_align.training.method import Method
from w2s_align.training.padding_free import why_padded_family
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import TrainSettings

MICRO_BATCH_TOKENS = 16_384
"""Padded tokens that the default micro batch stays below, to bound activations: 8 sequences of 2,048."""
PACKED_TOKENS = 4096
"""Mean tokens of the default micro batch without padding. Lower than with it: rows that meet may all be long ones."""


@dataclass(frozen=True)
class RowSizes:
    """Tokens of the rows of a training.

    Attributes:
        mean: Mean of a row: prompt and all its responses, the prompt once.
        spread: Standard deviation of that.
        largest: The largest of that.
        longest: Longest prompt + response.
        targets: Share of a row's tokens that carries loss.
    """

    mean: float
    spread: float
    largest: int
    longest: int
    targets: float


def held_out_rows(settings: TrainSettings, rows: int) -> int:
    """Return how many of ``rows`` are measured and not trained on."""
    wanted = settings.held_out
    return int(wanted) if wanted >= 1 else math.ceil(wanted * rows)


def optimizer_steps(settings: TrainSettings, rows: int) -> int:
    """Return the optimizer steps of a training on ``rows``, of which the last batch of an epoch is filled up."""
    batches = math.ceil(rows * settings.responses_per_prompt / settings.batch_size)
    return settings.max_steps or math.ceil(settings.num_train_epochs * batches)


def held_out_choice(settings: TrainSettings, rows: int) -> set[int]:
    """Return which rows are measured and not trained on; the choice does not depend on the seed."""
    return set(random.Random(0).sample(range(rows), held_out_rows(settings, rows)))


def fixed_order(rows: int, settings: TrainSettings, seed: int) -> list[int]:
    """Return the order of rows that is the same in every epoch, filled up to whole batches.

    Args:
        rows: Number of rows.
        settings: The size of a batch.
        seed: Seed of the order.
    """
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    each = settings.batch_size // settings.responses_per_prompt
    return order + [order[i % len(order)] for i in range(-len(order) % each)]


def trained_tokens(settings: TrainSettings, row_tokens: Sequence[int], seed: int, *, shuffled: bool) -> int:
    """Return how many tokens a training reads, in the rows and the order that its trainer takes.

    Args:
        settings: What is learned.
        row_tokens: Tokens of each row; held-out rows are among them.
        seed: Seed of the training.
        shuffled: Whether each epoch has an order of its own; else rows come in :func:`fixed_order`.
    """
    apart = held_out_choice(settings, len(row_tokens))
    if shuffled:
        rows = [tokens for i, tokens in enumerate(row_tokens) if i not in apart]
        rows += [
            rows[i % len(rows)] for i in range(-len(rows) % (settings.batch_size // settings.responses_per_prompt))
        ]
    else:
        rows = [row_tokens[i] for i in fixed_order(len(row_tokens), settings, seed)]
    each = settings.responses_per_prompt
    epochs, rest = divmod(optimizer_steps(settings, len(rows)) * settings.batch_size // each, len(rows))
    order: Sequence[int] = range(rest)
    if shuffled and rest:
        import torch  # accelerate's SeedableRandomSampler draws the order of epoch e with seed + e

        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epochs)).tolist()[:rest]
    return each * (epochs * sum(rows) + sum(rows[i] for i in order))


def recomputes(resources: TrainResources, parameters: int) -> bool:
    """Say whether activations are computed again in the backward pass of a model of ``parameters`` weights."""
    wanted = resources.gradient_checkpointing
    return resources.optimize_for == "memory" or parameters >= 1e9 if wanted == "auto" else wanted


def micro_batch(
    settings: TrainSettings, resources: TrainResources, processes: int, sizes: RowSizes, sides: int, *, packed: bool
) -> int:
    """Return the rows of a micro batch: of one forward pass on one device.

    Args:
        settings: What is learned.
        resources: ``micro_batch_size``, where it is given, is what is returned.
        processes: Processes that train together; ``batch_size`` is a multiple of it.
        sizes: Tokens of the rows.
        sides: Sequences per row: 2 for pairs, 1 for chats.
        packed: Whether micro batches have no padding.
    """
    if resources.micro_batch_size is not None:
        return resources.micro_batch_size
    if together := settings.rows_together:
        return max(1, together // processes)
    per_process = max(1, settings.batch_size // processes)
    fits = int(PACKED_TOKENS / sizes.mean) if packed else MICRO_BATCH_TOKENS // (sides * sizes.longest)
    if resources.optimize_for == "memory":
        fits = 1
    return max(n for n in range(1, per_process + 1) if per_process % n == 0 and n <= max(1, fits))


def largest_micro_batch(sizes: RowSizes, micro: int, sides: int, number: int, *, packed: bool) -> float:
    """Return the tokens of the largest micro batch, padding included.

    With padding it is the one with the longest row. Without, it is the larger of two expectations: the longest row
    among mean ones, and the largest of ``number`` sums of ``micro`` rows, which for many sums lies sqrt(2 ln number)
    standard deviations above their mean.

    Args:
        sizes: Tokens of the rows.
        micro: Rows in a micro batch.
        sides: Sequences per row.
        number: Micro batches of the training.
        packed: Whether they have no padding.
    """
    if not packed:
        return float(micro * sides * sizes.longest)
    largest = micro * sizes.mean + math.sqrt(2 * math.log(max(2, number)) * micro) * sizes.spread
    return min(max(largest, sizes.largest + (micro - 1) * sizes.mean), float(micro * sizes.largest))


def memory_setup(
    method: Method,
    settings: TrainSettings,
    resources: TrainResources,
    layout: Layout,
    sizes: RowSizes,
    rows: int,
    *,
    family: str,
    parameters: int,
    dtype: str,
    save_dtype: str,
    trained: int | None = None,
    frozen: int = 0,
    cpu: bool = False,
) -> Setup:
    """Return what decides the memory of a training.

    Args:
        method: The kind of training.
        settings: What is learned.
        resources: What the training may use.
        layout: The processes that train together.
        sizes: Tokens of the rows.
        rows: Rows that are trained on.
        family: Type of the model, as in its config.json.
        parameters: Its weights.
        dtype: Precision of the arithmetic.
        save_dtype: Precision of the saved model.
        trained: Trained weights of an adapter that is not on every linear layer.
        frozen: Weights of the frozen models beside it.
        cpu: Whether it trains on a CPU.
    """
    packed = why_padded_family(method, family, resources) is None
    micro = micro_batch(settings, resources, layout.processes, sizes, method.sides, packed=packed)
    number = max(1, rows // (micro * layout.processes))
    tokens = largest_micro_batch(sizes, micro, method.sides, number, packed=packed)
    everywhere = cpu and not packed  # TRL leaves prompts out of the head on GPUs, padding_free.py everywhere
    adapter = settings.adapter
    return Setup(
        tokens=tokens,
        targets=tokens if everywhere else tokens * sizes.targets,
        packed=packed,
        sides=method.sides,
        accumulation=max(1, settings.batch_size // layout.processes // micro),
        processes=layout.processes,
        kind=layout.kind,
        stage=layout.stage,
        offload=layout.name == "zero3_offload" and not cpu,
        dtype=dtype,
        rank=adapter.r if adapter else None,
        trained=trained,
        four_bits=adapter is not None and adapter.load_in_4bit,
        recompute=recomputes(resources, parameters),
        head=method.logits,
        cpu=cpu,
        save_dtype=save_dtype,
        frozen=frozen * (4.0 if dtype == "float32" or (method.frozen_as_trained and adapter is None) else 2.0),
    )
