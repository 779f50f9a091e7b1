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
    word_pattern,
)

LETTERS = "ABCDEFGHIJ"
"""Letters of the options where nothing else is known."""
# The first letters are asked for before the words: twenty alternatives at every character are slow.
_NONE = re.compile(rf"(?:\b(?=[nacuwrdk])|(?=[以都不无無わでい該]))(?:{NO_CHOICE})", re.IGNORECASE)
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


class _Patterns:
    """The patterns of the tiers for some letters."""

    def __init__(self, letters: str) -> None:
        last = letters[-1]
        one = f"[A-{last}]"
        free = rf"(?<![A-Za-z0-9'’])({one})(?![A-Za-z0-9'’])"
        opening = r"[\s(\[*_`\"“「『【$]*"
        option = rf"(?:(?:the |die |la |el |l')?{word_pattern(OPTION_WORDS)}[\s:：]*)?"
        any_case = rf"([A-{last}a-{last.lower()}])(?![A-Za-z0-9'’])"
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
        self.statements = (
            re.compile(
                rf"{free}[)\].:*_\"」]*(?:\s*[（(][^()\n]{{0,60}}[)）]|[ \t]+(?!is\b|are\b|not\b)[^.\n:;,()"
                rf"]{{1,60}}?)?\s*{is_}{the}{right}",
                re.IGNORECASE,
            ),
            re.compile(
                rf"{right}\s*(?:\w+ ){{0,2}}?{word_pattern(OPTION_WORDS)}?(?:[^.\n:]{{0,30}}?)"
                rf"{is_}[\s*_]*{option}{opening}{any_case}{_NO_OTHER}",
                re.IGNORECASE,
            ),
            re.compile(rf"{word_pattern(OPTION_WORDS)}\s*{is_}[\s*_]*{opening}{any_case}{_NO_OTHER}", re.IGNORECASE),
            re.compile(rf"{word_pattern(CHOOSING)}[\s:：]*{option}{opening}{any_case}{_NO_OTHER}", re.IGNORECASE),
            re.compile(
                rf"{word_pattern(CONCLUDING)}[,，、]?\s*(?:it is |it's |it must be |we have |we get |es ist )"
                rf"?{option}{opening}{any_case}{_NO_OTHER}",
                re.IGNORECASE,
            ),
        )
        self.ticked = re.compile(
            rf"^\W*({one})[.):][^\n]{{0,200}}?(?:✓|✔|✅|[-–—:(]\s*\**(?:this is )?(?:the )?(?:correct|right|true|"
            rf"richtig|korrekt|correcto|correct answer|正确)\b)"
            rf"|^\W*({one})[.):]\W{{0,4}}(?:correct|right|true|richtig|korrekt|正确)(?![a-z])",
            re.IGNORECASE | re.MULTILINE,
        )
        low = last.lower()
        self.candidate = re.compile(
            rf"(?<![A-Za-z0-9'’])(?:{one}|[b-hj-{max('j', low)}]|a(?!\s+[a-z]))(?![A-Za-z0-9'’])"
        )
        self.lines = re.compile(rf"^\W*({one})[.):](?:\s|\*|$)", re.MULTILINE)
        self.alone = re.compile(
            rf"(?<![A-Za-z0-9'’])([B-HJ-{max('J', last)}])(?![A-Za-z0-9'’])" if last >= "J" else free
        )
        self.alone_on_line = re.compile(rf"^\W*({one})\W*$", re.MULTILINE)
        self.letters = letters


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
        if _NONE.search(stated) or _SEVERAL.match(clean_latex(stated)):
            return None
    for match in reversed(answer_phrases(text)):
        if NEGATED.search(match["between"]):
            continue
        piece = text[match.end() : match.end() + 300]
        if letter := _beginning(piece, patterns):
            return letter
        line = piece.split("\n", 1)[0]
        if _NONE.search(line) or _SEVERAL.match(line):
            return None
        if (found := patterns.bracketed.findall(line)) and len(set(found)) == 1:
            return str(found[0])
    if letter := _statement(text, patterns) or _first_line(text, patterns):
        return letter
    if _NONE.search(text[:_OPENING]) or _NONE.search(text[-_CLOSING:]):
        return None
    for pattern in (patterns.bracketed, patterns.lines, patterns.alone, patterns.alone_on_line):
        if found := pattern.findall(text):
            return str(found[-1]).upper()
    return None


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
    text = _around_letters(text, patterns)
    for pattern in patterns.statements:
        letters = []
        for match in pattern.finditer(text):
            sentence = text[max(text.rfind(mark, 0, match.start()) for mark in ".\n;,") + 1 : match.end()]
            if (match[1].islower() and pattern is patterns.statements[0]) or NEGATED.search(sentence):
                continue
            if letter := _letter(match):
                letters.append(letter)
        if letters:
            return letters[-1]
    ticked = {first or second for first, second in patterns.ticked.findall(text)}
    return ticked.pop().upper() if len(ticked) == 1 else None


def _around_letters(text: str, patterns: _Patterns) -> str:
    """Return the parts of a text that are near a letter by itself: statements about options are nowhere else."""
    parts: list[list[int]] = []
    for match in patterns.candidate.finditer(text):
        start, end = max(0, match.start() - _NEAR), min(len(text), match.end() + _NEAR)
        if parts and start <= parts[-1][1]:
            parts[-1][1] = end
        else:
            parts.append([start, end])
    return "\n".join(text[start:end] for start, end in parts)


def _first_line(text: str, patterns: _Patterns) -> str | None:
    """Return the option that a response begins with, unless it goes on to list all options."""
    head = text.lstrip()
    match = patterns.marked.match(head)
    if not match:
        bare = re.match(rf"[\s*_`\"]*([A-{patterns.letters[-1]}])[\s*_`\".,:)]*(?:\n|$)", head)
        return bare[1] if bare else None
    if re.match(
        r"[)\]*_]*\s*(?:is|are|was|would|could|can|cannot|can't|isn't|seems|ist|kann|est|es)\b", head[match.end() :]
    ):
        return None
    marks = patterns.lines.findall(text)
    listed = len(marks) > 1 and match[1] == marks[0] == "A" and marks[1] == "B"
    return None if listed else match[1]
