"""What writes the answers: one file per engine, each with a class that follows :class:`~.base.EngineRun`.

``open_engine`` starts one; :class:`~.opening.EngineCache` keeps the last one for a next job that wants the same.
"""

from w2s_align.generation.engines.base import Completion, EngineRun, Request
from w2s_align.generation.engines.engine_cache import (
    FALLBACK,
    EngineCache,
    engine_version,
    open_engine,
    resolve_engine_name,
)

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
