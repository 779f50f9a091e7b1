"""A sweep: the same recipe with several values of some options, one run for each combination.

    dpo.beta=0.05,0.1,0.5 dpo.learning_rate=1e-5,1e-4        every combination (six runs), or paired (zip)
    - {dpo.beta: 5, dpo.learning_rate: 5e-7}                 one item of a file, for anything that is not a grid
    budgets: [16, 64]                                        a file of budgets of labels; see budget.py

Reads texts or a YAML file; writes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from w2s_align.errors import Problem, UserError
from w2s_align.recipe.budget import parse_budget

LONGEST_SLUG = 48
"""Characters of the values in a run's name: folders stay readable, and a digest tells long ones apart."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        values: Value of every swept option, by ``step.field``.
        name: What it is called; by default its values.
        cost: What it costs, where it is a purchase of labels.
        group: Points whose costs are compared with each other.
    """

    values: Mapping[str, Any]
    name: str = ""
    cost: float | None = None
    group: str = ""

    @property
    def overrides(self) -> list[str]:
        """The values as overrides of a recipe."""
        return [f"{path}={json.dumps(value)}" for path, value in self.values.items()]

    @property
    def label(self) -> str:
        """The name, or the values as a person reads them: ``beta=0.1, learning_rate=1e-05``.

        Paths are whole where two end alike.
        """
        if self.name:
            return f"{self.name} ({self.group})" if self.group else self.name
        last = [path.rpartition(".")[2] for path in self.values]
        names = [path if last.count(name) > 1 else name for path, name in zip(self.values, last, strict=True)]
        return ", ".join(f"{name}={value}" for name, value in zip(names, self.values.values(), strict=True))

    @property
    def slug(self) -> str:
        """Letters, digits, - and _ that name the run; short, and different for different values."""
        text = re.sub(r"[^A-Za-z0-9]+", "_", self.label).strip("_")
        digest = hashlib.sha256("\n".join(self.overrides).encode()).hexdigest()[:6]
        return f"{text[:LONGEST_SLUG]}-{digest}"


def only_seeds(paths: Iterable[str]) -> bool:
    """Tell whether a sweep varies seeds and nothing else: its points are then worlds of one study, not settings."""
    return all(path.rpartition(".")[2] == "seed" for path in paths)


def sweep_points(
    texts: Sequence[str], file: Path | None = None, *, paired: bool = False
) -> tuple[list[Point], list[str]]:
    """Return the points of a sweep, and the overrides that all of them share.

    Args:
        texts: ``step.field=a,b,c`` for each swept option; with a single value it is an override. Values are read as
            YAML: a list is written ``[a, b]``.
        file: A YAML list of points, each a mapping from ``step.field`` to a value; instead of swept options.
        paired: Zip the value lists instead of taking their product.

    Raises:
        UserError: With everything that is wrong with the options, or with the file.
    """
    problems: list[Problem] = []
    axes: dict[str, list[Any]] = {}
    overrides: list[str] = []
    for text in texts:
        path, equals, listed = text.partition("=")
        where = f"command line ({text})"
        try:
            found = [_number(value) for value in yaml.safe_load(f"[{listed}]")] if equals else None
        except yaml.YAMLError:
            found = None
        if not found:
            problems.append(
                Problem(f"{text} has no values.", fix="Write step.field=a,b,c, e.g. dpo.beta=0.1,0.5.", where=where)
            )
        elif len(found) == 1:
            overrides.append(text)
        elif path in axes:
            problems.append(Problem(f"{path} is swept twice.", fix="List all its values at once.", where=where))
        elif "." not in path and path != "seed":
            problems.append(Problem(f"{path} is not an option of a step.", fix="Write step.field=a,b,c.", where=where))
        else:
            axes[path] = found
    if file is not None and axes:
        problems.append(Problem(f"{file} already lists the points.", fix=f"Remove {', '.join(axes)}, or the file."))
    if file is None and not axes and not problems:
        problems.append(Problem("Nothing to sweep.", fix="List several values: dpo.beta=0.05,0.1,0.5"))
    counts = {path: len(values) for path, values in axes.items()}
    if paired and len(set(counts.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in counts.items())
        problems.append(
            Problem(
                f"--paired needs the same number of values for each option: {listed}.",
                fix="Or remove --paired for every combination.",
            )
        )
    if problems:
        raise UserError.all(problems)
    if file is not None:
        return read_points(file), overrides
    combine = zip(*axes.values(), strict=True) if paired else itertools.product(*axes.values())
    return _different([Point(dict(zip(axes, chosen, strict=True))) for chosen in combine]), overrides


def read_points(path: Path) -> list[Point]:
    """Return the points of a YAML file: a list of mappings from ``step.field`` to a value, or budgets of labels.

    Raises:
        UserError: The file cannot be read, or is neither.
    """
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the sweep {path}: {error}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}.") from None
    if isinstance(listed, dict) and "budgets" in listed:
        return _purchases(listed, path.name)
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) and item for item in listed):
        raise UserError(
            f"{path} is not a sweep.", fix="Write a list, each item like - {dpo.beta: 0.1, dpo.learning_rate: 1e-4}."
        )
    return _different([Point({str(name): _number(value) for name, value in item.items()}) for item in listed])


def _purchases(listed: Mapping[str, Any], name: str) -> list[Point]:
    """Return a point for each purchase at each price of a weak label."""
    budget = parse_budget(listed, name)
    return [
        Point(
            budget.values(one),
            name=f"{one.weak:,} weak, {one.exact:,} exact",
            cost=one.cost(price),
            group=f"a weak label costs {price:g}",
        )
        for price in budget.weak_prices
        for one in budget.bought(price)
    ]


def _number(value: Any) -> Any:
    """Return ``1e-5`` as a number: YAML 1.1 asks for a dot in it, and people leave it out."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value


def _different(points: list[Point]) -> list[Point]:
    """Refuse a sweep that would run the same thing twice."""
    seen: dict[str, Point] = {}
    twice = [point for point in points if seen.setdefault(json.dumps(point.overrides), point) is not point]
    if twice:
        raise UserError(f"{twice[0].label} appears twice in the sweep.", fix="Keep one of them.")
    return points
