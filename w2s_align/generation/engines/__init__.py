"""What generates the completions: one file per engine, each with a class that follows :class:`~.base.EngineRun`.

``open_engine`` starts one; :class:`~.engine_cache.EngineCache` keeps the last one for the next job.
"""

from w2s_align.generation.engines.base import Completion, EngineRun, Request
from w2s_align.generation.engines.engine_cache import EngineCache, open_engine
from w2s_align.generation.engines.installed import FALLBACK, engine_version, resolve_engine_name

__all__ = [
    "FALLBACK",
    "Completion",
    "EngineCache",
    "EngineRun",
    "Request",
    "engine_version",
    "open_engine",
    "resolve_engine_name",
]
