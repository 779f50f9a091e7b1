"""What will run: every node of a recipe with its key, and whether its artifact is cached.

Reads the artifact store; writes nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from w2s_align.artifacts.keys import digest, key_material
from w2s_align.artifacts.store import Store
from w2s_align.errors import Problem, UserError
from w2s_align.recipe import Node, Recipe

Status = Literal["cached", "started", "to do"]


@dataclass(frozen=True)
class Planned:
    """One artifact of the plan.

    Attributes:
        node: The step that makes it.
        key: Its key.
        material: What the key is made of.
        status: ``cached``: it is there. ``started``: a killed process left work to resume. ``to do``.
        recipe: The recipe that asks for it.
    """

    node: Node
    key: str
    material: Mapping[str, Any]
    status: Status
    recipe: Recipe


def plan(recipe: Recipe, store: Store) -> dict[str, Planned]:
    """Compute the key and the status of every node, in an order in which they can run.

    Raises:
        UserError: With every model or file outside the recipe that is not there, and every artifact that is damaged.
    """
    planned: dict[str, Planned] = {}
    problems: list[Problem] = []
    for name, node in recipe.nodes.items():
        if any(source not in planned for source in node.inputs.values()):
            continue  # reads something that has a problem of its own
        try:
            material = key_material(node, {place: planned[source].key for place, source in node.inputs.items()})
        except UserError as error:
            problems += error.problems
            continue
        if node.config.shows_recipe:
            material["recipe"] = dict(recipe.resolved)
        key = digest(material)
        try:
            status = _status(store, node.config.kind, key)
        except UserError as error:  # its artifact is damaged
            problems += error.problems
            status = "to do"
        planned[name] = Planned(node, key, material, status, recipe)
    if problems:
        raise UserError.all(list(dict.fromkeys(problems)))
    return planned


def notes(planned: Mapping[str, Planned]) -> list[tuple[str, str]]:
    """Return what the steps to be made have to guess: name of the step and a sentence, each once."""
    nodes = [item.node for item in planned.values() if item.status != "cached"]
    return list(dict.fromkeys((node.step, note) for node in nodes for note in node.config.notes()))


def _status(store: Store, kind: str, key: str) -> Status:
    found = store.find(kind, key)
    if found is not None:
        found.whole()
        return "cached"
    return "started" if store.partial(kind, key).exists() else "to do"
