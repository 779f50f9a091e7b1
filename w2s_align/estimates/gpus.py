"""GPUs by name: memory, arithmetic, bandwidth, and what an hour costs. For plans; nothing here is measured.

Memory, dense bfloat16 operations and bandwidth are the makers' data sheets. Prices are rough ranges of rented machines
in US dollars: an assumption, shown with every plan, and better replaced by what you pay (``--price``).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from w2s_align.errors import UserError, did_you_mean
from w2s_align.machine import this_machine


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        name: Its usual name.
        memory: Bytes.
        flops: Dense bfloat16 operations per second.
        bandwidth: Bytes of memory read per second.
        price: Lowest and highest price of an hour, US dollars.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    price: tuple[float, float]


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("B200", 180e9, 2250e12, 8000e9, (3.0, 7.0)),
        Gpu("H200", 141e9, 989e12, 4800e9, (2.5, 5.0)),
        Gpu("H100", 80e9, 989e12, 3350e9, (1.8, 4.0)),
        Gpu("A100", 80e9, 312e12, 2039e9, (1.0, 2.5)),
        Gpu("A100-40", 40e9, 312e12, 1555e9, (0.8, 2.0)),
        Gpu("MI300X", 192e9, 1307e12, 5300e9, (2.0, 4.5)),
        Gpu("L40S", 48e9, 362e12, 864e9, (0.7, 1.8)),
        Gpu("A6000", 48e9, 155e12, 768e9, (0.4, 0.9)),
        Gpu("A10", 24e9, 125e12, 600e9, (0.4, 1.0)),
        Gpu("L4", 24e9, 121e12, 300e9, (0.4, 0.9)),
        Gpu("RTX5090", 32e9, 210e12, 1792e9, (0.4, 0.9)),
        Gpu("RTX4090", 24e9, 165e12, 1008e9, (0.3, 0.7)),
        Gpu("RTX3090", 24e9, 71e12, 936e9, (0.15, 0.4)),
        Gpu("RTX4080", 16e9, 97e12, 717e9, (0.2, 0.5)),
        Gpu("RTX4070", 12e9, 58e12, 504e9, (0.1, 0.3)),
        Gpu("RTX3060", 12e9, 25e12, 360e9, (0.05, 0.2)),
        Gpu("RTX4060", 8e9, 30e12, 272e9, (0.05, 0.2)),
    )
}
"""The kinds that a plan knows."""


@dataclass(frozen=True)
class Hardware:
    """What a plan is made for.

    Attributes:
        gpu: Kind of GPU.
        count: How many of them, over all machines.
        price: Lowest and highest price of one of them for an hour, US dollars.
    """

    gpu: Gpu
    count: int
    price: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.count} x {self.gpu.name} ({self.gpu.memory / 1e9:.0f} GB)"


def hardware(text: str | None, price: float | None = None) -> Hardware | None:
    """Return the GPUs that a plan is for: those of ``8xH100``, else those of this machine, else None.

    Args:
        text: What the user gave.
        price: What one of them costs for an hour; by default the range of the table.

    Raises:
        UserError: The text is not of this form, or names an unknown GPU.
    """
    if text is None:
        return _found(price)
    match = re.fullmatch(r"(?:(\d+)\s*[x*×]\s*)?([A-Za-z0-9][A-Za-z0-9 _-]*)", text.strip())
    if match is None or (match[1] and not int(match[1])) or re.fullmatch(r"\d{1,3}", match[2]):
        raise UserError(f"--gpus {text}: expected a number and a name.", fix="For example 8xH100.")
    gpu = _named(match[2])
    if gpu is None:
        known = did_you_mean(match[2].upper(), GPUS)
        raise UserError(
            f"{match[2]} is not a GPU that plans know.", fix=f"{known} Choose the one that is most like yours."
        )
    return Hardware(gpu, int(match[1] or 1), (price, price) if price is not None else gpu.price)


def _named(name: str) -> Gpu | None:
    """Return the GPU of a name as people write it: RTX 4090, 4090, A100-80GB."""
    plain = re.sub(r"[^A-Z0-9]|NVIDIA|GEFORCE|SXM\d?|PCIE|GB$", "", name.upper())
    for gpu in GPUS.values():
        own = re.sub(r"[^A-Z0-9]", "", gpu.name)
        if plain in (own, own.removeprefix("RTX"), f"{own}{gpu.memory / 1e9:.0f}"):
            return gpu
    return None


def _found(price: float | None) -> Hardware | None:
    count = len(this_machine().gpus)
    if not count:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    listing = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.splitlines()
    if not listing:
        return None
    name, _, mebibytes = listing[0].rpartition(",")
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    like = [gpu for gpu in GPUS.values() if re.sub(r"[^A-Z0-9]", "", gpu.name.partition("-")[0]) in plain]
    if not like:
        raise UserError(
            f"This machine has {name}, which plans do not know.",
            fix="Choose the GPU that is most like it: --gpus 1xL40S",
        )
    size = float(mebibytes) * 2**20
    gpu = min(like, key=lambda kind: abs(kind.memory - size))
    return Hardware(gpu, count, (price, price) if price is not None else gpu.price)
