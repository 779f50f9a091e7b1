"""What a label model found of weak scorers, as a page and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.text import DASH, Words
from w2s_align.scoring.panel import Panel, ScorerQuality

if TYPE_CHECKING:
    from rich.table import Table as RichTable

SHARE = Words("share")
"""Everything here is a share."""
SOURCES = {
    "given": "as the recipe says",
    "labels": "from {labels:,} labels",
    "third moments": "from how the scorers agree, without labels",
}
"""Where the share of right responses comes from."""
HOW = (
    "A scorer's true positive rate is how often it says yes to a right response, its true negative rate how often it "
    "says no to a wrong one. Both follow from how scorers agree, under the assumptions that scorers err independently "
    "of each other and that most are better than chance. Intervals are of 95%, by a jackknife over prompts."
)
"""Explains the table of scorers."""


def panel_article(title: str, panel: Panel) -> Article:
    """Return the page of a label model.

    Args:
        title: Name of the step.
        panel: What was found.
    """
    kept = [one for one in panel.scorers if one.left_out is None]
    best = max(kept, key=_quality)
    alike = ""
    if panel.most_alike is not None:
        first, second, correlation = panel.most_alike
        alike = f" The most alike are {first} and {second} (correlation of their votes {correlation:.2f})."
    lede = (
        f"{prior_words(panel)} The best of the scorers is {best.scorer}.{alike} On "
        f"{SHARE.value(panel.agrees_with_mean)} of the responses the result is on the same side as the mean score."
    )
    return Article(
        title,
        f"{len(kept)} of {len(panel.scorers)} scorers as one probability",
        lede,
        [Section("Scorers", [HOW], (), [Table(_HEADER, _rows(panel))])],
        panel.to_json(),
        caveats=panel.warnings,
    )


def prior_words(panel: Panel) -> str:
    """Return the share of right responses and where it comes from, as a sentence."""
    value, low, high = panel.prior
    interval = "" if low is None else f" ({SHARE.interval(low, high)})"
    return (
        f"Right responses: {SHARE.value(value)}{interval}, {SOURCES[panel.prior_source].format(labels=panel.labels)}."
    )


def panel_table(values: Mapping[str, Any]) -> RichTable:
    """Return what a label model found for the terminal.

    Args:
        values: :class:`Panel` as plain values.
    """
    from rich import box
    from rich.table import Table as Rich
    from rich.text import Text

    panel = Panel.from_json(values)
    table = Rich(box=box.SIMPLE_HEAD, title=Text(prior_words(panel)), title_justify="left", pad_edge=False)
    for i, name in enumerate(_HEADER):
        table.add_column(name, justify="right" if 0 < i < 5 else "left", overflow="fold")
    for row in _rows(panel):
        table.add_row(*map(Text, row))
    return table


_HEADER = ["scorer", "scored", "yes", "true positives", "true negatives", "left out because"]


def _rows(panel: Panel) -> list[list[str]]:
    return [
        [
            one.scorer,
            SHARE.value(one.scored),
            SHARE.value(one.yes),
            _rate(one.true_positive),
            _rate(one.true_negative),
            one.left_out or "",
        ]
        for one in panel.scorers
    ]


def _rate(rate: tuple[float, float | None, float | None] | None) -> str:
    if rate is None:
        return DASH
    value, low, high = rate
    return SHARE.value(value) + ("" if low is None else f" ({SHARE.interval(low, high)})")


def _quality(one: ScorerQuality) -> float:
    return sum(rate[0] for rate in (one.true_positive, one.true_negative) if rate is not None)
