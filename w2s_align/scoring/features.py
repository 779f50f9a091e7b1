"""Simple countable features of a text: length, sentences, sections, repetition, script.

Pure functions over one text each, for scores, audits and the controlled experiments in which the delta is a count
(arXiv 2507.06187, section 3; docs/methods/delta_learning.md).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from w2s_align.scoring.sentences import count_sentences, words_of

_SECTION = re.compile(r"^[ \t]*(?:[-*+]\s+|\d+[.)]\s+)?(?:\*\*[^*\n]+\*\*|__[^_\n]+__)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+\S", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])\s+\S", re.MULTILINE)


def count_sections(text: str) -> int:
    """Count sections: lines that begin with bold Markdown text, or are headings."""
    return len(_SECTION.findall(text)) + len(_HEADING.findall(text))


def repeated_share(text: str, n: int = 4) -> float:
    """Return the share of the word ``n``-grams that occurred before in the text; 0 for a short text."""
    words = words_of(text.lower())
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def latin_share(text: str) -> float:
    """Return the share of the letters that are Latin; 1 for a text without letters."""
    letters = [char for char in text if char.isalpha()]
    latin = sum(char.isascii() or unicodedata.name(char, "").startswith("LATIN") for char in letters)
    return latin / len(letters) if letters else 1.0


def capital_share(text: str) -> float:
    """Return the share of the letters with two cases that are capitals; 0 for a text without such letters."""
    cased = [char for char in text if char.upper() != char.lower()]
    return sum(char == char.upper() for char in cased) / len(cased) if cased else 0.0


FEATURES: dict[str, Callable[[str], float]] = {
    "chars": len,
    "words": lambda text: len(words_of(text)),
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
    "sentences": count_sentences,
    "sections": count_sections,
    "list_items": lambda text: len(_ITEM.findall(text)),
    "repetition": repeated_share,
    "latin": latin_share,
    "capitals": capital_share,
}
"""The features by name, each a function of the text."""
