"""What YAML can say and a recipe cannot mean: dates, octal numbers, infinities, sets, text that no file can hold.

YAML 1.1, which PyYAML reads, turns ``010`` into 8, ``12:30`` into 750 and ``2024-01-05`` into a date. Each is refused
with its line, where the user can say what was meant. Works on nodes, before a value is made of them: some values
cannot be made (a date that does not exist), and some must not be (nine levels of nine aliases).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from w2s_align.errors import Problem

MOST_NODES = 200_000
"""Values of a recipe with its aliases written out. The largest shipped recipe has about 2,000."""
DEEPEST = 40
"""Levels of nesting; an option has at most six."""
MOST_DIGITS = 300
"""Of a whole number; Python itself refuses to read more than 4,300."""

_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_PREFIX = "tag:yaml.org,2002:"
_PLAIN = {"str", "int", "float", "bool", "null", "map", "seq", "merge", "value"}


def check_values(root: yaml.Node, name: str) -> list[Problem]:
    """Return what cannot be meant in a document, each with its line.

    Args:
        root: The document.
        name: What messages call the file.
    """
    size = _size(root, {}, 0)
    if size is None:
        return [Problem("This YAML is nested too deeply.", f"There are more than {DEEPEST} levels.", where=name)]
    if size > MOST_NODES:
        return [
            Problem(
                "The aliases of this YAML stand for too many values.",
                f"Written out, there are more than {MOST_NODES:,}.",
                "Use fewer aliases (*name).",
                name,
            )
        ]
    return [
        Problem(what, why, fix, f"{name}:{node.start_mark.line + 1}")
        for node in _nodes(root, set())
        for what, why, fix in _troubles(node)
    ]


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int | None:
    """Return how many values a node stands for with its aliases written out; None where it is nested too deeply."""
    if depth > DEEPEST:
        return None
    if id(node) in known:
        return known[id(node)]
    total = 1
    known[id(node)] = MOST_NODES + 1  # an alias within itself never ends
    for child in _children(node):
        size = _size(child, known, depth + 1)
        if size is None:
            return None
        total = min(total + size, MOST_NODES + 1)
    known[id(node)] = total
    return total


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(node: yaml.Node, seen: set[int]) -> Iterator[yaml.Node]:
    """Yield every node once, however many aliases it has."""
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for child in _children(node):
        yield from _nodes(child, seen)


def _troubles(node: yaml.Node) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with one node itself: what, why, and what to write instead."""
    kind = node.tag.removeprefix(_PREFIX)
    if isinstance(node, yaml.MappingNode):
        yield from _key_troubles(node)
    if not isinstance(node, yaml.ScalarNode):
        if kind not in _PLAIN:
            yield f"{node.tag} is not something that a recipe can hold.", "", "Write a plain list or mapping."
        return
    text = node.value
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    if _CONTROL.search(text):
        yield (
            f"The text {shown!r} holds a character that no file name and no table can hold.",
            "It is a control character, or half of a surrogate pair.",
            "Remove it.",
        )
    if kind == "timestamp":
        yield f"{shown} is read as a date.", "YAML does that with unquoted dates.", f'Quote it: "{shown}"'
    elif kind == "int" and len(text) > MOST_DIGITS:
        yield f"{shown} has {len(text):,} digits.", "No option takes such a number.", "Quote it if it is a text."
    elif kind in ("int", "float") and _CLOCK.fullmatch(text):
        yield f"{shown} is read as a number to the base of 60.", "YAML 1.1 has such numbers.", f'Quote it: "{shown}"'
    elif kind == "int" and _OCTAL.fullmatch(text):
        yield (
            f"{shown} is read as an octal number.",
            "YAML 1.1 does that with a leading 0.",
            f'Write {text.lstrip("+-0_") or "0"}, or quote it if it is a text: "{shown}"',
        )
    elif kind == "float" and re.sub(r"[-+.]", "", text).lower() in ("inf", "nan"):
        yield (
            f"{shown} is not a number that an option can take.",
            "",
            "Write a finite number, or leave it out.",
        )
    elif kind not in _PLAIN:
        yield f"{node.tag} is not something that a recipe can hold.", "", "Write it as a plain text, in quotes."


def _key_troubles(node: yaml.MappingNode) -> Iterator[tuple[str, str, str]]:
    seen: dict[str, str] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            yield "A list or a mapping stands where a name belongs.", "Names of options are texts.", "Write a name."
        elif key.tag != f"{_PREFIX}merge":
            if key.value in seen and seen[key.value] != key.tag:
                yield (
                    f"The key {key.value} appears twice, once in quotes.",
                    "In a recipe both are the same name.",
                    "Keep one.",
                )
            seen[key.value] = key.tag
