"""``step.field=value`` on the command line: sets one value of a recipe before it is checked.

The value is read as YAML (``5e-8``, ``[a, b]``, ``null``). ``name=...`` and ``seed=...`` set the recipe's own fields,
``step=null`` leaves out a step.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s_align.errors import Problem, UserError, did_you_mean
from w2s_align.recipe.document import Document, parse_yaml

TOP_LEVEL = ("name", "seed", "description")


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Set values of the document in place.

    Args:
        document: A recipe as it was read.
        overrides: Texts of the form ``step.field=value`` or ``seed=value``.

    Raises:
        UserError: An override has no ``=``, names no step of the recipe, or goes into a value that has no parts.
    """
    problems = [problem for text in overrides if (problem := _apply(document, text)) is not None]
    if problems:
        raise UserError.all(problems)


def _apply(document: Document, text: str) -> Problem | None:
    where = f"command line ({text})"
    path, equals, value = text.partition("=")
    if not equals or not path:
        return Problem(f"{text} is not an override.", fix="Write step.field=value, e.g. student.beta=5.", where=where)
    try:
        _, parsed = parse_yaml(value, where)
    except UserError as error:
        first = error.problems[0]
        return Problem(first.what, first.why, first.fix, where)
    keys = path.split(".")
    steps = document.data.get("steps")
    if keys[0] in TOP_LEVEL and len(keys) == 1:
        place: tuple[str, ...] = (keys[0],)
    else:
        if not isinstance(steps, dict) or keys[0] not in steps:
            known = [*(steps if isinstance(steps, dict) else ()), *TOP_LEVEL]
            return Problem(f"{keys[0]} is not a step of this recipe.", fix=did_you_mean(keys[0], known), where=where)
        if len(keys) == 1 and parsed is None:
            document.data["steps"] = {name: step for name, step in steps.items() if name != keys[0]}
            document.overridden["steps", keys[0]] = text
            return None
        if len(keys) == 1:
            fix = f"Name an option: {keys[0]}.field=value. {keys[0]}=null leaves the step out."
            return Problem(f"{text} sets a whole step.", fix=fix, where=where)
        place = ("steps", *keys)
    target = document.data
    for depth, key in enumerate(place[:-1]):
        if target.get(key) is None:
            target[key] = {}
        elif isinstance(target[key], dict):
            target[key] = dict(target[key])  # a YAML anchor may share it with another step
        else:
            return Problem(f"{'.'.join(place[1 : depth + 1])} is not a group of options.", where=where)
        target = target[key]
    target[place[-1]] = parsed
    document.overridden[place] = text
    return None
