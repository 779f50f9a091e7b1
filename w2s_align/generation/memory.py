"""How much memory of a GPU a generation takes, and how many responses fit at once, from the model's shape.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from w2s_align.families.shapes import Shape

OVERHEAD = 1.5e9
"""Bytes of a GPU for CUDA's context, graphs and the activations of a forward pass: a rough value."""


@dataclass(frozen=True)
class GenerationMemory:
    """Bytes of one GPU while vLLM generates.

    Attributes:
        weights: Its share of the model.
        kv_cache: What is left for keys and values.
        sequences: Number of responses of full length that fit at once; 0 when not even one fits.
    """

    weights: float
    kv_cache: float
    sequences: int


def generation_memory(
    shape: Shape, gpu_bytes: float, *, share: float = 0.9, devices: int = 1, longest: int
) -> GenerationMemory:
    """Estimate how vLLM uses a GPU's memory.

    Args:
        shape: Shape of the model.
        gpu_bytes: Memory of a GPU.
        share: Share of it that vLLM may take (``gpu_memory_utilization``).
        devices: GPUs that share one copy of the model (tensor and pipeline parallel).
        longest: Tokens of the longest prompt and response together.
    """
    weights = shape.weight_bytes / devices
    left = gpu_bytes * share - weights - OVERHEAD
    each = shape.kv_bytes() * longest / min(devices, shape.kv_heads)
    return GenerationMemory(weights, max(0.0, left), max(0, int(left // each)))
