"""Executing a recipe: plan it, let an executor make what is missing, and keep the run's folder up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError, did_you_mean
from w2s_align.files import storage_errors
from w2s_align.machine import Machine
from w2s_align.recipe import Recipe
from w2s_align.runs.local import LocalExecutor
from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.plan import Planned, notes, plan
from w2s_align.runs.run import Run, open_run, record_state


def execute(
    recipe: Recipe,
    store: Store,
    machine: Machine,
    on_event: Callable[[Event], None],
    only: Collection[str] | None = None,
    shard: tuple[int, int] | None = None,
    *,
    with_inputs: bool = False,
) -> tuple[Run, Outcome]:
    """Plan and run a recipe on this machine.

    Args:
        recipe: The recipe.
        store: Where artifacts are made.
        machine: What the steps may use.
        on_event: Called for everything that happens.
        only: Names of steps, or of single nodes of them; nothing else is made.
        shard: Of these, make this shard: its number from 1, and how many there are. The last one to finish, on
            whatever machine, assembles the artifact.
        with_inputs: Whether to make also what ``only`` reads, and what that reads.

    Returns:
        The run, and what became of its steps.

    Raises:
        UserError: The recipe cannot work, or ``only`` names what is not there, or what reads something that is not.
    """
    if only is not None:
        store.refresh()  # what this reads may have been made on another machine a moment ago
    planned = plan(recipe, store)
    chosen = None if only is None else _chosen(planned, only, with_inputs)
    if shard is not None:
        _check_shard(planned, chosen or (), shard)
    return run_plan(recipe, planned, store, LocalExecutor(planned, store, machine, chosen, shard).run, on_event)


def run_plan(
    recipe: Recipe,
    planned: Mapping[str, Planned],
    store: Store,
    make: Callable[[Outcome, Callable[[Event], None]], None],
    on_event: Callable[[Event], None],
) -> tuple[Run, Outcome]:
    """Let something make the artifacts of a plan, and keep the run's folder up to date all the while.

    Args:
        recipe: The recipe.
        planned: Its plan.
        store: Where artifacts are made.
        make: Makes them, e.g. :meth:`.executor.Executor.run`: takes the outcome to fill in, and what to call for
            everything that happens.
        on_event: Called for everything that happens.

    Returns:
        The run, and what became of its steps.

    Raises:
        UserError: The folder of the runs cannot be written.
    """
    store.require_writable()
    run = open_run(recipe, store)
    outcome = Outcome()

    def record(event: Event) -> None:
        if event.kind not in ("progress", "cached"):
            record_state(run, recipe, planned, store, outcome, "running")
        on_event(event)

    for step, note in notes(planned):
        on_event(Event(step, "note", note=note))
    status = "interrupted"
    with storage_errors(store.root):
        try:
            make(outcome, record)
            status = "running" if outcome.ok else "failed"  # running, unless all is there: other jobs make the rest
        finally:
            record_state(run, recipe, planned, store, outcome, status)
    return run, outcome


def _check_shard(planned: Mapping[str, Planned], chosen: Collection[str], shard: tuple[int, int]) -> None:
    """Refuse a shard of what cannot be made in shards.

    Raises:
        UserError: With the way out.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise UserError(f"--shard {number}/{count}: no such shard.", fix=f"Use 1/{count} to {count}/{count}.")
    if not chosen:
        raise UserError("--shard is for a single step.", fix=f"Name it: --only STEP --shard {number}/{count}")
    for name in chosen:
        config: Any = planned[name].node.config
        if not config.has_shards:
            able = dict.fromkeys(item.node.step for item in planned.values() if item.node.config.has_shards)
            raise UserError(
                f"{name} is a {config.kind} step, which cannot be split into shards.",
                fix=f"Steps of this recipe that can: {', '.join(able) or 'none'}.",
            )


def _chosen(planned: Mapping[str, Planned], only: Collection[str], with_inputs: bool) -> set[str]:
    """Return the nodes that are meant by names of steps and nodes; what they read must be there, or comes along."""
    steps = {item.node.step for item in planned.values()}
    for name in only:
        if name not in planned and name not in steps:
            option = "--until" if with_inputs else "--only"
            close = did_you_mean(name, {*planned, *steps})
            raise UserError(f"{option} {name}: no such step in this recipe.", fix=close)
    chosen = {name for name, item in planned.items() if name in only or item.node.step in only}
    if with_inputs:
        for name in reversed(list(planned)):  # each comes after everything it reads
            if name in chosen:
                chosen |= set(planned[name].node.inputs.values())
        return chosen
    for name in sorted(chosen):
        for source in planned[name].node.inputs.values():
            if planned[source].status != "cached" and source not in chosen:
                raise UserError(
                    f"{name} reads {source}, which has not been made yet.",
                    fix=f"Run it first: --only {source}. Or make everything that it needs: --until {name}",
                )
    return chosen
