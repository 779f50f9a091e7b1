"""A recipe file as it was written: its values, and the line that each of them stands on.

Reads YAML by the safe loader only. Duplicate keys, which YAML silently overrides, are refused.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from w2s_align.errors import Problem, UserError
from w2s_align.recipe.values import check_values

Place = tuple[str, ...]


@dataclass
class Document:
    """Values of a YAML file with their lines.

    Attributes:
        name: How the file is called in messages.
        text: The file's text.
        data: Its values.
        lines: Line (from 1) of each key, by its path, e.g. ``("steps", "weak", "model")``.
        overridden: Paths set on the command line, with what was typed.
        folder: Folder of the file; a recipe's own data files lie beside it.
    """

    name: str
    text: str
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    overridden: dict[Place, str] = field(default_factory=dict)
    folder: Path | None = None

    def where(self, place: Place) -> str:
        """Return ``file:line`` of a place, or of the nearest place around it that has a line."""
        for end in range(len(place), 0, -1):
            if place[:end] in self.overridden:
                return f"command line ({self.overridden[place[:end]]})"
            if place[:end] in self.lines:
                return f"{self.name}:{self.lines[place[:end]]}"
        return self.name


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        UserError: The file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no recipe {path}.", fix="`w2s recipes` lists the shipped ones.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"The recipe {path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}.",
            fix="Save it as UTF-8.",
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"The recipe {str(path)!r} cannot be read: {error}.") from None
    document = parse_document(text, path.name)
    document.folder = path.absolute().parent
    return document


def parse_document(text: str, name: str) -> Document:
    """Parse the text of a recipe.

    Args:
        text: YAML.
        name: What messages call it.

    Raises:
        UserError: It is not YAML, not a mapping, or a key appears twice.
    """
    node, data = parse_yaml(text, name)
    if node is None or not isinstance(data, dict):
        raise UserError(
            "A recipe is a mapping with name, seed and steps.", fix="See recipes/quickstart.yaml.", where=name
        )
    lines: dict[Place, int] = {}
    _collect_lines(node, (), lines)
    return Document(name, text, data, lines)


def parse_yaml(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """Return the node and the value of a YAML text, checked for what a recipe cannot mean; see ``values.py``.

    Args:
        text: YAML.
        name: What messages call it.

    Raises:
        UserError: With every problem, each with its line.
    """
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UserError(f"This is not valid YAML: {_first_line(error)}.", where=name) from None
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        if problems := check_values(node, name) or _duplicates(node, name, set()):
            raise UserError.all(problems)
        return node, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"This is not valid YAML: {error.problem}.", where=f"{name}:{line}") from None
    except yaml.YAMLError as error:
        raise UserError(f"This is not valid YAML: {_first_line(error)}.", where=name) from None
    except RecursionError:
        raise UserError("This YAML is nested too deeply.", where=name) from None
    except (ValueError, OverflowError) as error:  # e.g. base64 that is none
        raise UserError(f"This YAML holds a value that cannot be read: {_first_line(error)}.", where=name) from None
    finally:
        loader.dispose()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _duplicates(node: yaml.Node, name: str, visited: set[int]) -> list[Problem]:
    problems: list[Problem] = []
    if id(node) in visited:  # reached by an alias before
        return problems
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[Hashable, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                problems.append(
                    Problem(
                        f"The key {key.value} appears twice; the first one is in line {seen[key.value]}.",
                        where=f"{name}:{line}",
                        fix="Keep one of them.",
                    )
                )
            seen[key.value] = line
            problems += _duplicates(value, name, visited)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            problems += _duplicates(value, name, visited)
    return problems


def _collect_lines(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    """Walk the node after construction, when ``<<`` merges have been flattened into it (own keys come last)."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*place, str(key.value))] = key.start_mark.line + 1
            _collect_lines(value, (*place, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, str(index))] = value.start_mark.line + 1
            _collect_lines(value, (*place, str(index)), lines)
