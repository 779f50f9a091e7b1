"""Generate responses to prompts: with any engine, crash-safe, with every token counted.

    from w2s_align.generation import Sampling, generate

    result = generate("Qwen/Qwen2.5-0.5B-Instruct", ["What is 2 + 2?"], Sampling(temperature=0, max_tokens=64))
    result.table()  # one row per response: records.Response.SCHEMA

Importing this package loads no engine; the first call does.
"""

from w2s_align.generation.engines import FALLBACK, EngineCache, engine_version, resolve_engine_name
from w2s_align.generation.generate import generate, generate_shard
from w2s_align.generation.job import request_seed
from w2s_align.generation.result import Generation
from w2s_align.generation.settings import Engine, EngineResources, Price, Sampling

__all__ = [
    "FALLBACK",
    "Engine",
    "EngineCache",
    "EngineResources",
    "Generation",
    "Price",
    "Sampling",
    "engine_version",
    "generate",
    "generate_shard",
    "request_seed",
    "resolve_engine_name",
]
