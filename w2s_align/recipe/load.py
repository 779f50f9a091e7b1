"""From a document to a checked recipe: every option typed, every reference resolved, all mistakes reported at once.

The catalogue of step kinds is handed in, so that this package knows no step and imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from w2s_align.errors import Problem, UserError, did_you_mean
from w2s_align.recipe.document import Document, Place
from w2s_align.recipe.schema import Node, Recipe, Reference, StepConfig

TOP_LEVEL = ("w2s_align", "name", "seed", "description", "steps")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Catalogue = Mapping[str, type[StepConfig]]


def load(document: Document, catalogue: Catalogue) -> Recipe:
    """Check a recipe and lay it out as a graph.

    Args:
        document: The recipe as it was read, overrides applied.
        catalogue: Configuration class of every kind of step.

    Raises:
        UserError: With every problem found: unknown or missing keys, wrong values, references to nothing or to the
            wrong kind of artifact, cycles. With one alone where the recipe is for another version.
    """
    _check_version(document)
    problems = _check_top_level(document)
    seed = document.data.get("seed", 0)
    if not _is_seed(seed):  # said once, not again for every step
        seed = 0
    raw_steps = document.data.get("steps")
    steps: dict[str, StepConfig] = {}
    if isinstance(raw_steps, dict):
        for name, raw in raw_steps.items():
            step, found = _load_step(document, str(name), raw, seed, catalogue)
            problems += found
            if step is not None:
                steps[str(name)] = step
        problems += _check_references(document, steps, {str(name) for name in raw_steps})
        problems += _check_steps(document, steps)
    if problems:
        raise UserError.all(sorted(problems, key=_line))
    return Recipe(
        name=document.data["name"],
        seed=seed,
        description=document.data.get("description", ""),
        nodes=_graph(document, steps),
        text="".join(
            [document.text, *(f"\n# set on the command line: {text}" for text in document.overridden.values())]
        ),
        resolved={
            "name": document.data["name"],
            "seed": seed,
            "steps": {name: step.model_dump(mode="json") for name, step in steps.items()},
        },
        path=document.name,
    )


def _line(problem: Problem) -> int:
    """Return the line of a problem, so that they are reported in the order of the file."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0


def _check_version(document: Document) -> None:
    """Refuse a recipe that says it is for another version: whatever else is wrong with it comes from that."""
    wanted = document.data.get("w2s_align")
    here = _version_here()
    if wanted is None or here is None:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(wanted).contains(here, prereleases=True) if isinstance(wanted, str) else None
    except InvalidSpecifier:
        fits = None
    if fits is None:
        raise UserError(
            f"w2s_align: {wanted!r} says no versions.",
            fix='Write them as pip does: w2s_align: ">=0.1"',
            where=_at(document, "w2s_align"),
        )
    if not fits:
        raise UserError(
            f"The recipe is for w2s-align {wanted}, and this is {here}.",
            why="Options come, go and change their meaning between versions.",
            fix=f"pip install 'w2s-align{wanted}'; or change the line w2s_align: what does not fit is then named.",
            where=_at(document, "w2s_align"),
        )


def _version_here() -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("w2s-align")
    return None


def _check_top_level(document: Document) -> list[Problem]:
    data, problems = document.data, []
    for key in data:
        if key not in TOP_LEVEL:
            problems.append(
                Problem(
                    f"{key} is no key of a recipe.", fix=did_you_mean(str(key), TOP_LEVEL), where=_at(document, key)
                )
            )
    name = data.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        problems.append(
            Problem(
                "A recipe needs a name of letters, digits, - and _."
                if name is None
                else f"{name!r} is no recipe name.",
                why="It names the folder of the runs.",
                fix="For example: name: my-recipe",
                where=_at(document, "name"),
            )
        )
    if not _is_seed(data.get("seed", 0)):
        problems.append(Problem("seed is a whole number from 0 to 4294967295.", where=_at(document, "seed")))
    if not isinstance(data.get("description", ""), str):
        problems.append(Problem("description is a text.", where=_at(document, "description")))
    if not isinstance(data.get("steps"), dict) or not data["steps"]:
        problems.append(
            Problem(
                "A recipe needs steps: a mapping from a name to a step.",
                fix="For example: steps: {prompts: {kind: prompts, source: lab/addition, limit: 100}}",
                where=_at(document, "steps"),
            )
        )
    return problems


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _at(document: Document, key: Any) -> str:
    return document.where((str(key),))


def _load_step(
    document: Document, name: str, raw: Any, seed: int, catalogue: Catalogue
) -> tuple[StepConfig | None, list[Problem]]:
    place: Place = ("steps", name)
    where = document.where(place)
    if not NAME.fullmatch(name):
        return None, [Problem(f"{name!r} is no step name.", fix="Use letters, digits, - and _.", where=where)]
    if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
        return None, [
            Problem(f"{name} needs a kind.", fix=f"For example: {name}: {{kind: generate, ...}}", where=where)
        ]
    kind = raw["kind"]
    if kind not in catalogue:
        fix = _or_another_version(did_you_mean(kind, catalogue))
        return None, [
            Problem(f"{name}.kind: {kind} is no kind of step.", fix=fix, where=document.where((*place, "kind")))
        ]
    values = {"seed": seed} | {str(key): value for key, value in raw.items() if value is not None or key != "seed"}
    try:
        return catalogue[kind].model_validate(values, context={"folder": document.folder}), []
    except ValidationError as error:
        items = _distinct(error)
        problems = [_explain(document, name, catalogue[kind], item) for item in items]
        hints = " ".join(p.fix for p, item in zip(problems, items, strict=True) if item["type"] == "extra_forbidden")
        # A misspelled option is missing as well; saying so twice would only hide the other problems.
        told = {item["loc"][-1] for item in items if item["loc"] and f"Did you mean {item['loc'][-1]}?" in hints}
        return None, [
            p
            for p, item in zip(problems, items, strict=True)
            if item["type"] != "missing" or item["loc"][-1] not in told
        ]


def _distinct(error: ValidationError) -> list[ErrorDetails]:
    """One error per place: a value that fits no member of a union is reported once for each member."""
    first: dict[Place, ErrorDetails] = {}
    for item in error.errors(include_url=False, include_context=False):
        first.setdefault(_location(item), item)
    return list(first.values())


def _location(item: ErrorDetails) -> Place:
    """Return the place of an error as keys of the recipe.

    pydantic puts the member of a union (``str``, ``list[str]``, a class name) into the place as well.
    """

    def is_union_member(part: int | str) -> bool:
        return isinstance(part, str) and (
            part in {"str", "int", "float", "bool"}
            or part.startswith("constrained-")
            or "[" in part
            or part[:1].isupper()
        )

    if not item["loc"]:  # of the step as a whole: options that do not go together
        return ()
    *around, last = item["loc"]
    is_key = item["type"] in {"extra_forbidden", "missing"} or not is_union_member(last)
    return tuple(str(part) for part in around if not is_union_member(part)) + ((str(last),) if is_key else ())


def _explain(document: Document, name: str, model: type[StepConfig], item: ErrorDetails) -> Problem:
    location = _location(item)
    path = ".".join((name, *location))
    where = document.where(("steps", name, *location))
    kind = model.model_fields["kind"].default
    group = _model_at(model, location[:-1])
    if item["type"] == "extra_forbidden":
        of = kind if len(location) == 1 else ".".join((name, *location[:-1]))
        close = did_you_mean(location[-1], group.model_fields if group else ())
        fix = model.renamed.get(location[-1]) or _or_another_version(close)
        return Problem(f"{path} is not an option of {of}.", fix=fix, where=where)
    if item["type"] == "missing":
        help_text = ((group.model_fields[location[-1]].description or "") if group else "").strip()
        return Problem(f"{path} is missing.", why=help_text, fix=f"Add {location[-1]}: ...", where=where)
    given = item["input"]
    message = item["msg"].removeprefix("Value error, ").removesuffix(".")
    if not location:
        return Problem(f"{name}: {message}.", where=where)
    return Problem(f"{path}: {given!r} does not fit.", why=message[:1].upper() + message[1:] + ".", where=where)


def _or_another_version(fix: str) -> str:
    """Add where else something unknown may come from, when it is like nothing that there is."""
    here = _version_here()
    if fix.startswith("Did you mean") or here is None:
        return fix
    return f"{fix} Or was the recipe written for another version? This is w2s-align {here}."


def _model_at(model: type[BaseModel], location: Place) -> type[BaseModel] | None:
    """Return the group of options that ``location`` leads to."""
    current: Any = model
    for key in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or key not in current.model_fields:
            return None
        annotation = current.model_fields[key].annotation
        candidates = [annotation, *get_args(annotation)]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return current


def _check_steps(document: Document, steps: Mapping[str, StepConfig]) -> list[Problem]:
    """Return what the steps themselves find impossible."""
    problems: list[Problem] = []
    for name, step in steps.items():
        try:
            step.check()
        except UserError as error:
            where = document.where(("steps", name))
            problems += [Problem(f"{name}: {p.what}", p.why, p.fix, p.where or where) for p in error.problems]
    return problems


def _check_references(document: Document, steps: Mapping[str, StepConfig], named: set[str]) -> list[Problem]:
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
            f"{path}: {reference.value} is no reference.",
            why=f"It reads the {fits} of another step.",
            fix=did_you_mean(reference.value, suitable, "$"),
            where=where,
        )
    target, _, seed = reference.step.partition("@")
    if target not in named:
        return Problem(
            f"{path} refers to ${target}, which is no step.", fix=did_you_mean(target, suitable, "$"), where=where
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
                    f"The steps refer to each other in a circle: {' -> '.join(cycle)}.",
                    fix="Let one of them read something else.",
                    where=document.where(("steps", cycle[0])),
                )
            ]
    return []


def _graph(document: Document, steps: Mapping[str, StepConfig]) -> dict[str, Node]:
    """Lay the steps out as nodes, one for each seed, with implied steps; each after everything it reads."""
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
            inputs[f"implied.{local}"] = f"{name}/{local}"
        nodes[name] = Node(name, config, inputs, step)

    for name in steps:
        visit_step(name)
    return nodes
