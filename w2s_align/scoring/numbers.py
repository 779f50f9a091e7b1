r"""The number that a short text states: literals, simple arithmetic, and what stands beside a number.

``3 1/2``, ``$1,234.50``, ``3 \times 10^8``, ``5 million``, ``２０ - 5 = 15`` have a value; ``3x`` and ``5 ± 2`` have
none, so that no part of them is taken for the answer. Pure functions over strings.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator

from w2s_align.scoring.phrases import ABOUT, MAGNITUDES, NUMBER_WORDS, word_pattern

Number = int | float
_MOST_DIGITS = 1000
"""int() of thousands of digits is quadratic and refused by Python; no sensible answer is that long."""
_CURRENCY = r"(?:(?:US|A|C|HK|R|S)?[$€£¥₹₩]|(?:USD|EUR|GBP|CHF|Rs\.?) ?)"
_PLAIN = (
    r"(?:[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+|(?:'[0-9]{3})+|(?:_[0-9]{3})+)(?![0-9]|,[0-9])(?:\.[0-9]+)?"
    r"|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9])(?:\.[0-9]+)?"  # 1,00,000
    r"|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9])"  # 1.200,50 and 1.200.000
    r"|(?<![0-9]\.)(?<![0-9],)[0-9]+,[0-9]{1,2}(?![0-9]|,[0-9])"  # 3,5
    r"|[0-9]*\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+(?![0-9A-Za-z]))?"
)
_LITERAL = re.compile(_PLAIN)
_FREE = re.compile(
    rf"(?<![A-Za-z0-9_.^])(?<![0-9][,:])(?<!\^\()(?<!\^-)(?:[-+](?={_CURRENCY}?[0-9.]))?{_CURRENCY}?(?<!\w)?[-+]?(?={_PLAIN})"
)
_WHOLE_NUMBER = re.compile(
    rf"([-+] ?)?{_CURRENCY}?([-+])?({_PLAIN})(?: ?([0-9]+) ?/ ?([0-9]+)| ?/ ?([0-9]+(?:\.[0-9]+)?)"
    rf"| ?[x×*·] ?10(?:\^|\*\*)\(?([-+]?[0-9]{{1,3}})\)?)? ?(?:%|percent)?"
)
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([^{}]*?)\s*\}|([0-9a-z]))\s*(?:\{\s*([^{}]*?)\s*\}|([0-9a-z]))")
_LATEX_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|bf|rm|boldsymbol|bm|emph)\s*\{([^{}]*)\}"
)
_LATEX_MARKS = {
    "{,}": ",", r"\!": "", r"\,": " ", r"\;": " ", r"\:": " ", r"\ ": " ", r"\quad": " ",
    "~": " ", r"\%": "%", r"\$": "$",
    r"\left": "", r"\right": "", r"\times": "×", r"\cdot": "×", r"\div": "÷", r"\pi": "π", r"\approx": "≈", r"\pm": "±",  # noqa: E501
    r"\leq": "≤", r"\le": "≤", r"\geq": "≥", r"\ge": "≥", r"\neq": "≠", r"\ne": "≠", r"^\circ": "°", r"^{\circ}": "°",
    r"\circ": "°", r"\degree": "°", r"\(": "", r"\)": "", r"\[": "", r"\]": "", r"\displaystyle": "", r"\infty": "∞",
    r"\euro": "€", r"\pounds": "£",
}  # fmt: skip
_LATEX_MARK = re.compile(
    "|".join(
        re.escape(mark) + ("(?![A-Za-z])" if mark[-1].isalpha() else "")
        for mark in sorted(_LATEX_MARKS, key=len, reverse=True)
    )
)
_LATEX_ROOT = re.compile(r"\\sqrt\s*(?:\{([^{}]*)\}|\(([^()]*)\)|([0-9]))")
_EXPONENT = re.compile(r"\^\s*\{([^{}]*)\}")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_DASHES = str.maketrans({"−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "⁄": "/", "∕": "/", "∗": "*", "⋅": "×"})
_MARKDOWN = re.compile(r"(?<![0-9])\*\*|\*\*(?![-0-9])|__|`|</?(?:b|strong|i|em|u|p|span)>")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
_DECIMAL_COMMA = re.compile(r"[0-9]+,[0-9]{1,2}")
_DOTTED_THOUSANDS = re.compile(r"\.[0-9]{3}[,.]")
_GROUPS = re.compile(r"[ '_]")
_SIMPLE = re.compile(r"-?[0-9.,]+|[a-z]")
_PARENTHESIZED_MINUS = re.compile(r"[=≈:]\s*-\s+$")


def clean_latex(text: str) -> str:
    r"""Rewrite the LaTeX that answers come in: ``\frac{1}{2}`` to ``1/2``, ``1{,}000`` to ``1,000``, ``\text{m}`` to
    ``m``, ``3\frac12`` to ``3 1/2``."""
    if "\\" not in text and "{" not in text:
        return text
    for _ in range(3):  # \text{\textbf{...}} and fractions of fractions
        text = _LATEX_ROOT.sub(lambda m: f"√({m[1] or m[2] or m[3]})", _LATEX_TEXT.sub(r"\1", text))
        text = _LATEX_FRACTION.sub(_fraction, text)
    text = _LATEX_MARK.sub(lambda m: _LATEX_MARKS[m[0]], text)
    return _EXPONENT.sub(lambda m: f"^{m[1]}" if m[1].strip().isdigit() else f"^({m[1]})", text)


def _fraction(match: re.Match[str]) -> str:
    above, below = match[1] or match[2] or "", match[3] or match[4] or ""
    simple = all(_SIMPLE.fullmatch(part) for part in (above, below))
    mixed = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return (" " * mixed) + (f"{above}/{below}" if simple else f"({above})/({below})")


def plain(text: str) -> str:
    """Return a text with its numbers in ASCII digits and signs, without LaTeX and Markdown marks."""
    text = clean_latex(text)
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
        text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]), text)
        text = unicodedata.normalize("NFKC", text).translate(_DASHES)
        text = _OTHER_DIGIT.sub(lambda m: str(unicodedata.digit(m[0])), text)
    return _MARKDOWN.sub("", text) if any(sign in text for sign in "*_`<") else text


def parse_number(text: str) -> Number | None:
    """Return the value of a text that is one number, else None.

    Understands signs, thousands separators (comma, space, apostrophe), currency signs, percent signs (``50%`` is 50),
    fractions, mixed numbers (``3 1/2``) and scientific notation (``1e3``, ``3 x 10^8``). Whole numbers stay exact.
    """
    cleaned = plain(text.strip().strip("*`")).strip().strip("$").rstrip(".").strip().lstrip("$")
    match = _WHOLE_NUMBER.fullmatch(cleaned)
    if not match or _DECIMAL_COMMA.fullmatch(match[3]):  # a decimal comma may be a list: only answers have it
        return None
    return _value(match)


def _value(match: re.Match[str]) -> Number | None:
    before, inner, digits, above, below, divisor, power = match.groups()
    value: Number = _literal(digits)
    if below:
        if not float(below):
            return None
        value = value + float(above) / float(below)
    elif divisor:
        if not float(divisor):
            return None
        value = value / float(divisor) if abs(value) < 1e300 else math.inf
    elif power:
        value = _power_of_ten(value, int(power))
    return -value if "-" in (before or "") + (inner or "") else value


def _literal(digits: str) -> Number:
    """Return the value of what :data:`_PLAIN` matches."""
    if digits.isdigit() and len(digits) <= _MOST_DIGITS:
        return int(digits)
    digits = _GROUPS.sub("", digits)
    if _DOTTED_THOUSANDS.search(digits) or _DECIMAL_COMMA.fullmatch(digits):
        digits = digits.replace(".", "").replace(",", ".")
    digits = digits.replace(",", "")
    return int(digits) if digits.isdigit() and len(digits) <= _MOST_DIGITS else float(digits)


def _power_of_ten(value: Number, power: int) -> Number:
    if isinstance(value, int) and 0 <= power <= 300:
        return value * 10**power
    found = value * 10.0**power
    return int(found) if found.is_integer() and abs(found) < 2**53 else found


def is_number(text: str) -> bool:
    """Say whether a text is one number and nothing else."""
    return parse_number(text) is not None


def same_number(left: Number, right: Number, tolerance: float = 1e-6) -> bool:
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


def free_numbers(text: str) -> Iterator[re.Match[str]]:
    """Yield where numbers begin in a plain text: not those inside words, and no exponents."""
    return _FREE.finditer(text)


class Expression:
    """Arithmetic at one place of a plain text, read as far as it goes.

    Attributes:
        end: Where it ends.
    """

    _SPACE = re.compile(r"[ \t\u00a0]*")
    _TIMES = re.compile(r"[ ]*(?:[×*·÷/]|x(?= ?[-$€£]?[0-9(]))[ ]*(?=[-+]?[$€£]?[0-9.(√π])")
    _PLUS = re.compile(r"[ ]*[-+][ ]*(?=[$€£]?[0-9.(√π])")
    _MAGNITUDE = re.compile(
        r" {0,3}-?(" + "|".join(sorted(MAGNITUDES, key=len, reverse=True)) + r")(?![A-Za-zà-ÿ])", re.IGNORECASE
    )
    _SHORT = re.compile(r" ?([kKMB])(?![A-Za-z0-9])")
    _MIXED = re.compile(r" ([0-9]+) ?/ ?([0-9]+)(?![0-9])")
    _SIGN = re.compile(rf"[ ]*([-+]?)[ ]*({_CURRENCY}?)[ ]*([-+]?)")
    _GROUP = re.compile(r" ?[π√]|\(")
    _NUMERIC_GROUP = re.compile(r"\([-+0-9.√π]")
    _EXPONENT = re.compile(r"(?:\^|\*\*)(?=[-+(0-9.])")
    _FACTORIAL = re.compile(r"! ?[-+×*/=÷]")
    _UNIT = re.compile(r" ?(?:%|°(?:[CF](?![A-Za-z]))?)")

    def __init__(self, text: str, start: int = 0, *, formula: bool = False) -> None:
        self.text, self.end, self.formula, self.depth = text, start, formula, 0

    def value(self) -> Number | None:
        """Return the value of the longest arithmetic that begins here; None where there is none, or no value."""
        try:
            return self._sum()
        except (ValueError, OverflowError, ZeroDivisionError, RecursionError):
            return None

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.end)
        if match:
            self.end = match.end()
        return match

    def _sum(self) -> Number:
        value = self._product()
        while match := self._take(self._PLUS):
            other = self._product()
            value = value + other if "+" in match[0] else value - other
        return value

    def _product(self) -> Number:
        value = self._power()
        while True:
            if match := self._take(self._TIMES):
                other = self._power()
                if "/" in match[0] or "÷" in match[0]:
                    exact = isinstance(value, int) and isinstance(other, int) and other and value % other == 0
                    value = value // other if exact else value / other
                else:
                    value = value * other
            elif self._GROUP.match(self.text, self.end) and self._numeric_group():
                value = value * self._power()
            else:
                return value

    def _numeric_group(self) -> bool:
        """Say whether what follows multiplies without a sign: a root, pi, or brackets around numbers ("2(3)")."""
        rest = self.text[self.end :].lstrip()
        return not rest.startswith("(") or (self._NUMERIC_GROUP.match(rest) is not None and self.text[self.end] == "(")

    def _power(self) -> Number:
        value = self._atom()
        if match := self._take(self._EXPONENT):
            exponent = self._atom()
            if abs(exponent) > 400 or (abs(value) > 1e6 and abs(exponent) > 50):
                raise OverflowError(match[0])
            value = value**exponent
            if isinstance(value, complex):
                raise ValueError(match[0])
        if self.text[self.end : self.end + 1] == "!" and (self.formula or self._FACTORIAL.match(self.text, self.end)):
            self.end += 1
            if not isinstance(value, int) or not 0 <= value <= 170:
                raise ValueError("factorial")
            value = math.factorial(value)
        return value

    def _atom(self) -> Number:
        sign = self._take(self._SIGN)
        negative = sign is not None and "-" in sign[1] + sign[3]
        here = self.text[self.end : self.end + 1]
        value: Number
        if here in ("(", "{"):
            self.depth += 1
            if self.depth > 20:
                raise ValueError("depth")
            self.end += 1
            value = self._sum()
            self._take(self._SPACE)
            if self.text[self.end : self.end + 1] not in (")", "}"):
                raise ValueError("bracket")
            self.end += 1
            self.depth -= 1
        elif here == "√":
            self.end += 1
            root = self._atom()
            value = math.isqrt(root) if isinstance(root, int) and math.isqrt(root) ** 2 == root else math.sqrt(root)
        elif here == "π":
            self.end += 1
            value = math.pi
        else:
            literal = self._take(_LITERAL)
            if not literal:
                raise ValueError("number")
            value = _literal(literal[0])
            if mixed := self._take(self._MIXED):
                value = value + int(mixed[1]) / int(mixed[2])
            if magnitude := self._take(self._MAGNITUDE):
                value = value * MAGNITUDES[magnitude[1].lower()]
                value = int(value) if float(value).is_integer() else value
            elif sign is not None and sign[2] and (short := self._take(self._SHORT)):
                value = value * {"k": 10**3, "m": 10**6, "b": 10**9}[short[1].lower()]
        self._take(self._UNIT)
        return -value if negative else value


_FUNCTION = r"\\?(?:log|ln|sin|cos|tan|cot|exp|alpha|beta|theta|phi|lambda|sqrt|frac|sum|int)(?![a-z])"
# A variable, a bracket, a relation or a further part right after a number: the number alone is not the answer.
_BESIDE = re.compile(
    r"(?:[a-ceijknopqrtuvwxyzA-CEIPQRTXYZ](?![A-Za-z0-9])(?!/)|[a-z]\^|\([a-zA-Z]| ?[xyz](?:[\^+\-)\s]*$|\^)| "
    r"?±| ?[-+] ?[a-z](?![a-z])|"
    rf" ?{_FUNCTION}| ?[-+×*/^] ?\(|/[a-z](?![a-z])|:[0-9]|-[0-9]+-[0-9]| ?√|!|\^|log|ln|sin|cos|e\^)"
)
_TIME_OR_DATE = re.compile(r"[0-9]{1,2}:[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[/.][0-9]{1,2}[/.][0-9]{4}")
_MORE = re.compile(
    rf"[^0-9]{{0,12}}?(?:,|;|{word_pattern('or|and|oder|und|ou|et|o|y|to|bis|或|和|と')}|&)\s*{_CURRENCY}?-?[0-9]"
)

_EQUALS = re.compile("[=≈]")
_OR = re.compile(word_pattern("or|and|oder|und|或"))
_RELATION = re.compile("[<>≤≥≠±∞]")
_ABOUT = re.compile(rf"^(?:{word_pattern(ABOUT)}|[~:\s])+", re.IGNORECASE)
_BEGINS = re.compile(rf"[-+]? ?{_CURRENCY}?\s?[-+]?[0-9.(√π{{]")
_ATTACHED = re.compile(r"[a-zA-Z√][\^_(√]?\(?[-]?$|[\^_/]$")
_AFTER_FUNCTION = re.compile(_FUNCTION + r"\W*$")
_ROOT = re.compile(r"√\(?$")
_WORD_BEFORE = re.compile(r"(?<=[ ,.])[a-z]{4,}(?=[ ,.])")
"""No number, nor what belongs to one, goes across such a word."""
_LOOK_BACK = 300
"""Characters before the last digit of a line in which such a word is looked for: a page in one line is not read whole
for its last number."""


def number_at(text: str, start: int, *, formula: bool = False, prose: bool = False) -> tuple[str | None, int]:
    """Return the number that begins at a place of a plain text, in a form that :func:`parse_number` reads.

    Args:
        text: The text.
        start: Where.
        formula: Whether it is mathematical notation, in which ``5!`` is a factorial and not an exclamation.
        prose: Whether it is running text, in which ``5x`` may mean five times.

    Returns:
        The number and where it ends; None for the number where it is only a part of what stands there (``3x``, a time,
        a date).
    """
    expression = Expression(text, start, formula=formula)
    value = expression.value()
    if value is None or not math.isfinite(value) or _TIME_OR_DATE.match(text, start):
        return None, expression.end
    beside = _BESIDE.match(text, expression.end)
    if beside and not (beside[0] == "!" and not formula) and not (prose and beside[0].strip() == "x"):
        return None, expression.end
    said = text[start : expression.end].strip()
    return (said if parse_number(said) == value else repr(value)), expression.end


def number_of(piece: str, *, formula: bool = True) -> str | None:
    """Return the number that a short text states (what stands in a box, after ``####``), None where it is none.

    Of an equation the right side; of ``25 cm^2`` the 25. Several numbers (``5 or 7``), relations (``x > 5``), times
    and dates are no number.
    """
    text = plain(piece).strip().rstrip(".").strip()
    if text.startswith("$") and text.endswith("$"):
        text = text.strip("$ ")
    parts = _EQUALS.split(text)
    if len(parts) > 2 and _OR.search(" ".join(parts[1:-1])):
        return None
    side = parts[-1].strip()
    if _RELATION.search(text):
        return None
    side = _ABOUT.sub("", side)
    if side.lower().strip(" .") in NUMBER_WORDS:
        return str(NUMBER_WORDS[side.lower().strip(" .")])
    if _BEGINS.match(side):
        found, end = number_at(side, 0, formula=formula)
        if found is None or _MORE.match(side, end):
            return None
        return found
    for match in free_numbers(side):
        before = side[: match.start()]
        if _ATTACHED.search(before) or _AFTER_FUNCTION.search(before):
            return None
        found, end = number_at(side, match.start(), formula=formula)
        return None if found is None or _MORE.match(side, end) else found
    return None


def last_number(text: str) -> str | None:
    """Return the last number of a running text; None where it has none, or where its last one is part of a formula."""
    for line in reversed(text.splitlines()):
        if not any(map(str.isdigit, line)):
            continue
        line = plain(line)
        kept = _kept(line, _word_before(line)) or _kept(line, 0)
        if not kept:
            continue
        start = kept[-1]
        if _PARENTHESIZED_MINUS.search(line[:start]):
            start = line.rindex("-", 0, start)
        elif root := _ROOT.search(line[:start]):
            start = root.start()
        found, _ = number_at(line, start, prose=True)
        return found if found is not None else line[start:].strip() or None
    return None


_OWN = re.compile(
    rf"[-+]?{_CURRENCY}?[-+]?{_PLAIN}(?: [0-9]+ ?/ ?[0-9]+(?![0-9])| ?/ ?[0-9]+(?:\.[0-9]+)?| ?[x×*·] "
    rf"?10\^\(?-?[0-9]+\)?| ?√\(?[0-9.]+\)?)?"
)


def _word_before(line: str) -> int:
    """Return where a word begins a little before the last digit of a line; 0 where none does."""
    last = max(map(line.rfind, "0123456789"))
    word = _WORD_BEFORE.search(line, max(0, last - _LOOK_BACK), max(0, last))
    return word.start() if word else 0


def _kept(line: str, start: int) -> list[int]:
    """Return where the numbers of a line begin, from a place on; one that belongs to the one before it (3 1/2,
    3 x 10^8) is none of its own."""
    kept: list[int] = []
    end = 0
    for match in _FREE.finditer(line, start):
        if match.start() >= end:
            kept.append(match.start())
            end = _own_end(line, match.start())
    return kept


def _own_end(line: str, start: int) -> int:
    match = _OWN.match(line, start)
    return match.end() if match else start + 1
