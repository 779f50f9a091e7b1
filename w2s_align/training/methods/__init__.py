"""Kinds of training, one file each; a file in this folder is found by its ``METHODS``, and registered nowhere else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w2s_align.training.method import Method
    from w2s_align.training.settings import TrainSettings


@cache
def all_methods() -> dict[str, Method]:
    """Return every kind of training by its name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {method.name: method for module in modules for method in module.METHODS}


def method_of(settings: TrainSettings) -> Method:
    """Return the kind of training that settings of this class belong to.

    Args:
        settings: Settings of one kind, e.g. ``DPOSettings(learning_rate=1e-6)``.

    Raises:
        TypeError: They belong to no kind.
    """
    for method in all_methods().values():
        if type(settings) is method.settings:
            return method
    raise TypeError(f"{type(settings).__name__} are not the settings of a kind of training")
