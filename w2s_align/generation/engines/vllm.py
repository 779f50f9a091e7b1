"""vLLM, driven from this process: requests go in as there is room, completions come out as they finish.

Like ``LLM.generate``, but without its two lists: not all requests are created before the first one runs, and not all
completions are held until the last one is done. Prompts go in as token ids; the model's own sampling defaults are
ignored.
"""

from __future__ import annotations

import gc
import math
import os
import threading
from collections.abc import Generator, Iterable, Sequence
from copy import copy
from typing import Any

from w2s_align.errors import UserError
from w2s_align.generation.adapters import Adapter
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.engines.devices import check_devices
from w2s_align.generation.engines.vllm_errors import explain
from w2s_align.generation.engines.vllm_processes import child_processes, kill_with_this_process, report_dead_engine
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling

GIB = 1024**3
CPU_KV_CACHE_GIB = 4.0
"""Largest KV cache on a CPU by default: what a laptop can spare."""
CPU_MAX_NUM_SEQS = 256
"""Concurrent sequences on a CPU by default; the KV cache is sized for them."""
CPU_BLOCK_TOKENS = 128
"""vLLM's CPU build allocates the KV cache in blocks of so many tokens."""


class VllmEngine:
    """A vLLM engine with one model; see :class:`~.base.EngineRun`.

    Raises:
        UserError: The model does not fit into memory, or vLLM does not know its architecture.
    """

    name: EngineName = "vllm"
    dead = False
    """Whether its engine process has died, so that a new engine is needed."""

    def __init__(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> None:
        _set_environment()
        check_devices(resources)
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext

        self.dtype = engine.dtype if engine.dtype != "auto" else model.stored_dtype()
        self.device = str(current_platform.device_type)
        on_cpu = current_platform.is_cpu()
        self.devices = 0 if on_cpu else resources.tensor_parallel_size * resources.pipeline_parallel_size
        options: dict[str, Any] = {
            "model": str(model.folder),
            "dtype": self.dtype,
            "max_model_len": engine.max_model_len,
            "quantization": engine.quantization,
            "trust_remote_code": engine.trust_remote_code,
            "generation_config": "vllm",  # neutral sampling defaults instead of those in generation_config.json
            "disable_log_stats": True,
            "tensor_parallel_size": resources.tensor_parallel_size,
            "pipeline_parallel_size": resources.pipeline_parallel_size,
            "gpu_memory_utilization": resources.gpu_memory_utilization,
            "max_num_seqs": resources.max_num_seqs,
            "max_num_batched_tokens": resources.max_num_batched_tokens,
            "cpu_offload_gb": resources.cpu_offload_gib,
            "enable_expert_parallel": resources.enable_expert_parallel,
            "kv_cache_dtype": engine.kv_cache_dtype,
            "enforce_eager": on_cpu if resources.enforce_eager is None else resources.enforce_eager,
        }
        self._lora: Any = None
        if model.adapter is not None:
            self._lora = _lora_request(model.adapter, model.name)
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_room(model.adapter, model.name)}
            options["tokenizer"] = str(model.tokenizer_folder)
        if resources.enable_prefix_caching is not None or on_cpu:
            options["enable_prefix_caching"] = bool(resources.enable_prefix_caching)
        if on_cpu:
            options["max_num_seqs"] = resources.max_num_seqs or CPU_MAX_NUM_SEQS
            # vllm 0.32: a prompt that is read in two chunks rewinds the generator of its seed, which torch cannot do
            # on a CPU ("CPU Generator does not use offset").
            options["enable_chunked_prefill"] = False
        kv_cache_gib = resources.kv_cache_gib
        if kv_cache_gib is None and on_cpu and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            kv_cache_gib = _cpu_kv_cache_gib(model, self.dtype, engine.max_model_len, options["max_num_seqs"])
        if kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(kv_cache_gib * GIB)
        before = set(child_processes())
        try:
            arguments = EngineArgs(**options)
            self._engine: Any = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            _shut_down(None)
            raise explain(error, model, options) from error
        self._watch = kill_with_this_process([pid for pid in child_processes() if pid not in before])
        self._closed = threading.Event()
        if hasattr(self._engine.engine_core, "outputs_queue"):  # the engine is a process of its own
            watched = (self._engine.engine_core, self._closed)
            threading.Thread(target=report_dead_engine, args=watched, daemon=True).start()
        config = self._engine.vllm_config
        self.context_length: int = config.model_config.max_model_len
        # Twice what runs concurrently: the scheduler always finds a next request, and memory stays bounded.
        self.in_flight: int = 2 * config.scheduler_config.max_num_seqs

    def run(
        self, requests: Iterable[Request | None], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Generate the completions; see :meth:`.base.EngineRun.run`. A request of None means: none right now.

        Raises:
            UserError: vLLM's engine process has died.
        """
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        parameters = _parameters(sampling, stop_token_ids)
        source = iter(requests)
        pending: dict[str, Request] = {}
        ended = False
        try:
            while True:
                while not ended and len(pending) < self.in_flight:
                    try:
                        request = next(source)
                    except StopIteration:
                        ended = True
                        break
                    if request is None:
                        break
                    pending[str(request.row)] = request
                    own = copy(parameters)
                    own.seed = request.seed
                    prompt = tokens_input(request.token_ids)
                    self._engine.add_request(str(request.row), prompt, own, lora_request=self._lora)
                if not pending:
                    if ended:
                        return
                    continue
                try:
                    outputs = [output for output in self._engine.step() if output.finished]
                except EngineDeadError as error:
                    self.dead = True
                    pending.clear()
                    raise UserError(
                        "vLLM's engine process has died.",
                        why="See vLLM's own log above for the cause; a process that was killed logs none.",
                        fix="Finished responses are kept; run the same command again, and it resumes.",
                    ) from error
                yield [_completion(pending.pop(output.request_id), output.outputs[0]) for output in outputs]
        finally:
            if pending:
                self._engine.abort_request(list(pending))

    def close(self) -> None:
        """Free the model's memory and end the engine's processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._closed.set()
            if self._watch is not None:
                self._watch.kill()
                self._watch.wait()
            _shut_down(engine)


def _set_environment() -> None:
    """Set vLLM's environment variables where the user has not; call this before the first import of vllm."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        # In this process: no second start of Python, and no workers that outlive a kill. Threads are not bound to
        # cores, because the threads of several engines would be bound to the same ones.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def _lora_room(adapter: Adapter, name: str) -> int:
    """Return the smallest rank that vLLM can be configured for and the adapter fits.

    Raises:
        UserError: vLLM cannot apply the adapter.
    """
    from typing import get_args

    from vllm.config.lora import LoRAConfig, MaxLoRARanks
    from vllm.lora.peft_helper import PEFTHelper

    room = next((rank for rank in get_args(MaxLoRARanks) if rank >= adapter.rank), None)
    try:
        if room is None:
            raise ValueError(f"Its rank is {adapter.rank}; vLLM takes at most {max(get_args(MaxLoRARanks))}.")
        PEFTHelper.from_local_dir(str(adapter.folder), None).validate_legal(
            LoRAConfig(max_lora_rank=room, max_loras=1)
        )
    except ValueError as error:
        raise UserError(
            f"vLLM cannot apply the adapter {name}.",
            why=str(error),
            fix="Merge it into its base (peft: merge_and_unload), or set engine.name: transformers.",
        ) from error
    return int(room)


def _lora_request(adapter: Adapter, name: str) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=name, lora_int_id=1, lora_path=str(adapter.folder))


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
        skip_clone=True,  # run() makes the copy of each request
    )


def _completion(request: Request, output: Any) -> Completion:
    tokens = len(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        return Completion(request, None, "error", tokens, error=f"vllm ended the request: {output.finish_reason}")
    return Completion(request, output.text, output.finish_reason, tokens, output.cumulative_logprob)


def _cpu_kv_cache_gib(model: ModelFiles, dtype: str, max_model_len: int | None, max_num_seqs: int) -> float:
    """Return the room for ``max_num_seqs`` full contexts, at most 4 GiB or a quarter of the free memory.

    By default, vLLM's CPU build takes most of the machine's memory (vllm 0.32).
    """
    import psutil

    config = model.text_config
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 1
    width = config.get("head_dim") or config.get("hidden_size", 4096) // (config.get("num_attention_heads") or 1)
    bytes_per_token = 2 * config.get("num_hidden_layers", 32) * heads * width * (4 if dtype == "float32" else 2)
    context = max_model_len or config.get("max_position_embeddings", 2048)
    blocks = math.ceil(context / CPU_BLOCK_TOKENS) + 1
    wanted = bytes_per_token * CPU_BLOCK_TOKENS * blocks * max_num_seqs / GIB
    return float(min(wanted, CPU_KV_CACHE_GIB, psutil.virtual_memory().available / GIB / 4))


def _shut_down(engine: Any | None) -> None:
    """Free memory in this process, which dropping the engine alone does not: vllm-project/vllm#1908."""
    if engine is not None:
        engine.engine_core.shutdown()
    del engine
    gc.collect()
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
