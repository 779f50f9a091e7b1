"""GPUs and time that a generation, or a model that judges, will need.

Reads the shape of its model; sends no request to the hub.
"""

from __future__ import annotations

import math
from typing import Any

from w2s_align.estimates.costs import GENERATION_USE, PROMPT_TOKENS, START, Range, StepEstimate, answer_tokens
from w2s_align.estimates.gpus import Hardware
from w2s_align.families import Shape
from w2s_align.generation.memory import generation_memory
from w2s_align.steps.debate import DebateStep
from w2s_align.steps.decompose import Decompose
from w2s_align.steps.judge import JudgeStep
from w2s_align.steps.meta_ranking import MetaRanking


def estimate_generation(
    config: Any, rows: int | None, exact: bool, shape: Shape | None, hardware: Hardware | None
) -> StepEstimate:
    """Estimate a generation.

    Args:
        config: Its step.
        rows: Number of prompts, or of responses that are judged; None when it is unknown.
        exact: Whether that number is exact.
        shape: Shape of its model; None when it is unknown or a server has the model.
        hardware: What it runs on; None leaves out memory and time.
    """
    n, responses = config.sampling.n, None
    found = StepEstimate(None if rows is None else rows * n, exact=exact and rows is not None)
    if rows is not None and isinstance(config, Decompose):
        found.rows, found.exact = rows * config.at_most, False  # at most
    if rows is not None:
        responses = rows * n * _requests_per_row(config)
        low, high = answer_tokens(config.sampling.max_tokens)
        found.tokens = (responses * low, responses * high)
    if shape is None or hardware is None:
        return found
    resources = config.resources
    spread = resources.tensor_parallel_size * resources.pipeline_parallel_size
    copies = getattr(resources, "data_parallel_size", 1)
    found.gpus = spread * copies
    limits = (config.engine.max_model_len, shape.context, config.sampling.max_tokens + 1024)
    longest = int(min(limit for limit in limits if limit))
    gpu = hardware.gpu
    share = resources.gpu_memory_utilization
    memory = generation_memory(shape, gpu.memory, share=share, devices=spread, longest=longest)
    found.parts = {"weights": memory.weights, "KV cache": memory.kv_cache}
    found.memory, found.fits = memory.weights + memory.kv_cache, memory.sequences > 0
    if not found.fits:
        found.advice = _advice(shape, gpu.memory, spread, longest, hardware.count)
        return found
    if spread * copies > hardware.count:
        fewer = max(1, hardware.count // spread)
        found.advice = f"it needs {spread * copies} GPUs of {hardware.count}: data_parallel_size={fewer}"
    if found.tokens is not None and responses is not None:
        found.seconds = _seconds(shape, responses, found.tokens, memory.sequences, spread, copies, hardware)
    return found


def _advice(shape: Shape, memory: float, spread: int, longest: int, count: int) -> str:
    """Return what would make the model fit, on this machine first."""

    def fits(devices: int, tokens: int) -> bool:
        return generation_memory(shape, memory, devices=devices, longest=tokens).sequences > 0

    shorter = next((tokens for tokens in (8192, 4096, 2048, 1024) if tokens < longest and fits(spread, tokens)), None)
    needed = next((k for k in (2, 4, 8, 16) if k > spread and fits(k, longest)), None)
    ways = []
    if needed:
        ways += [f"resources: {{tensor_parallel_size: {needed}}}" + (f" on {needed} GPUs" if needed > count else "")]
    if shorter:
        ways += [f"engine: {{max_model_len: {shorter}}}"]
    return ", or ".join(ways) or "a smaller model, or larger GPUs"


def _requests_per_row(config: Any) -> int:
    """Return the requests per row.

    A judge gets one per aspect, or per other response; references take two each, a debate takes its turns, a
    decomposition one answer and three checks of each sub-problem at most.
    """
    if isinstance(config, Decompose):
        return 1 + 3 * config.at_most
    if isinstance(config, DebateStep):
        return config.turns
    if isinstance(config, MetaRanking):
        return 2 * config.comparisons
    if not isinstance(config, JudgeStep) or config.mode == "verdict":
        return 1
    return len(config.aspects) if config.mode == "pointwise" else max(1, len(config.responses) - 1)


def _seconds(
    shape: Shape, rows: int, tokens: Range, sequences: int, spread: int, copies: int, hardware: Hardware
) -> Range:
    """Return the time from the scarcer of two: memory bandwidth (weights and keys, once per step) or arithmetic."""
    gpu, batch = hardware.gpu, max(1, min(sequences, 256, math.ceil(rows / copies)))
    copies = max(1, min(copies, hardware.count // spread))

    def seconds(written: float, prompt: float, use: float) -> float:
        length = prompt + written / rows / 2
        read = (shape.weight_bytes / batch + shape.kv_bytes() * length) * written / (gpu.bandwidth * spread)
        work = shape.forward_flops(length) * (written + rows * prompt) / (gpu.flops * spread)
        return max(read, work) / use / copies

    low, high = START
    return (
        seconds(tokens[0], PROMPT_TOKENS[0], GENERATION_USE[1]) + low,
        seconds(tokens[1], PROMPT_TOKENS[1], GENERATION_USE[0]) + high,
    )
