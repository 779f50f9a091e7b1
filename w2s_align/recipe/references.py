"""References from one step to another: they name steps that write what the field reads, without a cycle."""

from __future__ import annotations

from collections.abc import Mapping

from w2s_align.errors import Problem, did_you_mean
from w2s_align.recipe.document import Document
from w2s_align.recipe.schema import Reference, StepConfig


def check_references(document: Document, steps: Mapping[str, StepConfig], named: set[str]) -> list[Problem]:
    """Return what is wrong with the references of a recipe.

    Args:
        document: The recipe, for the lines.
        steps: The steps that could be read.
        named: Names of all steps, also of those that have problems of their own.
    """
    problems = []
    for name, step in steps.items():
        for reference in step.references():
            problem = _check_reference(document, name, reference, steps, named)
            if problem is not None:
                problems.append(problem)
    return problems or _check_cycles(document, steps)


def _check_reference(
    document: Document, name: str, reference: Reference, steps: Mapping[str, StepConfig], named: set[str]
) -> Problem | None:
    path = ".".join((name, *reference.path))
    where = document.where(("steps", name, *reference.path))
    fits = " or ".join(reference.reads.types)
    suitable = [other for other, config in steps.items() if config.writes in reference.reads.types and other != name]
    if reference.step is None:
        if reference.reads.literal:
            return None
        return Problem(
            f"{path}: {reference.value} is not a reference.",
            why=f"It reads the {fits} of another step.",
            fix=did_you_mean(reference.value, suitable, "$"),
            where=where,
        )
    target, _, seed = reference.step.partition("@")
    if target not in named:
        return Problem(
            f"{path} refers to ${target}, which is not a step.", fix=did_you_mean(target, suitable, "$"), where=where
        )
    if target not in steps:
        return None  # that step has problems of its own
    if steps[target].writes not in reference.reads.types:
        return Problem(
            f"{path} refers to ${target}, which writes {steps[target].writes}.",
            why=f"It reads {fits}.",
            fix=did_you_mean(target, suitable, "$") if suitable else f"No step of this recipe writes {fits}.",
            where=where,
        )
    seeds = getattr(steps[target], "seeds", None)
    if seed and str(seed) not in {str(s) for s in seeds or ()}:
        has = f"the seeds {', '.join(map(str, seeds))}" if seeds else "no seeds"
        return Problem(f"{path} refers to ${target}@{seed}, but {target} has {has}.", where=where)
    if seeds and not seed and not reference.reads.many:
        return Problem(
            f"{path} refers to ${target}, which makes one model for each of the seeds {', '.join(map(str, seeds))}.",
            fix=f"Choose one: ${target}@{seeds[0]}",
            where=where,
        )
    return None


def _check_cycles(document: Document, steps: Mapping[str, StepConfig]) -> list[Problem]:
    """Walk the graph depth first; the first way back to a step on the path is a cycle."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done or name not in steps:  # a step that is not there has a problem of its own
            return None
        for reference in steps[name].references():
            if reference.step is not None:
                cycle = visit(reference.step.partition("@")[0], (*path, name))
                if cycle is not None:
                    return cycle
        done.add(name)
        return None

    for name in steps:
        cycle = visit(name, ())
        if cycle is not None:
            return [
                Problem(
                    f"The steps form a cycle: {' -> '.join(cycle)}.",
                    fix="Change what one of them reads.",
                    where=document.where(("steps", cycle[0])),
                )
            ]
    return []
