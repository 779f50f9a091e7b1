"""Templates of what models are asked: which parts a text may name in braces, checked when it is given."""

from __future__ import annotations

from collections.abc import Sequence


def check_parts(text: str, parts: Sequence[str], needed: Sequence[str]) -> str:
    """Return a template, after checking what it names in braces.

    Args:
        text: The template.
        parts: What it may name.
        needed: Those of them that it must name.

    Raises:
        ValueError: It names something else, or lacks what it must name.
    """
    try:
        text.format(**dict.fromkeys(parts, ""))
    except (KeyError, IndexError, ValueError, AttributeError):
        raise ValueError(f"{text!r} may name {', '.join(f'{{{part}}}' for part in parts)} in braces") from None
    if missing := [part for part in needed if f"{{{part}}}" not in text]:
        raise ValueError(f"{text!r} must name {' and '.join(f'{{{part}}}' for part in missing)}")
    return text
