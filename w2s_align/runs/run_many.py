"""Several recipes as one plan: what they share is made once, and workers go on from one recipe to the next.

Reads and writes the folder of the runs, as single runs do; each recipe gets its own run there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine
from w2s_align.recipe import Recipe
from w2s_align.runs.execute import run_plan
from w2s_align.runs.local import LocalExecutor
from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.plan import Planned, plan
from w2s_align.runs.run import Run


def qualified_name(recipe: Recipe, node: str) -> str:
    """Return what a node of a recipe is called beside those of other recipes."""
    return f"{recipe.name}: {node}"


def run_many(
    recipes: Sequence[Recipe], store: Store, machine: Machine, on_event: Callable[[Event], None]
) -> tuple[list[Run], Outcome]:
    """Plan and run several recipes side by side.

    Args:
        recipes: The recipes, with different names.
        store: Where artifacts are made.
        machine: What all steps together may use.
        on_event: Called for everything that happens, with names of :func:`qualified_name`.

    Returns:
        The run of each recipe, and what became of all the steps.

    Raises:
        UserError: A recipe cannot work, or two have the same name.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        same = next(name for name in names if names.count(name) > 1)
        raise UserError(f"Two of the recipes are called {same}.", fix="Run them one after the other.")
    plans = [plan(recipe, store) for recipe in recipes]
    store.require_writable()
    outcome = Outcome()
    whole = {
        qualified_name(recipe, name): _qualified(recipe, item)
        for recipe, planned in zip(recipes, plans, strict=True)
        for name, item in planned.items()
    }
    try:
        LocalExecutor(whole, store, machine).run(outcome, on_event)
    finally:  # also where the user stops it: what is finished belongs to the runs
        runs = [
            run_plan(recipe, planned, store, partial(_take_over, recipe, planned, outcome), lambda event: None)[0]
            for recipe, planned in zip(recipes, plans, strict=True)
        ]
    return runs, outcome


def _qualified(recipe: Recipe, item: Planned) -> Planned:
    inputs = {place: qualified_name(recipe, source) for place, source in item.node.inputs.items()}
    return replace(item, node=replace(item.node, inputs=inputs))


def _take_over(
    recipe: Recipe,
    planned: Mapping[str, Planned],
    whole: Outcome,
    outcome: Outcome,
    on_event: Callable[[Event], None],
) -> None:
    """Fill in what became of one recipe's steps."""
    for name in planned:
        outcome.states[name] = whole.states.get(qualified_name(recipe, name), "waiting")
        if (seconds := whole.seconds.get(qualified_name(recipe, name))) is not None:
            outcome.seconds[name] = seconds
