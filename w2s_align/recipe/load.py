"""From a document to a checked recipe: every option typed, every reference resolved, all mistakes reported at once.

The catalogue of step kinds is handed in, so that this package knows no step and imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from w2s_align.errors import Problem, UserError, did_you_mean, shortened
from w2s_align.recipe.document import Document, Place
from w2s_align.recipe.explain import explain, or_another_version
from w2s_align.recipe.graph import build_graph
from w2s_align.recipe.references import check_references
from w2s_align.recipe.schema import NAME, Recipe, StepConfig
from w2s_align.recipe.version import check_version

TOP_LEVEL = ("w2s_align", "name", "seed", "description", "steps")
"""Keys of a recipe."""

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
    check_version(document)
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
        problems += check_references(document, steps, {str(name) for name in raw_steps})
        problems += _check_steps(document, steps)
    if problems:
        raise UserError.all(sorted(problems, key=_line))
    return Recipe(
        name=document.data["name"],
        seed=seed,
        description=document.data.get("description", ""),
        nodes=build_graph(steps),
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


def _check_top_level(document: Document) -> list[Problem]:
    data, problems = document.data, []
    for key in data:
        if key not in TOP_LEVEL:
            problems.append(
                Problem(
                    f"{key} is not a key of a recipe.", fix=did_you_mean(str(key), TOP_LEVEL), where=_at(document, key)
                )
            )
    name = data.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        problems.append(
            Problem(
                "A recipe needs a name of letters, digits, - and _."
                if name is None
                else f"{name!r} is not a valid recipe name.",
                why="It names the folder of the runs.",
                fix="For example: name: my-recipe",
                where=_at(document, "name"),
            )
        )
    if not _is_seed(data.get("seed", 0)):
        problems.append(Problem("seed must be a whole number from 0 to 4294967295.", where=_at(document, "seed")))
    if not isinstance(data.get("description", ""), str):
        problems.append(Problem("description must be a text.", where=_at(document, "description")))
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
        return None, [Problem(f"{name!r} is not a valid step name.", fix="Use letters, digits, - and _.", where=where)]
    if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
        return None, [
            Problem(f"{name} needs a kind.", fix=f"For example: {name}: {{kind: generate, ...}}", where=where)
        ]
    kind = raw["kind"]
    if kind not in catalogue:
        fix = or_another_version(did_you_mean(kind, catalogue))
        return None, [
            Problem(f"{name}.kind: {kind} is not a step kind.", fix=fix, where=document.where((*place, "kind")))
        ]
    default = {"seed": catalogue[kind].default_seed(seed, raw)}
    values = default | {str(key): value for key, value in raw.items() if value is not None or key != "seed"}
    try:
        return catalogue[kind].model_validate(values, context={"folder": document.folder}), []
    except ValidationError as error:
        return None, explain(document, name, catalogue[kind], error)
    except OSError as error:  # a name that no file can have
        return None, [_no_file(name, error, where)]


def _check_steps(document: Document, steps: Mapping[str, StepConfig]) -> list[Problem]:
    """Return what the steps themselves find impossible."""
    problems: list[Problem] = []
    for name, step in steps.items():
        try:
            step.check()
            step.check_among(steps)
        except UserError as error:
            where = document.where(("steps", name))
            problems += [Problem(f"{name}: {p.what}", p.why, p.fix, p.where or where) for p in error.problems]
        except OSError as error:
            problems.append(_no_file(name, error, document.where(("steps", name))))
    return problems


def _no_file(name: str, error: OSError, where: str) -> Problem:
    given = shortened(error.filename) if error.filename else "a file that it names"
    return Problem(f"{name}: {given} cannot be opened.", f"{error.strerror or error}.", where=where)
