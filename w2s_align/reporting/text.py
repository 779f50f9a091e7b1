"""How numbers and names read for people: the same words in the page, in Markdown and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
ROLE_NAMES = {"student": "untouched student", "treatment": "tuned student", "ceiling": "ceiling (gold labels)"}
SETTING_NAMES = {"greedy": "Greedy decoding", "sampled": "Sampled answers", "standard": "Each task's own decoding"}
BY_NAMES = {"task": "By task", "subject": "By subject", "difficulty": "By difficulty"}


@dataclass(frozen=True)
class Words:
    """Formats the values of one evaluation.

    Attributes:
        unit: ``share`` (shown as percent, differences as points) or ``number``.
    """

    unit: str

    def value(self, x: float | None) -> str:
        """An estimate with its unit, e.g. ``98.6 %``."""
        return DASH if x is None else f"{self.bare(x)} %" if self.unit == "share" else self.bare(x)

    def bare(self, x: float | None) -> str:
        """An estimate without its unit, e.g. ``98.6``; 100 and 0 are only written when they are exact."""
        if x is None:
            return DASH
        if self.unit != "share":
            return f"{x:.3g}".replace("-", MINUS) if abs(x) < 1000 else f"{x:,.0f}".replace("-", MINUS)
        return (
            "100"
            if x == 1
            else "0"
            if x == 0
            else f"{min(99.9, max(0.1, 100 * x)):.1f}"
            if 0 < x < 1
            else f"{100 * x:.1f}"
        )

    def signed(self, x: float | None) -> str:
        """A difference with its sign, in points for shares."""
        if x is None:
            return DASH
        size = f"{abs(100 * x):.1f}" if self.unit == "share" else f"{abs(x):.3g}"
        return size if float(size) == 0 else f"{'+' if x > 0 else MINUS}{size}"

    def interval(self, estimate: dict[str, Any]) -> str:
        """An interval, e.g. ``97.6 to 99.2``."""
        if estimate["low"] is None:
            return DASH
        return f"{self.bare(estimate['low'])} to {self.bare(estimate['high'])}"

    def signed_interval(self, estimate: dict[str, Any]) -> str:
        """An interval of a difference."""
        if estimate["low"] is None:
            return DASH
        return f"{self.signed(estimate['low'])} to {self.signed(estimate['high'])}"


def percent(x: float | None) -> str:
    """A share as percent; an exact 0 stays 0."""
    if x is None:
        return DASH
    return f"{100 * x:.0f} %" if x in (0, 1) or 0.0995 <= x <= 0.9 else f"{100 * x:.1f} %"


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


def setting_name(setting: str) -> str:
    """A sampling setting in words."""
    return SETTING_NAMES.get(setting, setting)


def direction_class(comparison: dict[str, Any]) -> str:
    """``up`` or ``down`` where the adjusted test finds a difference, else nothing."""
    p, d = comparison["p_holm"], comparison["difference"]["value"]
    return "" if p is None or p >= 0.05 or not d else "up" if d > 0 else "down"


def part_details(arm: dict[str, Any], words: Words) -> str:
    """What belongs to one number of a breakdown: difference, test, lengths, what is missing."""
    said = [words.value(arm["estimate"]["value"])]
    if arm["difference"] is not None:
        change, span = words.signed(arm["difference"]["value"]), words.signed_interval(arm["difference"])
        said.append(f"against untouched {change} ({span}), adjusted p {p_value(arm['p_holm'])}")
        said.append(f"detectable {words.bare(arm['mde'])}")
    if arm["mean_tokens"] is not None:
        said.append(f"{arm['mean_tokens']:.0f} tokens, {percent(arm['truncated_share'])} cut off")
    said.append(f"{percent(arm['no_answer_share'])} without an answer, {arm['unscored']:,} unscored")
    return "; ".join(said)


def unbroken(text: str) -> str:
    """Text whose numbers stay on one line with their unit, and ``p`` with its value."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=p [<=]) (?=\d)", "\N{NO-BREAK SPACE}", text)


def markdown_cell(text: Any) -> str:
    """Text that cannot break out of a Markdown table cell or bring markup and links with it."""
    plain = re.sub(r"\s+", " ", str(text))
    return re.sub(r"([\\`*_\[\]<>|#~!])", r"\\\1", plain)


def fenced(text: str, language: str = "") -> str:
    """Text as a Markdown block of code, in a fence longer than any within it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def filters(words: Words) -> dict[str, Callable[..., str]]:
    """All of these by the name that the page's template uses."""
    return {
        "value": words.value,
        "bare": words.bare,
        "signed": words.signed,
        "percent": percent,
        "p": p_value,
        "duration": duration,
        "role_name": role_name,
        "setting_name": setting_name,
        "by_name": lambda by: BY_NAMES[by],
        "part_details": lambda arm: part_details(arm, words),
        "direction_class": direction_class,
        "unbroken": unbroken,
    }
