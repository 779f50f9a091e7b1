"""Sentences and words, countable by a fixed rule in the languages of the world's larger scripts.

A sentence ends at ``.``, ``!`` or ``?`` (and closing quotes or brackets) before white space or the end of the text, at
``。``, ``！``, ``？`` and their like wherever they stand, and at the end of a line. The point of an abbreviation, an
initial, or a list number ends nothing; a piece without a letter is no sentence. The rule is for counting and cutting
alike, so that a text cut to k sentences has k.

A word is a run of letters and digits; Chinese and Japanese have no spaces, so that each of their characters counts as
one. Thai, Lao, Khmer and Burmese are not split: a run counts as one word, and a sentence ends with its line.
"""

from __future__ import annotations

import re

_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|[。！？｡؟।॥…]+[\"'”’」』）)\]*_]*|\n+|$")
ABBREVIATIONS = (
    "Mr|Mrs|Ms|Dr|Prof|St|Ste|Jr|Sr|vs|etc|e\\.g|i\\.e|approx|No|Fig|U\\.S|a\\.m|p\\.m|Mt|Ft|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|"
    "Sen|Rep|Pres|Inc|Ltd|Co|Corp|Ave|Blvd|ca|cf|al|Nr|bzw|z\\.B|d\\.h|u\\.a|usw|Mme|Mlle|Sra|Srta|Ph\\.D|D\\.C|U\\.K|Vol|Eq"
)
"""Words after whose point a sentence goes on."""
_ENDING = re.compile(r"(?:Inc|Ltd|Co|Corp|Jr|Sr|etc|U\.S|U\.K|D\.C|a\.m|p\.m|Ph\.D|Ave|Blvd|[a-zà-ÿ]\s[A-Z])\.$")
_STARTS = re.compile(
    r"\s+(?:It|He|She|They|The|This|That|These|We|I|There|In|Its|His|Her|Because|So|However|Option|Es|Er|Sie|Die|Der|Das|Il|Elle|Le|La|El)\b"
)
"""Words that begin a sentence: after them some abbreviations, and a letter at the end of a phrase, do end one."""
_NO_END = re.compile(rf"(?:^|[\s(\"'“])(?:(?:{ABBREVIATIONS})|[A-Z]|\d{{1,3}}|[a-z])\.$")
_LETTER = re.compile(r"[^\W\d_]")
_CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORDS = re.compile(rf"[{_CHARACTER}]|[^\W{_CHARACTER}]+")
_ASCII_WORDS = re.compile(r"\w+", re.ASCII)


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order; each Chinese or Japanese character is one."""
    return _ASCII_WORDS.findall(text) if text.isascii() else _WORDS.findall(text)


def sentence_ends(text: str) -> list[int]:
    """Return the position after each sentence of a text."""
    ends: list[int] = []
    start = 0
    for match in _END.finditer(text):
        piece = text[start : match.end()]
        if _goes_on(text, match) or not _LETTER.search(piece):
            continue
        ends.append(match.end() - (len(match.group()) if match.group().startswith("\n") else 0))
        start = match.end()
    return ends


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """Say whether a point is that of an abbreviation, an initial or a list number, and more follows."""
    if not match.group().startswith(".") or not text[match.end() :].strip():
        return False
    before = text[max(0, match.end() - 12) : match.end()]
    if not _NO_END.search(before):
        return False
    return not (_ENDING.search(before) and _STARTS.match(text, match.end()))


def first_sentence(text: str) -> str:
    """Return a text up to the end of its first sentence, or line; here ``42.`` is a sentence too."""
    for match in _END.finditer(text):
        piece = text[: match.end()]
        if piece.strip() and (piece.rstrip()[-2:-1].isdigit() or not _goes_on(text, match)):
            return piece.rstrip("\n")
    return text


def count_sentences(text: str) -> int:
    """Return the number of sentences of a text."""
    return len(sentence_ends(text))


def first_sentences(text: str, count: int) -> str | None:
    """Return the first sentences of a text, as they stand; None when it has fewer."""
    ends = sentence_ends(text)
    return text[: ends[count - 1]].rstrip() if len(ends) >= count else None
