"""What this machine has for steps to use: cores and GPUs, found without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Resources that a run may use.

    Attributes:
        cpus: CPU cores.
        gpus: Device ids as CUDA_VISIBLE_DEVICES takes them.
    """

    cpus: int
    gpus: tuple[str, ...]


def this_machine() -> Machine:
    """Return the cores and GPUs that this process may use."""
    return Machine(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _gpus())


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(device for device in visible.split(",") if device and device != "-1")
    if shutil.which("nvidia-smi") is None:
        return ()
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in listing.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(str(index) for index in range(len(lines)))
