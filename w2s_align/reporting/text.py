"""How numbers and names read for people: the same words in the pages, in Markdown and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.conclusion import ALPHA

if TYPE_CHECKING:
    from w2s_align.evaluation.results import Estimate, PartArm

DASH = "\N{EN DASH}"
"""Shown where there is no value: an empty cell would look like a mistake."""
MINUS = "\N{MINUS SIGN}"
"""A hyphen is too short beside a plus sign, and a line may break after it."""
ROLE_NAMES = {"student": "untouched student", "treatment": "tuned student", "ceiling": "ceiling (gold labels)"}
"""Roles whose name alone does not say what the arm is; the others are shown as they are."""
SETTING_NAMES = {
    "greedy": "Greedy decoding",
    "sampled": "Sampled answers",
    "standard": "Each task's own decoding",
    "labels": "Labels",
    "order": "Order of the pairs",
}
"""Names of the usual sampling settings; a setting that a user named keeps its name."""
BY_NAMES = {"task": "By task", "subject": "By subject", "difficulty": "By difficulty"}
"""Headings of the breakdowns."""


@dataclass(frozen=True)
class Words:
    """Formats the values of one evaluation.

    Attributes:
        unit: ``share`` (shown as percent, differences as points) or ``number``.
    """

    unit: str

    def value(self, x: float | None) -> str:
        """An estimate with its unit, e.g. ``98.6%``."""
        return DASH if x is None else f"{self.bare(x)}%" if self.unit == "share" else self.bare(x)

    def bare(self, x: float | None) -> str:
        """An estimate without its unit, e.g. ``98.6``; 100 and 0 are only written when they are exact."""
        if x is None:
            return DASH
        if self.unit != "share":
            return (f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}").replace("-", MINUS)
        if x in (0, 1):
            return f"{100 * x:.0f}"
        return f"{min(99.9, max(0.1, 100 * x)):.1f}" if 0 < x < 1 else f"{100 * x:.1f}"

    def signed(self, x: float | None) -> str:
        """A difference with its sign, in points for shares."""
        if x is None:
            return DASH
        size = f"{abs(100 * x):.1f}" if self.unit == "share" else f"{abs(x):.3g}"
        return size if float(size) == 0 else f"{'+' if x > 0 else MINUS}{size}"

    def interval(self, low: float | None, high: float | None) -> str:
        """An interval, e.g. ``97.6 to 99.2``."""
        return DASH if low is None else f"{self.bare(low)} to {self.bare(high)}"

    def signed_interval(self, low: float | None, high: float | None) -> str:
        """An interval of a difference, e.g. ``+75.1 to +84.2``."""
        return DASH if low is None else f"{self.signed(low)} to {self.signed(high)}"


def number(value: float | None, signed: bool = False) -> str:
    """Return a number for people: three digits that count, thousands with commas, a real minus."""
    if value is None:
        return DASH
    text = f"{value:+,.3g}" if signed else f"{value:,.3g}"
    if abs(value) >= 1000:
        text = f"{value:+,.0f}" if signed else f"{value:,.0f}"
    return text.replace("-", MINUS)


def percent(x: float | None) -> str:
    """A share as percent, e.g. ``83%``; an exact 0 stays 0, and near the ends a decimal is kept."""
    if x is None:
        return DASH
    return f"{100 * x:.0f}%" if x in (0, 1) or 0.0995 <= x <= 0.9 else f"{100 * x:.1f}%"


def p_value(p: float | None) -> str:
    """A p-value; below 0.001 only the bound is written."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float | None) -> str:
    """A time: seconds, minutes or hours."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def role_name(role: str) -> str:
    """Part of an arm in words."""
    return ROLE_NAMES.get(role, role)


def length_name(unit: str) -> str:
    """What lengths count, in words: ``chars`` is a name of a column."""
    return "characters" if unit == "chars" else unit


def setting_name(setting: str) -> str:
    """A sampling setting in words."""
    return SETTING_NAMES.get(setting, setting)


def direction_class(p_holm: float | None, difference: Estimate | None) -> str:
    """CSS class: ``up`` or ``down`` where the adjusted test finds a difference, else nothing."""
    value = None if difference is None else difference.value
    return "" if p_holm is None or p_holm >= ALPHA or not value else "up" if value > 0 else "down"


def part_details(arm: PartArm, words: Words) -> str:
    """What belongs to one number of a breakdown: difference, test, lengths, what is missing."""
    said = [words.value(arm.estimate.value)]
    if (d := arm.difference) is not None:
        change, span = words.signed(d.value), words.signed_interval(d.low, d.high)
        said.append(f"against untouched {change} ({span}), adjusted p {p_value(arm.p_holm)}")
        said.append(f"detectable {words.bare(arm.mde)}")
    if arm.mean_tokens is not None:
        said.append(f"{arm.mean_tokens:.0f} tokens, {percent(arm.truncated_share)} cut off")
    said.append(f"{percent(arm.no_answer_share)} without an answer, {arm.unscored:,} unscored")
    return "; ".join(said)


def unbroken(text: str) -> str:
    """Text in which ``p`` stays on one line with its value, also in sentences of older artifacts: ``83 %``."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=p [<=]) (?=\d)", "\N{NO-BREAK SPACE}", text)


def markdown_cell(text: Any) -> str:
    """Text that cannot break out of a Markdown table cell or bring markup and links with it."""
    plain = re.sub(r"\s+", " ", str(text))
    return re.sub(r"([\\`*_\[\]<>|#~!])", r"\\\1", plain)


def fenced(text: str, language: str = "") -> str:
    """Text as a Markdown block of code, in a fence longer than any within it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table with an empty line behind it; every cell is escaped."""
    body = ["| " + " | ".join(markdown_cell(text) for text in row) + " |" for row in rows]
    return ["| " + " | ".join(map(markdown_cell, header)) + " |", "|" + " --- |" * len(header), *body, ""]
