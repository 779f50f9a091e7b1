"""Weak-to-strong alignment of language models, from prompts to a measured verdict.

from w2s_align import load_recipe
run = load_recipe("recipes/quickstart.yaml").run()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2s_align.runs import Run, load_recipe

__all__ = ["Run", "load_recipe"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("w2s_align.runs"), name)
