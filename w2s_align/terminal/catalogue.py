"""What there is to use: kinds of steps with their options, shipped recipes, and the JSON schema of both."""

from __future__ import annotations

import contextlib
import filecmp
import re
import shutil
import textwrap
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from w2s_align.errors import UserError, did_you_mean
from w2s_align.evaluation.task import (
    TaskChoice,
    load_suite,
    load_task,
    setting_lines,
    shipped_suites,
    shipped_tasks,
)
from w2s_align.recipe.document import read_document
from w2s_align.recipe.schema import NAME, Reads, StepConfig, reads_of
from w2s_align.records import FIELDS, own_docstring
from w2s_align.steps.catalogue import CATALOGUE
from w2s_align.steps.step import Step

TOUR = "tour"
"""The shipped recipe that has an example of most kinds."""
SHOWN_OPTIONS = 10
"""Options of a kind that are shown at first: with an example, they fit a screen."""
SHOWN_CHARS = 140
"""Characters of an option's help that are shown at first: two lines."""
NAME_OF_A_FILE = re.compile(r"[\w-]+\.[\w.-]+")


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "shipped_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name, e.g. ``quickstart`` or ``delta_learning/tulu3_8b``."""
    folder = recipes_folder()
    files = (path for path in sorted(folder.rglob("*.yaml")) if not path.name.endswith(".sweep.yaml"))
    return {str(path.relative_to(folder).with_suffix("")): path for path in files}


def find_recipe(given: str) -> Path:
    """Return the file that a user means: a path, or the name of a shipped recipe.

    Raises:
        UserError: There is neither.
    """
    path = Path(given)
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        if path.is_file():
            return path
    shipped = shipped_recipes()
    name = given.removeprefix("recipes/").removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise UserError(f"There is no recipe {given}.", fix=did_you_mean(name, shipped))


def copy_recipe(name: str, source: str) -> Path:
    """Copy a recipe into the current folder under a new name.

    Raises:
        UserError: The name is not valid, the file already exists, or the source does not exist.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a valid recipe name.", fix="Use letters, digits, - and _.")
    target = Path(f"{name}.yaml")
    if target.exists():
        raise UserError(f"{target} already exists.", fix="Choose another name, or move it away.")
    original = find_recipe(source)
    document = read_document(original)
    for path in _files_beside(original, document.data):
        if Path(path.name).exists() and not filecmp.cmp(path, path.name, shallow=False):
            raise UserError(
                f"{path.name} already exists.", f"{source} reads another file with this name.", "Move it away."
            )
        shutil.copyfile(path, path.name)
    text = re.sub(r"^name:.*$", f"name: {name}", document.text, count=1, flags=re.MULTILINE)
    target.write_text(text, encoding="utf-8")
    return target


def _files_beside(recipe: Path, value: Any) -> list[Path]:
    """Return the data files in the recipe's folder that its options name."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return list(dict.fromkeys(path for part in parts for path in _files_beside(recipe, part)))
    beside = recipe.parent / value if isinstance(value, str) and NAME_OF_A_FILE.fullmatch(value) else None
    return [beside] if beside is not None and beside.is_file() else []


def recipes_table() -> Table:
    """Return the shipped recipes with what each is for."""
    table = _table("recipe", "steps", "what it is for")
    for name, path in shipped_recipes().items():
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        table.add_row(name, str(len(data["steps"])), escape(data.get("description", "").strip()))
    return table


def _table(first: str, *others: str) -> Table:
    """Make a table whose first column, which users copy from, is never cut."""
    return Table(Column(first, no_wrap=True), *others, box=None, header_style="dim")


def kinds_table() -> Table:
    """Return every kind of step with what it reads and writes."""
    table = _table("kind", "reads", "writes", "what it does")
    for kind, step in CATALOGUE.items():
        reads = ", ".join(dict.fromkeys(" or ".join(r.types) for _, r in reading_fields(step)))
        table.add_row(kind, reads, step.writes, _first_paragraph(own_docstring(step)))
    return table


def reading_fields(step: type[Step]) -> Iterator[tuple[str, Reads]]:
    """Yield the fields that take a reference to another step."""
    for name, info in step.model_fields.items():
        reads = reads_of(info)
        if reads is not None:
            yield name, reads


def kind_options(kind: str, *, every: bool = False) -> Group:
    """Return the options of a kind of step: its own first, then those that every kind has.

    Args:
        kind: Its name.
        every: All options with their whole help. Otherwise those that must be given and the ones that the shipped
            recipes use most, up to ten, and an example.

    Raises:
        UserError: It is not a step kind.
    """
    if kind not in CATALOGUE:
        raise UserError(f"{kind} is not a step kind.", fix=did_you_mean(kind, CATALOGUE))
    step = CATALOGUE[kind]
    heading = f"[bold]{kind}[/] writes {step.writes}. {escape(_first_paragraph(own_docstring(step)))}"
    if every:
        return Group(heading, *_options(step, ""), *(_tasks() if "suite" in step.model_fields else ()))
    shown = _most_used(kind)
    lines: list[RenderableType] = [heading, ""]
    for name in shown:
        lines += _in_short(name, step.model_fields[name])
    more = len(step.model_fields) - 1 - len(shown)
    if more:
        lines.append(f"[dim]{more} more options: w2s steps {kind} --all[/]")
    return Group(*lines, "", *_example(kind))


def _most_used(kind: str) -> list[str]:
    """Return up to ten options of a kind: those that must be given, then those that recipes give most often."""
    fields = CATALOGUE[kind].model_fields
    used: Counter[str] = Counter()
    for path in shipped_recipes().values():
        steps = yaml.safe_load(path.read_text(encoding="utf-8"))["steps"]
        used.update(name for step in steps.values() if step["kind"] == kind for name in step)
    order = list(fields)

    def rank(name: str) -> tuple[bool, int, bool, int]:
        return not fields[name].is_required(), -used[name], name in StepConfig.model_fields, order.index(name)

    return sorted((name for name in fields if name != "kind"), key=rank)[:SHOWN_OPTIONS]


def _in_short(name: str, info: FieldInfo) -> Iterator[RenderableType]:
    """Yield an option with the first sentence of its help, and the names of the options inside it."""
    yield f"[cyan]{name}[/]  [dim]{escape(_kind_of(info))}[/]"
    sentence = re.split(r"(?<=\.)\s", _first_paragraph(info.description))[0]
    yield _meaning(textwrap.shorten(sentence, SHOWN_CHARS, placeholder=" ..."))
    groups = _groups(info.annotation)
    if len(groups) == 1:
        yield Text(f"    {{{', '.join(groups[0].model_fields)}}}", style="dim", overflow="ellipsis", no_wrap=True)


def _example(kind: str) -> Iterator[RenderableType]:
    """Yield a step of this kind as a shipped recipe has it, of the one that has many kinds where it is there."""
    for recipe in (TOUR, *shipped_recipes()):
        document = read_document(shipped_recipes()[recipe])
        name = next((name for name, step in document.data["steps"].items() if step["kind"] == kind), None)
        if name is not None:
            break
    else:
        yield "No shipped recipe names such a step."
        return
    lines = document.text.splitlines()
    first = document.lines["steps", name]
    starts = sorted(line for place, line in document.lines.items() if len(place) == 2 and place[0] == "steps")
    last = next((line for line in starts if line > first), first + 1)
    text = "\n".join(lines[first - 1 : last - 1]).rstrip()
    yield f"[bold]Example[/], in the recipe `{recipe}`; run it: w2s run {recipe} --until {name}"
    yield escape(text)


def _tasks() -> Iterator[RenderableType]:
    """Yield the suites and the shipped tasks, with the published setting of each and what differs."""
    yield "\n[bold]Suites[/]"
    for name in shipped_suites():
        yield f"[cyan]{name}[/]  [dim]{escape(', '.join(choice.name for choice in load_suite(name)))}[/]"
    yield "\n[bold]Shipped tasks[/], with the published setting that each follows and what differs from it"
    asked = {choice.name: choice for choice in load_suite("tulu3")}
    for name in shipped_tasks():
        yield f"[cyan]{name}[/]  [dim]{escape(load_task(name).title)}[/]"
        for line in setting_lines(asked.get(name, TaskChoice(name=name))):
            yield _meaning(line)


def _options(model: type[BaseModel], prefix: str, skip: str = "kind") -> Iterator[RenderableType]:
    for name, info in sorted(model.model_fields.items(), key=lambda item: item[0] in StepConfig.model_fields):
        if name == skip:
            continue
        yield f"[cyan]{prefix}{name}[/]  [dim]{escape(_kind_of(info))}[/]"
        yield _meaning(info.description)
        groups = _groups(info.annotation)
        for group in groups:
            one_of_several = len(groups) > 1 and "name" in group.model_fields
            if one_of_several:
                yield f"[cyan]{prefix}{name}.name: {group.model_fields['name'].default}[/]"
                yield _meaning(own_docstring(group))
            yield from _options(group, f"{prefix}{name}.", skip="name" if one_of_several else "kind")


def _kind_of(info: FieldInfo) -> str:
    """Return what an option takes, and its default."""
    reads, kind = reads_of(info), type_name(info.annotation)
    if reads is not None:
        kind = " or ".join(f"${t}" for t in reads.types) + (" or name" if reads.literal else "")
    default = _default(info.get_default(call_default_factory=True))
    return kind + (", required" if info.is_required() else f", default {default}" if default else "")


def _meaning(text: str | None) -> Padding:
    return Padding(escape(_first_paragraph(text)), (0, 0, 0, 4))


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return ""
    return "" if value is None else str(value)


def _groups(annotation: Any) -> list[type[BaseModel]]:
    """Return the groups of options inside ``list[...]``, ``... | None`` and the like, each once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(group for part in typing.get_args(annotation) for group in _groups(part)))


def type_name(annotation: Any) -> str:
    """Return a type as a user writes it: ``int or none``, ``train | test``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(str(a) for a in arguments)
    if origin in (typing.Union, UnionType):
        return " or ".join(dict.fromkeys(type_name(a) for a in arguments))
    if origin is not None and origin is not typing.Annotated:
        return f"{origin.__name__} of {' to '.join(type_name(a) for a in arguments)}"
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "options"
    return getattr(annotation, "__name__", str(annotation))


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes; editors read it for completion and checks."""
    definitions: dict[str, Any] = {}
    variants = []
    for kind, step in CATALOGUE.items():
        definition = step.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= definition.pop("$defs", {})
        definition["required"] = sorted({"kind", *definition.get("required", [])})
        definitions[f"step_{kind}"] = definition
        variants.append({"$ref": f"#/$defs/step_{kind}"})
    for definition in definitions.values():  # the help of fields stands at the fields
        if "description" in definition:
            definition["description"] = definition["description"].partition(FIELDS)[0]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "w2s_align recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "steps"],
        "properties": {
            "w2s_align": {"type": "string", "description": "Versions it is written for, as pip writes them: >=0.1"},
            "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
            "seed": {"type": "integer", "default": 0},
            "description": {"type": "string"},
            "steps": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                "additionalProperties": {"oneOf": variants},
            },
        },
        "$defs": definitions,
    }
