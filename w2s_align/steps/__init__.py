"""What a recipe can do. One file for each kind of step: its configuration, what it reads and writes, run().

Importing it imports no torch: the domain packages are imported when a step runs. The catalogue is loaded when somebody
asks for it: a process that runs one kind of step needs that kind alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2s_align.steps.catalogue import CATALOGUE
    from w2s_align.steps.step import Step

__all__ = ["CATALOGUE", "Step"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"w2s_align.steps.{'catalogue' if name == 'CATALOGUE' else 'step'}"), name)
