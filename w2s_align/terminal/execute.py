"""Recipes that run while the terminal shows how far they are: here, on a Ray cluster, or as rehearsals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine, this_machine
from w2s_align.recipe import Recipe, apply_overrides, read_document
from w2s_align.runs.execute import execute
from w2s_align.runs.outcome import Outcome
from w2s_align.runs.run_many import qualified_name, run_many
from w2s_align.terminal.catalogue import find_recipe, shipped_recipes
from w2s_align.terminal.errors import show_error
from w2s_align.terminal.progress import Display, print_rich


def run_here(
    recipe: Recipe,
    runs_dir: Path,
    only: Sequence[str] | None = None,
    shard: tuple[int, int] | None = None,
    machine: Machine | None = None,
    *,
    with_inputs: bool = False,
) -> int:
    """Run a recipe on this machine, and show it.

    Args:
        recipe: The recipe.
        runs_dir: Folder of runs and artifacts.
        only: Names of steps, or of single nodes of them; nothing else is made.
        shard: Of these, make this shard: its number from 1, and how many there are.
        machine: Cores and GPUs to use. Default: all of this machine.
        with_inputs: Whether to make also what ``only`` reads.

    Returns:
        The exit code.

    Raises:
        UserError: The recipe cannot work, or a step was refused.
    """
    with Display(recipe.nodes) as display:
        run, outcome = execute(
            recipe,
            Store(runs_dir),
            machine or this_machine(),
            display.on_event,
            only or None,
            shard,
            with_inputs=with_inputs,
        )
    display.summary(run, outcome)
    return exit_code(outcome)


def run_on_ray(
    recipe: Recipe, overrides: Sequence[str], runs_dir: Path, nodes: int, cpus: int, address: str | None
) -> int:
    """Run a recipe on a Ray cluster, and show it; see :func:`w2s_align.cluster.ray.launch_on_ray`.

    Returns:
        The exit code.

    Raises:
        UserError: There is no such cluster, it is too small, the recipe cannot work, or a step was refused.
    """
    from w2s_align.cluster.ray import launch_on_ray

    with Display(recipe.nodes) as display:
        run, outcome = launch_on_ray(recipe, overrides, runs_dir, display.on_event, nodes, cpus, address)
    display.summary(run, outcome)
    return exit_code(outcome)


def run_rehearsals(arguments: Sequence[str], every: bool, runs_dir: Path) -> int:
    """Rehearse recipes, and show them.

    Args:
        arguments: Recipes, and values to set in them (``step.field=value``).
        every: Rehearse all shipped recipes that use models of the hub, where no recipe is named.
        runs_dir: Folder of the rehearsals.

    Returns:
        The exit code.

    Raises:
        UserError: No recipe is named, a recipe cannot work, or a step was refused.
    """
    from w2s_align.rehearsal.rehearse import machine_of_rehearsals, rehearsal, summary

    given = [text for text in arguments if "=" not in text]
    named = given or (list(shipped_recipes()) if every else [])
    if not named:
        raise UserError("No recipe is named.", fix="Name one or more, or use --all. `w2s recipes` lists them.")
    documents = [read_document(find_recipe(name)) for name in named]
    for document in documents:
        apply_overrides(document, [text for text in arguments if "=" in text])
    rehearsed = [rehearsal(document, runs_dir / "rows") for document in documents]
    if not given:  # the others run on a laptop as they are
        rehearsed = [item for item in rehearsed if item.models]
    if len(rehearsed) == 1:
        code = run_here(rehearsed[0].recipe, runs_dir, machine=machine_of_rehearsals())
        if not code:
            print_rich(summary(rehearsed))
        return code
    recipes = [item.recipe for item in rehearsed]
    with Display(qualified_name(recipe, node) for recipe in recipes for node in recipe.nodes) as display:
        runs, outcome = run_many(recipes, Store(runs_dir), machine_of_rehearsals(), display.on_event)
    display.summary_of_many(runs, outcome)
    print_rich(summary(rehearsed))
    return exit_code(outcome)


def exit_code(outcome: Outcome) -> int:
    """Return 0 when everything is there and 1 when a step crashed.

    Raises:
        UserError: A step was refused, and none crashed.
    """
    refused = UserError.all(outcome.problems) if outcome.problems else None
    if outcome.crashes:
        if refused is not None:  # a step that crashed must not hide why others were refused
            show_error(refused)
        return 1
    if refused is not None:
        raise refused
    return 0
