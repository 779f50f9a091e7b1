"""What a shell completes on the `w2s` command line: recipes, steps, kinds and runs.

The shell calls these at each press of the tab key: they import what they need when they run, and stay silent about
mistakes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import typer

from w2s_align.errors import UserError


def recipes_and_files(incomplete: str) -> list[str]:
    """Return the shipped recipes, and the YAML files of the folder that is being typed."""
    from w2s_align.terminal.catalogue import shipped_recipes

    folder = Path(incomplete).parent if "/" in incomplete else Path()
    with contextlib.suppress(OSError):
        return _begin([*shipped_recipes(), *map(str, sorted(folder.glob("*.yaml")))], incomplete)
    return []


def steps_of(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the steps of the recipe on the command line."""
    from w2s_align.recipe.document import read_document
    from w2s_align.terminal.catalogue import find_recipe

    with contextlib.suppress(UserError):
        steps = read_document(find_recipe(str(ctx.params.get("recipe")))).data.get("steps")
        return _begin(steps, incomplete) if isinstance(steps, dict) else []
    return []


def kinds(incomplete: str) -> list[str]:
    """Return the kinds of steps."""
    from w2s_align.steps.catalogue import CATALOGUE

    return _begin(CATALOGUE, incomplete)


def runs_and_steps(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the recipes that have run; after a slash, their runs and the finished steps of the latest."""
    folder = Path(ctx.params.get("runs_dir") or "w2s_runs") / "runs"
    recipe, slash, _ = incomplete.partition("/")
    found = folder / recipe if slash else folder
    names = [path.name for path in sorted(found.glob("*")) if path.is_dir() and path.name != "latest"]
    if slash:
        names += [path.name for path in sorted((found / "latest" / "steps").glob("*"))]
    return _begin((f"{recipe}/{name}" if slash else name for name in names), incomplete)


def _begin(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
