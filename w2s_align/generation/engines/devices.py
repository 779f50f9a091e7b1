"""The GPUs that generation may use.

Reads ``CUDA_VISIBLE_DEVICES``; asks torch where it is not set.
"""

from __future__ import annotations

import os

from w2s_align.errors import UserError
from w2s_align.generation.settings import EngineResources


def visible_gpus() -> tuple[str, ...]:
    """Return the ids of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(device.strip() for device in visible.split(",") if device.strip() not in ("", "-1"))
    import torch

    return tuple(str(device) for device in range(torch.cuda.device_count()))


def check_devices(resources: EngineResources) -> None:
    """Refuse a model that needs more GPUs than there are, before it is loaded.

    Raises:
        UserError: There are too few GPUs.
    """
    needed = resources.tensor_parallel_size * resources.pipeline_parallel_size
    there = len(visible_gpus()) if needed > 1 else 1
    if needed > there:
        raise UserError(
            f"The model needs {needed} GPUs, but there {'are' if there > 1 else 'is'} {there or 'none'}.",
            why=f"resources.tensor_parallel_size is {resources.tensor_parallel_size}, "
            f"resources.pipeline_parallel_size is {resources.pipeline_parallel_size}; "
            "CUDA_VISIBLE_DEVICES and resources.gpus limit which GPUs may be used.",
            fix="Lower them, or run on a machine with more GPUs.",
        )
