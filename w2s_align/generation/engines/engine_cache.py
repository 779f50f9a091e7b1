"""Start an engine, and keep it for the next job that needs the same one.

Starting vLLM takes longer than a small job, and two engines rarely fit into one GPU: the cache holds exactly one.

    with EngineCache() as engines:
        engines.get(find_model("a"), Engine(), EngineResources())
        engines.get(find_model("b"), Engine(), EngineResources())   # closes the first one
"""

from __future__ import annotations

from types import TracebackType

from w2s_align.errors import UserError
from w2s_align.generation.engines.base import EngineRun
from w2s_align.generation.engines.installed import resolve_engine_name
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine, EngineResources

LOADING = ("name", "dtype", "max_model_len", "quantization", "kv_cache_dtype", "trust_remote_code", "fusion")
"""Options of ``Engine`` that need the model to be loaded again when they change."""


def open_engine(model: ModelFiles, engine: Engine, resources: EngineResources) -> EngineRun:
    """Load a model into an engine.

    Args:
        model: The model.
        engine: Which engine, and what else can change a response.
        resources: How much of the machine it takes.

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

        _check_transformers(engine, resources)
        return TransformersEngine(model, engine, resources)
    from w2s_align.generation.engines.vllm import VllmEngine

    return VllmEngine(model, engine, resources)


def _check_transformers(engine: Engine, resources: EngineResources) -> None:
    """Refuse options that only vLLM has."""
    options = {
        f"engine.quantization: {engine.quantization}": engine.quantization is not None,
        f"engine.kv_cache_dtype: {engine.kv_cache_dtype}": engine.kv_cache_dtype != "auto",
        f"resources.tensor_parallel_size: {resources.tensor_parallel_size}": resources.tensor_parallel_size > 1,
        f"resources.pipeline_parallel_size: {resources.pipeline_parallel_size}": resources.pipeline_parallel_size > 1,
        f"resources.cpu_offload_gib: {resources.cpu_offload_gib}": resources.cpu_offload_gib > 0,
        "resources.enable_expert_parallel": resources.enable_expert_parallel,
    }
    found = [option for option, is_set in options.items() if is_set]
    if found:
        raise UserError(
            f"The transformers engine does not support {', '.join(found)}.",
            fix="Use the vllm engine (for quantization also: a model that is stored quantized), or leave it out.",
        )


class EngineCache:
    """Holds the last engine. The next job with the same model, engine options and resources gets it."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._engine: EngineRun | None = None

    def get(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> EngineRun:
        """Return an engine with this model; another one is closed first.

        Args:
            model: The model.
            engine: Which engine, and what else can change a response.
            resources: How much of the machine it takes.

        Raises:
            UserError: See :func:`open_engine`.
        """
        loading: tuple[object, ...]
        if engine.name == "openai":  # loads nothing; every option changes its requests
            loading = (model.name, engine)
        else:
            options = tuple(getattr(engine, name) for name in LOADING)
            loading = (model.folder.resolve(), tuple(model.fingerprint()), options)
        # Not resources itself: a step passes a subclass, whose own fields do not matter here.
        key = (loading, tuple(getattr(resources, name) for name in EngineResources.model_fields))
        if self._engine is None or key != self._key or getattr(self._engine, "dead", False):
            self.close()
            self._engine = open_engine(model, engine, resources)
            self._key = key
        return self._engine

    def close(self) -> None:
        """Close the engine that is held, if any."""
        engine, self._engine, self._key = self._engine, None, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> EngineCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
