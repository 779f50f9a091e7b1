"""Sentences, countable by a fixed rule: the utility of the paper's controlled experiment, on a small model.

A sentence ends at ``.``, ``!`` or ``?`` (and closing quotes or brackets) before white space or the end of the text,
and at the end of a line. The point of an abbreviation, an initial, or a list number ends nothing; a piece without a
letter is no sentence. The rule is for counting and cutting alike, so that a text cut to k sentences has k.
"""

from __future__ import annotations

import re

_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|\n+|$")
_NO_END = re.compile(
    r"(?:^|[\s(\"'“])(?:(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|approx|No|Fig|U\.S|a\.m|p\.m)|[A-Z]|\d{1,3}|[a-z])\.$"
)
_WORD = re.compile(r"[^\W\d_]")


def sentence_ends(text: str) -> list[int]:
    """Return the position after each sentence of a text."""
    ends: list[int] = []
    start = 0
    for match in _END.finditer(text):
        piece = text[start : match.end()]
        is_number = match.group().startswith(".") and _NO_END.search(text[max(0, match.end() - 12) : match.end()])
        if is_number or not _WORD.search(piece):
            continue
        ends.append(match.end() - (len(match.group()) if match.group().startswith("\n") else 0))
        start = match.end()
    return ends


def count_sentences(text: str) -> int:
    """Return the number of sentences of a text."""
    return len(sentence_ends(text))


def first_sentences(text: str, count: int) -> str | None:
    """Return the first sentences of a text, as they stand; None when it has fewer."""
    ends = sentence_ends(text)
    return text[: ends[count - 1]].rstrip() if len(ends) >= count else None
