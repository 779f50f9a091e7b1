"""What pydantic finds wrong with a step, in words: one problem for each place, with what was probably meant."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

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
    for item in items:  # so is one that stands on another level
        if item["type"] == "extra_forbidden":
            told |= {item["loc"][-1], *(item["input"] if isinstance(item["input"], dict) else ())}
    kept = (p for p, i in zip(problems, items, strict=True) if i["type"] != "missing" or i["loc"][-1] not in told)
    return list(dict.fromkeys(kept))


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
    if (entry := _entry_of(model, location)) is not None and item["type"] in ("model_type", "string_type"):
        fields = ", ".join(f"{key}: ..." for key in [*entry.model_fields][:2])
        return Problem(
            f"{'.'.join((name, *location[:-1]))} has options where names belong.",
            "It holds a group of options under each name.",
            f"Add the level: {location[-2]}: {{greedy: {{{fields}}}}}",
            document.where(("steps", name, *location[:-1])),
        )
    if item["type"] == "extra_forbidden":
        of = kind if len(location) == 1 else ".".join((name, *location[:-1]))
        names = [field.alias or name for name, field in group.model_fields.items()] if group else []
        close = did_you_mean(location[-1], names)
        fix = model.renamed.get(location[-1]) or _other_level(group, location, item["input"])
        fix = fix or or_another_version(close)
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


def _entry_of(model: type[BaseModel], location: Place) -> type[BaseModel] | None:
    """Return the options under each name of a group, where a place is one of these options without a name before."""
    around = _model_at(model, location[:-2]) if len(location) > 1 else None
    info = around.model_fields.get(location[-2]) if around else None
    if info is None or get_origin(info.annotation) is not dict:
        return None
    entry = next((part for part in _groups(info.annotation) if location[-1] in part.model_fields), None)
    return entry


def _other_level(group: type[BaseModel] | None, location: Place, given: Any) -> str:
    """Say on which level an option belongs that stands on another one; nothing where it is on none."""
    if group is None:
        return ""
    key = location[-1]
    for name, info in group.model_fields.items():
        if any(key in inner.model_fields for inner in _groups(info.annotation)):
            return f"It belongs to {name}: {name}: {{{key}: {shortened(given)}}}"
    if isinstance(given, dict) and given and set(given) <= set(group.model_fields) and len(location) > 1:
        return f"Leave out the level {key}: {location[-2]}: {{{next(iter(given))}: ...}}"
    return ""


def _groups(annotation: Any) -> list[type[BaseModel]]:
    """Return the groups of options inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for part in get_args(annotation) for group in _groups(part)]


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
