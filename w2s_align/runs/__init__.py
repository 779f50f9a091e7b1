"""What happens to a recipe: plan, execution, workers, status, the Python API. Imports no torch.

from w2s_align import load_recipe
run = load_recipe("recipes/quickstart.yaml").run()
run.table("pairs")                                # an Arrow table
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2s_align.runs.loaded import LoadedRecipe, StepCrashed, load_recipe, recipe_from_text
    from w2s_align.runs.run import Run

__all__ = ["LoadedRecipe", "Run", "StepCrashed", "load_recipe", "recipe_from_text"]


def __getattr__(name: str) -> Any:
    """Load what is asked for: a worker needs none of it, and starts in half the time without the catalogue."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"w2s_align.runs.{'run' if name == 'Run' else 'loaded'}"), name)
