"""Final answers: where a response states one, and when two of them are the same.

Reads the text of a response and a gold answer, gives the extracted answer or None. Pure functions over strings: every
answer scorer uses the same extraction, so that scores of different scorers disagree about values and never about where
the answer is. Tables of words are in ``phrases.py``, numbers in ``numbers.py``, letters in ``choices.py``.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from w2s_align.scoring.choices import LETTERS, choice_letter, find_choice, is_choice
from w2s_align.scoring.numbers import (
    Number,
    clean_latex,
    free_numbers,
    is_number,
    last_number,
    number_at,
    number_of,
    parse_number,
    plain,
    same_number,
)
from w2s_align.scoring.phrases import (
    ABOUT,
    ANSWER_PHRASE,
    BECAUSE,
    COPULAS,
    CUES,
    FINISHED,
    HEADINGS,
    NEGATED,
    NUMBER_WORDS,
    SPOKEN_SIGNS,
    VERDICTS,
    answer_phrases,
    explained_from,
    question_end,
    word_pattern,
)
from w2s_align.scoring.sentences import first_sentence
from w2s_align.scoring.thoughts import answer_part

TAIL_CHARS = 20_000
"""Only the end of a response is searched: a final answer stands there, and a runaway answer cannot cost minutes."""
PIECE_CHARS = 2_000
"""What follows "the answer is" is read so far: longer than any answer, short enough that no text is slow."""

_HASHES = re.compile(rf"####(?!#)[ \t]*(?!{HEADINGS})([^\n]*)", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_STATES = re.compile(rf"####|<answer>|\\boxed|{ANSWER_PHRASE.pattern}", re.IGNORECASE | re.MULTILINE)
_FINISHED = re.compile(rf"\W*(?:{FINISHED})\b", re.IGNORECASE)
_ABOUT = re.compile(rf"(?:{word_pattern(ABOUT)}|[\s*_`~:：])+", re.IGNORECASE)
_CUE = re.compile(word_pattern(CUES), re.IGNORECASE)
_BECAUSE = re.compile(rf"\s*[,;，(]?\s*(?:{word_pattern(BECAUSE)})", re.IGNORECASE)
_RELATIVE = re.compile(r",\s+(?:which|who|where|so|not|and (?:it|the|this|that)|as|with|but)\b", re.IGNORECASE)
_COPULA = re.compile(rf"{word_pattern(COPULAS)}\s*[:：]?\s*(?=\S)|(?<=\w)[:：=]\s*(?=\S)", re.IGNORECASE)
_SPOKEN = re.compile(rf"(?<=[0-9]) ({'|'.join(SPOKEN_SIGNS)}) (?=[$€£]?[0-9])", re.IGNORECASE)
_POLITE = re.compile("(?:です|だ|である|でした|になります)[。．!！]?$")
_DISPLAY = re.compile(r"\s*(\\\[.*?\\\]|\$\$.*?\$\$|\$[^$]*\$)", re.DOTALL)
_LONG_WORD = re.compile(r"[^\W\d_]{2,}")
_LETTER_GOLD = re.compile(r"\(([A-Z])\)|([A-Z])[.)]?")
_OTHER_NUMBER = re.compile(
    rf"\s*{word_pattern('or|to|oder|bis|ou|或|至')}\s*[$€£]?-?[0-9][0-9.,]*(?:\s[A-Za-z]+)?[.!]?\s*$", re.IGNORECASE
)


_is_number = functools.lru_cache(maxsize=1024)(is_number)  # many responses have the same gold answer
_FAMILIES = {word: words for words in reversed(VERDICTS) for word in words}
"""The family of each verdict, the first that has it."""


def extract_answer(text: str, gold: str = "") -> str | None:
    r"""Return the final answer that a response states, or None when it states none.

    The first of these that the text has, and of several its last occurrence:

    1. a line after ``####`` (GSM8K's mark),
    2. ``<answer>...</answer>``,
    3. ``\boxed{...}`` with balanced braces,
    4. ``... answer is ...`` or ``answer: ...``, to the end of the sentence; of an equation its right side,
    5. when the gold answer is a number: the last number of the text,
    6. when it is one of a family (yes and no): the word of that family that the text states,
    7. otherwise: the last line of the text (as many last lines as the gold answer has), of "X is Y" only the Y.

    Thoughts are not searched, nor what follows a question that the model asked itself.

    Args:
        text: The response.
        gold: The gold answer; only its *kind* (a number or not, how many lines, which family) steers step 4 to 7,
            never its value.
    """
    text = searched(text)
    if not gold or _is_number(gold):
        return _number(text)
    letter = _LETTER_GOLD.fullmatch(gold.strip())
    if letter:
        letters = LETTERS if (letter[1] or letter[2]) in LETTERS else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        if found := find_choice(text, stated_answer(text), letters):
            return f"({found})" if letter[1] else found
    return _text(text, gold.strip())


def extract_choice(text: str) -> str | None:
    """Return the letter (A to J) that a response to a multiple-choice question chooses, or None: see
    :func:`w2s_align.scoring.choices.find_choice`."""
    text = searched(text)
    return find_choice(text, stated_answer(text))


def searched(text: str) -> str:
    """Return the part of a response in which answers are looked for."""
    return question_end(answer_part(text)[-TAIL_CHARS:], _STATES)


def stated_answer(text: str) -> str | None:
    r"""Return what stands behind an explicit mark (``####``, ``<answer>``, ``\boxed``), the last of its kind, or
    None."""
    for sign, find in (("####", _HASHES.findall), ("<", _TAGGED.findall), ("\\", _boxed)):
        # What is not there is found fastest by the signs themselves.
        if sign in text and (found := find(text)) and found[-1].strip():
            return str(found[-1]).strip()
    return None


def math_answers(text: str) -> list[str]:
    r"""Return where a response to a problem of MATH may state its answer, the most certain first.

    Of MATH's own order: what is boxed, then "answer is"; then the other marks; then the text, without the part that
    checks the answer.
    """
    text = searched(text)
    if boxed := _boxed(text):
        return [f"\\boxed{{{boxed[0]}}}", boxed[0]]
    phrases = [_math_sentence(text[m.end() : m.end() + PIECE_CHARS]) for m in answer_phrases(text)]
    found = [one for one in phrases if any(map(str.isalnum, one)) and not _FINISHED.match(one)][-1:]
    if stated := stated_answer(text):
        found += [f"\\boxed{{{stated}}}", stated]
    return [*found, before_check(text), text]


def _math_sentence(piece: str) -> str:
    """Return what a phrase states: a display, or the sentence."""
    if display := _DISPLAY.match(piece):
        return display[1]
    return first_sentence(piece.lstrip())


def gold_answer(answer: str) -> str:
    """Return the gold answer of a prompt; of a worked solution that ends in ``#### 42`` (GSM8K's form) only the 42."""
    found = _HASHES.findall(answer)
    return found[-1].strip() if found else answer.strip()


def before_check(text: str) -> str:
    """Return a text without the part, after its answer, that explains or checks it."""
    for start in explained_from(text):
        if any(map(str.isdigit, text[:start])):
            return text[:start]
    return text


def _boxed(text: str) -> list[str]:
    r"""Return the last ``\boxed{...}`` of a text, nested braces included, as a list of none or one."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return []
    begin = text.index("{", start) + 1
    end = _closing(text, begin)
    return [] if end is None else [text[begin:end]]


def _closing(text: str, begin: int) -> int | None:
    """Return where the brace closes that is open at ``begin``; None where it stays open."""
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return None


def up_to_first_box(text: str) -> str:
    r"""Return a text up to the end of its first ``\boxed{...}``, thoughts left out; all of it where there is none."""
    body = answer_part(text)
    found = re.search(r"\\(?:boxed|fbox)\{", body)
    end = _closing(body, found.end()) if found else None
    return body if end is None else body[: end + 1]


def _number(text: str) -> str | None:
    """Return the number that a text states; where it states something else behind a mark, that."""
    stated = stated_answer(text)
    if stated is not None:
        return number_of(stated) or (_in_sentence(plain(stated)) if _is_sentence(stated) else None) or stated
    for match in reversed(answer_phrases(text)):
        if found := _stated_number(text[match.end() : match.end() + PIECE_CHARS], match):
            return found
    return last_number(before_check(text))


def _is_sentence(text: str) -> bool:
    return len(_LONG_WORD.findall(clean_latex(text))) > 3


def _stated_number(piece: str, phrase: re.Match[str]) -> str | None:
    """Return the number that follows "the answer is" or "Answer:"; None where none does.

    Args:
        piece: What follows.
        phrase: The match of :data:`ANSWER_PHRASE`; where no verb links it to the answer, a worked solution may follow.
    """
    line = plain(piece.split("\n", 1)[0])
    formula = line.strip()[:1] == "$" or "\\" in piece[:3]
    begin = _ABOUT.match(line)
    start = begin.end() if begin else 0
    if (
        line[start : start + 1] == "$"
        and line.find("$", start + 1) > 0
        and not re.match(r"\$[0-9.,]+\s", line[start:])
    ):
        line, formula = line.replace("$", ""), True
    if re.match(r"\\?[\[(]?\s*$", line) and "\n" in piece:  # display mathematics on the next line
        line, start, formula = plain(piece.split("\n", 2)[1]), 0, True
    rest = line[start:]
    word = re.match(r"[^\W\d_]+", rest)
    if word and word[0].lower() in NUMBER_WORDS and not re.search(r"\d", rest.split(".")[0]):
        return str(NUMBER_WORDS[word[0].lower()])
    if re.match(r"[-+]?\s?[$€£¥]?\s?[-+]?[0-9.(√π]", rest) and re.search(r"\d", rest[:20]):
        return _leading_number(rest, formula)
    if phrase["link"] is None:
        body = before_check(piece) if "\n" in phrase[0] else line
        if first_sentence(body.strip()) != body.strip():
            return last_number(body)
    return _in_sentence(line)


def _leading_number(rest: str, formula: bool) -> str | None:
    """Return the number with which a text begins; of a chain of equations its last side."""
    rest = _SPOKEN.sub(lambda m: SPOKEN_SIGNS[m[1].lower()], rest)
    found, end = number_at(rest, 0, formula=formula)
    while equals := re.match(r"\s*\w{0,12}\s*[=≈]\s*", rest[end:]):
        right, right_end = number_at(rest, end + equals.end(), formula=formula)
        if right_end <= end + equals.end():
            break
        found, end = right, right_end
    if found is None or _OTHER_NUMBER.match(rest, end):
        return rest.strip()
    return found


def _in_sentence(line: str) -> str | None:
    """Return the number to which the first sentence of a line comes."""
    sentence = first_sentence(line)
    starts = [match.start() for match in free_numbers(sentence)]
    if not starts:
        starts = [match.start() for match in free_numbers(line)]
        return number_at(line, starts[0])[0] if starts else None
    if "=" in sentence or "≈" in sentence:
        after = [start for start in starts if re.search(r"[=≈]\s*[-$€£]?\s*$", sentence[:start])]
        if after:
            return _leading_number(sentence[after[-1] :], formula=False)
    cues = [match.end() for match in _CUE.finditer(sentence, starts[0])]
    after = [start for start in starts if cues and start >= cues[-1]]
    start = after[0] if after else starts[0]
    return number_at(sentence, start, prose=True)[0] or sentence[start:].strip()


def _text(text: str, gold: str) -> str | None:
    """Return the answer of a text to a question whose gold answer is no number."""
    family = _FAMILIES.get(gold.casefold(), ())
    stated = stated_answer(text)
    if stated is not None:
        return _verdict(stated, family) or stated
    phrases = [m for m in answer_phrases(text) if not NEGATED.search(m["between"])]
    pieces = [piece for m in phrases if (piece := text[m.end() : m.end() + PIECE_CHARS].strip())]
    good = [piece for piece in pieces if not _FINISHED.match(piece)] or pieces
    if good:
        piece = good[-1]
        piece = re.sub(r"^\\\[\s*", "", piece).split("\n", 1)[0] if "\n" not in gold else piece
        return _verdict(piece, family) or _trimmed(first_sentence(piece), gold) or None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if family:
        for line in (lines[-1], lines[0]):
            if found := _verdict(line, family):
                return found
        said = re.findall(word_pattern("|".join(family)), lines[-1], re.IGNORECASE)
        if said:
            return str(said[-1])
    count = max(1, len(gold.splitlines()))
    last = "\n".join(lines[-count:])
    if count > 1 or _COPULA.search(gold):
        return last
    named = list(_COPULA.finditer(last))
    if named and not re.match(r"\W*https?:", last):
        return _trimmed(last[named[-1].end() :], gold) or last
    return last


def _verdict(piece: str, family: tuple[str, ...]) -> str | None:
    """Return the word of a family with which a text begins."""
    if not family:
        return None
    bare = re.sub(r"^(?:[\W_]|\\text\w*\{)+", "", clean_latex(piece))
    for word in sorted(family, key=len, reverse=True):
        if re.match(word_pattern(word), bare, re.IGNORECASE):
            return bare[: len(word)]
    return None


def _trimmed(piece: str, gold: str) -> str:
    """Take the reason and what is said about an answer from its end, where the gold answer has none of that."""
    for pattern in (_BECAUSE, _RELATIVE):
        if not pattern.search(gold) and (match := pattern.search(piece)) and match.start():
            piece = piece[: match.start()]
    if "(" not in gold:
        piece = re.sub(r"(?<=\w)\s+\([^()]*\)\W*$", "", piece)
    piece = piece.strip()
    if not _POLITE.search(gold):
        piece = _POLITE.sub("", piece)
    if piece.endswith((".", "!", "?", "。", "！", "？", ",", ";")) and not gold.rstrip().endswith(piece[-1]):
        piece = piece[:-1].rstrip()
    return piece


def normalize_answer(text: str) -> str:
    """Return a text in the form in which exact answers are compared.

    NFKC, case folded, white space collapsed; without surrounding dollar signs, quotes, Markdown marks and closing
    punctuation, and without thousands separators.
    """
    text = unicodedata.normalize("NFKC", clean_latex(text)).casefold()
    text = " ".join(text.split()).strip(" *_`\"'$“”‘’「」『』")
    text = text.rstrip(".,;:!?。、").strip(" *_`\"'$“”‘’「」『』")
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


__all__ = [
    "TAIL_CHARS",
    "Number",
    "before_check",
    "choice_letter",
    "clean_latex",
    "extract_answer",
    "extract_choice",
    "gold_answer",
    "is_choice",
    "is_number",
    "math_answers",
    "normalize_answer",
    "number_of",
    "parse_number",
    "same_number",
    "stated_answer",
    "up_to_first_box",
]
