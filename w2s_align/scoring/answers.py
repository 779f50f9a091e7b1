"""Final answers: where a response states one, and when two of them are the same.

Reads the text of a response and a gold answer, gives the extracted answer or None. Pure functions over strings: every
answer scorer uses the same extraction, so that scores of different scorers disagree about values and never about where
the answer is.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import deque

TAIL_CHARS = 20_000
"""Only the end of a response is searched: a final answer stands there, and a runaway answer cannot cost minutes."""

_NUMBER = r"[-+−]?[$€£]?[-+−]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?"
_FRACTION = rf"{_NUMBER}(?:\s?/\s?\d+(?:\.\d+)?)?"
_ANY_NUMBER = re.compile(rf"(?<![\w.]){_FRACTION}")
_WHOLE_NUMBER = re.compile(rf"({_NUMBER})(?:\s?/\s?(\d+(?:\.\d+)?))?\s?%?")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_PHRASE = re.compile(r"\banswer\b(?:[^\n.:=]{0,40}?)(?:\bis\b|[:=])[\s*:]*([^\n]*)", re.IGNORECASE)
_CHOICE = re.compile(r"[(\[*]*(?:\\text\{)?([A-Ja-j])\}?[)\]*.:]*")
_CHOICES = (
    re.compile(r"\banswer\b[^\n.:=]{0,40}?(?:\bis\b|[:=])[\s*:]*(?:option\s+)?[(\[]?([A-J])\b(?!')", re.IGNORECASE),
    re.compile(r"[(\[]([A-J])[)\]]"),
    re.compile(r"^\W*([A-J])[.):](?:\s|\*|$)", re.MULTILINE),
    re.compile(r"(?<![\w'])([B-HJ])(?![\w'])"),
    re.compile(r"^\W*([A-J])\W*$", re.MULTILINE),
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")


def extract_answer(text: str, gold: str = "") -> str | None:
    r"""Return the final answer that a response states, or None when it states none.

    The first of these that the text has, and of several its last occurrence:

    1. a line after ``####`` (GSM8K's mark),
    2. ``<answer>...</answer>``,
    3. ``\boxed{...}`` with balanced braces,
    4. ``... answer is ...`` or ``answer: ...``, to the end of the sentence,
    5. when the gold answer is a number: the last number of the text,
    6. otherwise: the last line of the text (as many last lines as the gold answer has).

    What stands before the last ``</think>`` is thinking and is not searched.

    Args:
        text: The response.
        gold: The gold answer; only its *kind* (a number or not, how many lines) steers step 4 to 6, never its value.
    """
    text = text.rsplit("</think>", 1)[-1][-TAIL_CHARS:]
    number = not gold or is_number(gold)
    stated = stated_answer(text)
    if stated is not None:
        return _last_number(stated) or stated if number else stated
    phrases = _PHRASE.findall(text)
    if phrases and phrases[-1].strip():
        if number:
            first = _ANY_NUMBER.search(clean_latex(phrases[-1]))
            if first:
                return first.group().strip()
        else:
            return _SENTENCE_END.split(phrases[-1].strip(), maxsplit=1)[0].strip() or None
    if number:
        return _last_number(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-max(1, len(gold.strip().splitlines())) :]) or None


def stated_answer(text: str) -> str | None:
    r"""Return what stands behind an explicit mark (``####``, ``<answer>``, ``\boxed``), the last of its kind, or
    None."""
    for found in (_HASHES.findall(text), _TAGGED.findall(text), _boxed(text)):
        if found and found[-1].strip():
            return str(found[-1]).strip()
    return None


def extract_choice(text: str) -> str | None:
    r"""Return the letter (A to J) that a response to a multiple-choice question chooses, or None.

    The first of these that the text has, and of several its last occurrence: an explicit mark (``####``, ``<answer>``,
    ``\boxed``) with one letter; ``answer is (B)`` or ``answer: B``; ``(B)``; a line that begins with ``B.`` or
    ``B)``; a single capital letter by itself, other than the words "A" and "I".
    """
    text = text.rsplit("</think>", 1)[-1][-TAIL_CHARS:]
    stated = stated_answer(text)
    if stated is not None and is_choice(stated):
        return choice_letter(stated)
    for pattern in _CHOICES:
        found = pattern.findall(text)
        if found:
            return str(found[-1]).upper()
    return None


def is_choice(text: str) -> bool:
    """Say whether a text is one letter from A to J, perhaps in brackets, and nothing else."""
    return _CHOICE.fullmatch(text.strip()) is not None


def choice_letter(text: str) -> str:
    """Return the letter of a text that :func:`is_choice`.

    Raises:
        ValueError: The text is something else.
    """
    match = _CHOICE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a choice")
    return match.group(1).upper()


def gold_answer(answer: str) -> str:
    """Return the gold answer of a prompt; of a worked solution that ends in ``#### 42`` (GSM8K's form) only the 42."""
    found = _HASHES.findall(answer)
    return found[-1].strip() if found else answer.strip()


def _boxed(text: str) -> list[str]:
    r"""Return the last ``\boxed{...}`` of a text, nested braces included, as a list of none or one."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return []
    begin, depth = text.index("{", start) + 1, 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return [text[begin:position]]
    return []


def _last_number(text: str) -> str | None:
    found = deque(_ANY_NUMBER.finditer(clean_latex(text)), maxlen=1)
    return found[0].group().strip() if found else None


def clean_latex(text: str) -> str:
    r"""Rewrite the LaTeX that numbers come in: ``\frac{1}{2}`` to ``1/2``, ``1{,}000`` to ``1,000``, ``\text{m}`` to
    ``m``."""
    if "\\" in text or "{" in text:
        text = _LATEX_FRACTION.sub(r"\1/\2", text)
        text = _LATEX_TEXT.sub(r"\1", text)
        text = text.replace("{,}", ",").replace("\\!", "").replace("\\,", "").replace("\\%", "%").replace("\\$", "$")
    return text


def parse_number(text: str) -> float | int | None:
    """Return the value of a text that is one number, else None.

    Understands signs, thousands separators, currency signs, percent signs (``50%`` is 50), fractions and scientific
    notation. Whole numbers stay exact.
    """
    cleaned = clean_latex(text).strip().strip("$*`").rstrip(".").strip()
    match = _WHOLE_NUMBER.fullmatch(cleaned)
    if not match:
        return None
    above, below = (re.sub(r"[\s,$€£]", "", part or "").replace("−", "-") for part in match.groups())
    if not below:
        # int() of thousands of digits is quadratic and refused by Python; no sensible answer is that long.
        return int(above) if re.fullmatch(r"[-+]?\d{1,1000}", above) else float(above)
    value = float(above) / float(below) if float(below) else math.nan
    return None if math.isnan(value) else value


def is_number(text: str) -> bool:
    """Say whether a text is one number and nothing else."""
    return parse_number(text) is not None


def same_number(left: float | int, right: float | int, tolerance: float = 1e-6) -> bool:
    """Compare two numbers.

    Args:
        left: One of them.
        right: The other.
        tolerance: Relative difference up to which they are the same; whole numbers are compared exactly.
    """
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    try:
        return math.isclose(left, right, rel_tol=tolerance, abs_tol=1e-9)
    except OverflowError:
        return False


def normalize_answer(text: str) -> str:
    """Return a text in the form in which exact answers are compared.

    NFKC, case folded, white space collapsed; without surrounding dollar signs, quotes, Markdown marks and closing
    punctuation, and without thousands separators.
    """
    text = unicodedata.normalize("NFKC", clean_latex(text)).casefold()
    text = " ".join(text.split()).strip(" *_`\"'$")
    text = text.rstrip(".,;:!?").strip(" *_`\"'$")
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
