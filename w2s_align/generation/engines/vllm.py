"""vLLM in this process's hands: requests are fed as there is room, answers come out as they finish.

This is ``LLM.generate`` without its two lists: not all requests are made before the first one runs, and not all
answers are held until the last one is done. Prompts go in as token ids; the model's own sampling defaults are not
looked at.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Generator, Iterable, Sequence
from copy import copy
from typing import Any

from w2s_align.errors import UserError
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling

GIB = 1024**3
CPU_KV_CACHE_GIB = 4.0
CPU_MAX_NUM_SEQS = 256

MEMORY_HINTS = (
    "kv cache",
    "cache blocks",
    "out of memory",
    "free memory on device",
    "memory utilization",
    "available memory",
)
"""How vLLM's messages about too little memory can be told from others."""


class VllmEngine:
    """A vLLM engine with one model; see :class:`~.base.EngineRun`.

    Raises:
        UserError: The model does not fit into memory, or vLLM does not know its architecture.
    """

    name: EngineName = "vllm"

    def __init__(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> None:
        _set_environment()
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext

        self.dtype = engine.dtype if engine.dtype != "auto" else model.stored_dtype()
        self.device = str(current_platform.device_type)
        on_cpu = current_platform.is_cpu()
        options: dict[str, Any] = {
            "model": str(model.folder),
            "dtype": self.dtype,
            "max_model_len": engine.max_model_len,
            "quantization": engine.quantization,
            "trust_remote_code": engine.trust_remote_code,
            "generation_config": "vllm",  # neutral sampling defaults, not those of generation_config.json
            "disable_log_stats": True,
            "tensor_parallel_size": resources.tensor_parallel_size,
            "pipeline_parallel_size": resources.pipeline_parallel_size,
            "gpu_memory_utilization": resources.gpu_memory_utilization,
            "max_num_seqs": resources.max_num_seqs,
            "enforce_eager": on_cpu if resources.enforce_eager is None else resources.enforce_eager,
        }
        if resources.enable_prefix_caching is not None or on_cpu:
            options["enable_prefix_caching"] = bool(resources.enable_prefix_caching)
        if on_cpu:
            options["max_num_seqs"] = resources.max_num_seqs or CPU_MAX_NUM_SEQS
        kv_cache_gib = resources.kv_cache_gib
        if kv_cache_gib is None and on_cpu and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            kv_cache_gib = _cpu_kv_cache_gib(model, self.dtype, engine.max_model_len, options["max_num_seqs"])
        if kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(kv_cache_gib * GIB)
        try:
            arguments = EngineArgs(**options)
            self._engine: Any = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            _shut_down(None)
            raise _explained(error, model, options) from error
        config = self._engine.vllm_config
        self.context_length: int = config.model_config.max_model_len
        # Twice what runs at a time: the scheduler always finds a next request, and memory stays bounded.
        self._in_flight = 2 * config.scheduler_config.max_num_seqs

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Answer the requests; see :meth:`.base.EngineRun.run`."""
        from vllm.inputs import tokens_input

        parameters = _parameters(sampling, stop_token_ids)
        source = iter(requests)
        pending: dict[str, Request] = {}
        try:
            while True:
                while len(pending) < self._in_flight:
                    request = next(source, None)
                    if request is None:
                        break
                    pending[str(request.row)] = request
                    own = copy(parameters)
                    own.seed = request.seed
                    self._engine.add_request(str(request.row), tokens_input(request.token_ids), own)
                if not pending:
                    return
                outputs = [output for output in self._engine.step() if output.finished]
                yield [_completion(pending.pop(output.request_id), output.outputs[0]) for output in outputs]
        finally:
            if pending:
                self._engine.abort_request(list(pending))

    def close(self) -> None:
        """Free the model's memory and end the engine's own processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            _shut_down(engine)


def _set_environment() -> None:
    """Set vLLM's environment variables where the user has not; to be called before the first import of vllm."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        # In this process: no second start of Python, and no workers that outlive a kill. Unbound threads, because
        # bound ones of several engines would all sit on the same cores.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def _parameters(sampling: Sampling, stop_token_ids: Sequence[int]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=list(sampling.stop),
        stop_token_ids=list(stop_token_ids),
        logprobs=0 if sampling.logprobs else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # each request gets its own copy
    )


def _completion(request: Request, output: Any) -> Completion:
    tokens = len(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        return Completion(request, None, "error", tokens, error=f"vllm ended the request: {output.finish_reason}")
    return Completion(request, output.text, output.finish_reason, tokens, output.cumulative_logprob)


def _cpu_kv_cache_gib(model: ModelFiles, dtype: str, max_model_len: int | None, max_num_seqs: int) -> float:
    """Room for ``max_num_seqs`` full contexts, at most 4 GiB or a quarter of the free memory.

    Left to itself, vLLM's CPU build takes most of the machine's memory.
    """
    import psutil

    config = model.text_config
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 1
    width = config.get("head_dim") or config.get("hidden_size", 4096) // (config.get("num_attention_heads") or 1)
    bytes_per_token = 2 * config.get("num_hidden_layers", 32) * heads * width * (4 if dtype == "float32" else 2)
    context = max_model_len or config.get("max_position_embeddings", 2048)
    blocks = math.ceil(context / 128) + 1  # vLLM's CPU build hands out memory in blocks of 128 tokens
    wanted = bytes_per_token * 128 * blocks * max_num_seqs / GIB
    return float(min(wanted, CPU_KV_CACHE_GIB, psutil.virtual_memory().available / GIB / 4))


def _explained(error: Exception, model: ModelFiles, options: dict[str, Any]) -> Exception:
    """Make a user's error of what vLLM says where the user can do something about it; else return it as it is."""
    text = str(error)
    if any(hint in text.lower() for hint in MEMORY_HINTS):
        return UserError(
            f"vLLM has not enough memory for {model.name}.",
            why=text.splitlines()[0],
            fix="Lower engine.max_model_len, raise resources.kv_cache_gib or resources.gpu_memory_utilization, "
            "spread the model with resources.tensor_parallel_size, or end other processes that hold memory.",
        )
    if "max_model_len" in text and options["max_model_len"] is not None:
        return UserError(
            f"vLLM does not take max_model_len {options['max_model_len']} for {model.name}.",
            why=text.splitlines()[0],
            fix="Leave engine.max_model_len out, or give at most the model's own context.",
        )
    if "Engine core initialization failed" in text:
        return UserError(
            f"vLLM's engine process could not start with {model.name}.",
            why="The cause stands above in vLLM's own log.",
            fix="For out of memory: lower engine.max_model_len or resources.gpu_memory_utilization, "
            "or raise resources.tensor_parallel_size.",
        )
    if "architectures" in text and "not supported" in text:
        return UserError(
            f"vLLM does not support the architecture of {model.name}.",
            why=text.splitlines()[0],
            fix="Set engine.name: transformers, which is slower.",
        )
    return error


def _shut_down(engine: Any | None) -> None:
    """Free memory in this process: https://github.com/vllm-project/vllm/issues/1908."""
    if engine is not None:
        engine.engine_core.shutdown()
    del engine
    gc.collect()
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
