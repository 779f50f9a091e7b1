"""The graph of a recipe: one node for each seed of each step, with the nodes that evaluations imply."""

from __future__ import annotations

from collections.abc import Mapping

from w2s_align.recipe.schema import Node, StepConfig

IMPLIED = "implied."
"""Begins the place in a step's inputs of what it implies; the rest is the name within the step."""


def build_graph(steps: Mapping[str, StepConfig]) -> dict[str, Node]:
    """Return the nodes of checked steps by name, each after everything it reads."""
    nodes: dict[str, Node] = {}

    def members(value: str) -> list[str]:
        target = value.removeprefix("$")
        if not value.startswith("$") or "@" in target:
            return [value]
        seeds = getattr(steps[target], "seeds", None)
        return [f"${target}@{seed}" for seed in seeds] if seeds else [value]

    def visit_step(name: str) -> None:
        step = steps[name]
        seeds = getattr(step, "seeds", None)
        if not seeds:
            add(name, step, name)
            return
        for seed in seeds:
            add(f"{name}@{seed}", step.model_copy(update={"seed": seed, "seeds": None}), name)

    def add(name: str, config: StepConfig, step: str, parent: str = "") -> None:
        if name in nodes:
            return
        inputs: dict[str, str] = {}
        for reference in config.references():
            if reference.step is None:
                continue
            if reference.step.startswith("/"):  # another step that the same step implies
                inputs[".".join(reference.path)] = parent + reference.step
                continue
            visit_step(reference.step.partition("@")[0])
            targets = members(reference.value)
            for index, target in enumerate(targets):
                place = ".".join(reference.path) + (f".{index}" if reference.reads.many else "")
                inputs[place] = target.removeprefix("$")
        for local, implied in config.implied(members).items():
            add(f"{name}/{local}", implied, step, name)
            inputs[f"{IMPLIED}{local}"] = f"{name}/{local}"
        nodes[name] = Node(name, config, inputs, step)

    for name in steps:
        visit_step(name)
    return nodes
