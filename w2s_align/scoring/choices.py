r"""The letter that a response to a multiple-choice question chooses.

Tiers, the first that has a letter wins, and within a tier the last occurrence: an explicit mark (``####``,
``<answer>``, ``\boxed``); "the answer is B"; another statement ("Option B is correct", "I choose B", "hence B"); a
first line that begins with the option ("**B. Paris**"); then, unless the text refuses or says none of the options, the
last letter in brackets, at the beginning of a line, or by itself.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator

from w2s_align.scoring.numbers import clean_latex
from w2s_align.scoring.phrases import (
    BECAUSE,
    CHOOSING,
    CONCLUDING,
    NEGATED,
    NO_CHOICE,
    OPTION_WORDS,
    RIGHT_WORDS,
    answer_phrases,
    beginnings,
    matches,
    word_pattern,
)

LETTERS = "ABCDEFGHIJ"
"""Letters of the options where nothing else is known."""
_NONE = re.compile(rf"(?:\b|(?=[\u3040-\u9fff]))(?:{'|'.join(NO_CHOICE)})", re.IGNORECASE)
_NONE_BEGINS = beginnings(NO_CHOICE)
_OPENING, _CLOSING = 200, 600
"""Characters at the beginning and at the end of a text in which it refuses or says none of the options."""
_NEAR = 100
"""Characters around a letter in which a statement about it stands."""
_NO_OTHER = r"(?!\s*(?:or|and|oder|und|ou|et|o|y|&|/|或|和)\s*[(\[*]*[A-Z](?![A-Za-z]))"
"""Two letters are no choice."""
_WORD_AFTER = re.compile(
    rf"\s+(?!{word_pattern(BECAUSE + '|and|with|which|for|is|by|due|due to|but|according')})[a-zà-ÿ]"
)
"""A, a and I before a word in lower case are an article and a pronoun."""
_SEVERAL = re.compile(
    r"[\s(\[*:]*[A-Z][)\]*]*\s*(?:,|/|&|or|and|oder|und|ou|et|y|或|和)\s*[(\[*]*[A-Z](?![A-Za-z])[)\]*]*(?!\s*(?:is|are|was)\b)"
)
_SAYS = re.compile(r"[)\]*_]*\s*(?:is|are|was|would|could|can|cannot|can't|isn't|seems|ist|kann|est|es)\b")
_TICKS = ("✓", "✔", "✅", "correct", "right", "true", "richtig", "korrekt", "正确")
"""Words without which no option is ticked."""
_RIGHT_BEGINS = beginnings(RIGHT_WORDS.split("|"))
_NOUN_AFTER = re.compile(r"\s+[a-z]")
"""After a small a: it is an article."""


class _Patterns:
    """The patterns of the tiers for some letters.

    Those that search a whole text begin with a line feed, or with the character before the letter, because Python
    looks for characters many times as fast as it tries ``^`` and ``(?<!...)`` everywhere: they search :func:`_padded`.
    """

    def __init__(self, letters: str) -> None:
        last = letters[-1]
        one = f"[A-{last}]"
        before, after = "[^A-Za-z0-9'’]", "(?![A-Za-z0-9'’])"
        opening = r"[\s(\[*_`\"“「『【$]*"
        option = rf"(?:(?:the |die |la |el |l')?{word_pattern(OPTION_WORDS)}[\s:：]*)?"
        any_case = rf"([A-{last}a-{last.lower()}]){after}"
        is_ = (
            r"(?:is|are|was|be|ist|wäre|est|es|é|è|seems|seems to be|must be|would be|should be|looks|appears "
            r"to be|是|为|は|が|[:=：])"
        )
        the = r"(?:\s*(?:the|clearly|definitely|therefore|indeed|also|die|la|le|el|most|only|probably|一番))*\s*"
        right = word_pattern(RIGHT_WORDS)
        self.whole = re.compile(rf"{opening}{option}{opening}{any_case}[\s)\]*_`\"”.:,;!。」』】$]*", re.IGNORECASE)
        self.begins = re.compile(rf"{opening}{option}{opening}{any_case}{_NO_OTHER}", re.IGNORECASE)
        self.marked = re.compile(rf"[\s*_`\"]*[(\[]?({one})(?:[)\].:、．]|\s*[-–—]\s)")
        self.bracketed = re.compile(rf"[(\[]({one})[)\]]")
        chosen = rf"{option}{opening}{any_case}{_NO_OTHER}"
        self.said_right = re.compile(
            rf"({one}){after}[)\].:*_\"」]*(?:\s*[（(][^()\n]{{0,60}}[)）]|[ \t]+(?!is\b|are\b|not\b)[^.\n:;,()"
            rf"]{{1,60}}?)?\s*{is_}{the}{right}",
            re.IGNORECASE,
        )
        self.statements = tuple(
            (beginnings(words.split("|")), re.compile(word_pattern(words) + rest, re.IGNORECASE))
            for words, rest in (
                (
                    RIGHT_WORDS,
                    rf"\s*(?:\w+ ){{0,2}}?{word_pattern(OPTION_WORDS)}?(?:[^.\n:]{{0,30}}?){is_}[\s*_]*{chosen}",
                ),
                (OPTION_WORDS, rf"\s*{is_}[\s*_]*{opening}{any_case}{_NO_OTHER}"),
                (CHOOSING, rf"[\s:：]*{chosen}"),
                (
                    CONCLUDING,
                    rf"[,，、]?\s*(?:it is |it's |it must be |we have |we get |es ist )?{chosen}",
                ),
            )
        )
        self.ticked = re.compile(
            rf"^\W*({one})[.):][^\n]{{0,200}}?(?:✓|✔|✅|[-–—:(]\s*\**(?:this is )?(?:the )?(?:correct|right|true|"
            rf"richtig|korrekt|correcto|correct answer|正确)\b)"
            rf"|^\W*({one})[.):]\W{{0,4}}(?:correct|right|true|richtig|korrekt|正确)(?![a-z])",
            re.IGNORECASE | re.MULTILINE,
        )
        self.kinds = _kinds(letters)
        self.any_case = re.compile(rf"{before}{any_case}")
        self.lines = re.compile(rf"\n\W*({one})[.):](?=\s|\*|$)")
        self.alone = re.compile(rf"{before}([B-HJ-{max('J', last)}]){after}")
        self.alone_on_line = re.compile(rf"\n\W*({one})\W*$", re.MULTILINE)
        self.first = re.compile(rf"[\s*_`\"]*({one})[\s*_`\".,:)]*(?:\n|$)")


@functools.lru_cache(maxsize=8)
def _patterns(letters: str) -> _Patterns:
    return _Patterns(letters)


def is_choice(text: str, letters: str = LETTERS) -> bool:
    """Say whether a text is one letter of the options, perhaps in brackets, and nothing else."""
    return _whole(text, letters) is not None


def choice_letter(text: str, letters: str = LETTERS) -> str:
    """Return the letter of a text that :func:`is_choice`.

    Raises:
        ValueError: The text is something else.
    """
    letter = _whole(text, letters)
    if letter is None:
        raise ValueError(f"{text!r} is not a choice")
    return letter


_BARE = re.compile(r"[(\[*]*(?:\\text\{)?([A-Za-z])\}?[)\]*.:]*")


def _whole(text: str, letters: str) -> str | None:
    match = _BARE.fullmatch(text.strip())
    letter = match[1].upper() if match else ""
    return letter if letter and letter in letters else None


def find_choice(text: str, stated: str | None, letters: str = LETTERS) -> str | None:
    """Return the letter that a text chooses, or None.

    Args:
        text: What follows the thoughts.
        stated: What stands behind an explicit mark in it.
        letters: The letters of the options, from A on.
    """
    patterns = _patterns(letters)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if stated is not None:
        if letter := _in_piece(stated, patterns):
            return letter
        if _says_none(stated) or _SEVERAL.match(clean_latex(stated)):
            return None
    for match in reversed(answer_phrases(text)):
        if NEGATED.search(match["between"]):
            continue
        piece = text[match.end() : match.end() + 300]
        if letter := _beginning(piece, patterns):
            return letter
        line = piece.split("\n", 1)[0]
        if _says_none(line) or _SEVERAL.match(line):
            return None
        if (found := patterns.bracketed.findall(line)) and len(set(found)) == 1:
            return str(found[0])
    if letter := _statement(text, patterns) or _first_line(text, patterns):
        return letter
    if _says_none(text[:_OPENING]) or _says_none(text[-_CLOSING:]):
        return None
    padded = _padded(text)
    for pattern in (patterns.bracketed, patterns.lines, patterns.alone, patterns.alone_on_line):
        if found := pattern.findall(padded):
            return str(found[-1]).upper()
    return None


def _says_none(text: str) -> bool:
    return any(True for _ in matches(_NONE, _NONE_BEGINS, text))


def _padded(text: str) -> str:
    """Return a text with a line feed before it, so that its first line and letter have one too."""
    return "\n" + text


def _letter(match: re.Match[str], group: int = 1) -> str | None:
    """Return the letter of a match, unless it is an article or a pronoun."""
    letter = match[group]
    after = match.string[match.end(group) :]
    before = match.string[match.start(group) - 1 : match.start(group)]
    if letter in "AaIioyOYe" and before not in ("(", "[") and _WORD_AFTER.match(after):
        return None
    if letter.islower() and before not in ("(", "[") and re.match(r"[.)]\w", after):  # e.g. and i.e. are words
        return None
    return letter.upper()


def _beginning(piece: str, patterns: _Patterns) -> str | None:
    match = patterns.begins.match(piece)
    return _letter(match) if match else None


def _in_piece(stated: str, patterns: _Patterns) -> str | None:
    """Return the letter of what stands behind a mark: ``B``, ``(B) 12``, ``B. 12 N``, ``Option B``, ``12 N (B)``."""
    piece = re.sub(r"[{}\\]", "", clean_latex(stated)).strip()
    if match := patterns.whole.fullmatch(piece):
        return str(match[1]).upper()
    if match := patterns.marked.match(piece):
        return str(match[1])
    if letter := _beginning(piece, patterns):
        return letter
    for match in reversed(answer_phrases(piece)):
        if letter := _beginning(piece[match.end() :], patterns):
            return letter
    found = patterns.bracketed.findall(piece)
    return str(found[0]) if len(set(found)) == 1 else None


def _statement(text: str, patterns: _Patterns) -> str | None:
    """Return the letter that a sentence chooses."""
    near = _around_letters(text, patterns)
    lowered = near.lower()
    if any(word in lowered for word in _RIGHT_BEGINS) and (letter := _last_letter(_said_right(near, patterns))):
        return letter
    for begins, pattern in patterns.statements:
        if letter := _last_letter(matches(pattern, begins, near)):
            return letter
    if not any(word in lowered for word in _TICKS):
        return None
    ticked = {first or second for first, second in patterns.ticked.findall(near)}
    return ticked.pop().upper() if len(ticked) == 1 else None


def _said_right(near: str, patterns: _Patterns) -> Iterator[re.Match[str]]:
    """Yield where a letter in upper case is said to be right; one in lower case hides those in its sentence."""
    end = 0
    for place in patterns.any_case.finditer(_padded(near)):
        if place.start() >= end and (match := patterns.said_right.match(near, place.start())):
            end = match.end()
            if match[1].isupper():
                yield match


def _last_letter(found: Iterable[re.Match[str]]) -> str | None:
    """Return the letter of the last statement that is not negated in its part of the sentence."""
    letters = [letter for match in found if not _negated(match) and (letter := _letter(match))]
    return letters[-1] if letters else None


def _negated(match: re.Match[str]) -> bool:
    begin = max(match.string.rfind(mark, 0, match.start()) for mark in ".\n;,") + 1
    return NEGATED.search(match.string, begin, match.end()) is not None


def _around_letters(text: str, patterns: _Patterns) -> str:
    """Return the parts of a text that are near a letter by itself: statements about options are nowhere else."""
    parts: list[list[int]] = []
    for place in _places_of_letters(text, patterns):
        start, end = max(0, place - _NEAR), min(len(text), place + 1 + _NEAR)
        if parts and start <= parts[-1][1]:
            parts[-1][1] = end
        else:
            parts.append([start, end])
    return "\n".join(text[start:end] for start, end in parts)


def _places_of_letters(text: str, patterns: _Patterns) -> Iterator[int]:
    """Yield where letters of the options stand by themselves, other than an article and a small i.

    Every character becomes a byte that says its kind, because bytes are searched far faster than a pattern.
    """
    kinds = b" " + text.replace("’", "'").encode("ascii", "replace").translate(patterns.kinds) + b" "
    place = kinds.find(b" l ")
    while place >= 0:  # kinds has one byte more in front: the letter is at this place of the text
        if text[place] != "a" or not _NOUN_AFTER.match(text, place + 1):
            yield place
        place = kinds.find(b" l ", place + 1)


def _kinds(letters: str) -> bytes:
    """Return the kind of every ASCII character: ``l`` a letter of the options, ``w`` another one or a digit."""
    small = (set("abcdefghj") | set(letters.lower())) - {"i"}
    return (
        bytes(
            ord("l" if char in letters or char in small else "w" if char.isalnum() or char == "'" else " ")
            for char in map(chr, range(128))
        )
        + b" " * 128
    )


def _first_line(text: str, patterns: _Patterns) -> str | None:
    """Return the option that a response begins with, unless it goes on to list all options."""
    head = text.lstrip()
    match = patterns.marked.match(head)
    if not match:
        bare = patterns.first.match(head)
        return bare[1] if bare else None
    if _SAYS.match(head, match.end()):
        return None
    marks = patterns.lines.findall(_padded(text))
    listed = len(marks) > 1 and match[1] == marks[0] == "A" and marks[1] == "B"
    return None if listed else match[1]
