"""What pydantic finds wrong with a step, in words: one problem for each place, with what was probably meant."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from w2s_align.errors import Problem, did_you_mean, shortened
from w2s_align.recipe.document import Document, Place
from w2s_align.recipe.schema import StepConfig
from w2s_align.recipe.version import version_here
from w2s_align.records import SECRET


def explain(document: Document, name: str, step: type[StepConfig], error: ValidationError) -> list[Problem]:
    """Return what is wrong with the options of a step.

    Args:
        document: The recipe, for the lines.
        name: Name of the step.
        step: Its class.
        error: What pydantic says.
    """
    items = _distinct(error)
    problems = [_explain(document, name, step, item) for item in items]
    hints = " ".join(p.fix for p, item in zip(problems, items, strict=True) if item["type"] == "extra_forbidden")
    # A misspelled option is missing as well; saying so twice would only hide the other problems.
    told = {item["loc"][-1] for item in items if item["loc"] and f"Did you mean {item['loc'][-1]}?" in hints}
    return [
        p for p, item in zip(problems, items, strict=True) if item["type"] != "missing" or item["loc"][-1] not in told
    ]


def or_another_version(fix: str) -> str:
    """Add where else something unknown may come from, when it is like nothing that there is."""
    here = version_here()
    if fix.startswith("Did you mean") or here is None:
        return fix
    return f"{fix} Or was the recipe written for another version? This is w2s-align {here}."


def _distinct(error: ValidationError) -> list[ErrorDetails]:
    """Return one error per place: pydantic reports a value that fits no member of a union once for each member."""
    found: dict[Place, ErrorDetails] = {}
    for item in error.errors(include_url=False):
        place = _location(item)
        known = found.get(place)
        if known is None or _is_about_another_member(known):
            found[place] = item
        elif known["type"] == item["type"] == "literal_error":
            expected = ", ".join(f"'{value}'" for value in (*_expected(known), *_expected(item)))
            found[place] = {**known, "ctx": {"expected": expected}, "msg": f"Input should be one of {expected}"}
    inner = {place[:end] for place in found for end in range(len(place))}
    return [item for place, item in found.items() if place not in inner or not _is_about_another_member(item)]


def _is_about_another_member(item: ErrorDetails) -> bool:
    """Return whether options were given, and the error says that they are not a text or a number."""
    return isinstance(item["input"], dict) and item["type"] in ("string_type", "int_type", "float_type", "bool_type")


def _expected(item: ErrorDetails) -> list[str]:
    """Return the values that a place takes; none where it takes any."""
    context = item.get("ctx", {})
    return re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))


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
        fix = model.renamed.get(location[-1]) or or_another_version(close)
        return Problem(f"{path} is not an option of {of}.", fix=fix, where=where)
    if item["type"] == "missing":
        help_text = ((group.model_fields[location[-1]].description or "") if group else "").strip()
        return Problem(f"{path} is missing.", why=help_text, fix=f"Add {location[-1]}: ...", where=where)
    given = item["input"]
    message = item["msg"].removeprefix("Value error, ").removesuffix(".")
    if not location:
        return Problem(f"{name}: {message}.", where=where)
    why = message[:1].upper() + message[1:] + "."
    if item["type"] == SECRET:
        return Problem(f"{path} is refused: a key may stand in it, so it is not shown.", why, where=where)
    return Problem(f"{path}: {shortened(given)} is not valid.", why, _meant(given, item), where)


def _meant(given: Any, item: ErrorDetails) -> str:
    """Return the nearest of the values that an option takes; nothing where it takes any, or none is near."""
    value = given.get("name", "") if isinstance(given, dict) else given
    found = did_you_mean(value, _expected(item)) if isinstance(value, str) else ""
    return found if found.startswith("Did you mean") else ""


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
