"""The page of ways to choose one of several responses, and their table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from w2s_align.evaluation.conclusion import Verdict
from w2s_align.evaluation.results import Results
from w2s_align.reporting.arm_plots import arms_plot
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.panel_page import panel_article
from w2s_align.reporting.text import DASH, Words, p_value
from w2s_align.scoring.panel import Panel

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HOW = (
    "Every way chooses one response to each problem, the one with its highest score; of equal ones any. one_response "
    "is what a response is worth before anything chooses; oracle is right where any response is. The gap recovered is "
    "the share of the distance between the two that a way closes. Intervals are of 95%, over the problems; p-values "
    "are adjusted for all comparisons."
)
"""Explains the table of ways."""


def choice_article(
    title: str, results: Results, verdict: Verdict, panels: Sequence[tuple[str, Panel]] = (), recipe: str = ""
) -> Article:
    """Return the page of a comparison of ways to choose.

    Args:
        title: Name of the study.
        results: What was found.
        verdict: What it comes to.
        panels: What label models among the ways say of their scorers, by the names of their steps.
        recipe: Text to show at the end.
    """
    header, rows = _rows(results)
    sections = [Section("Ways to choose", [HOW], [arms_plot(results)], [Table(header, rows)])]
    for name, panel in panels:
        article = panel_article(name, panel)
        (scorers,) = article.sections
        sections.append(Section(f"Scorers in {name}", [article.lede, *scorers.text], (), scorers.tables))
    if recipe:
        sections.append(Section("Recipe", code=recipe))
    numbers = {"results": results.model_dump(mode="json"), "verdict": verdict.to_dict()}
    numbers["panels"] = {name: panel.to_json() for name, panel in panels}
    caveats = [*verdict.caveats, *(f"{name}: {text}" for name, panel in panels for text in panel.warnings)]
    status: Literal["improved", "worse", "plain"] = "plain"
    if verdict.status == "improved" or verdict.status == "worse":
        status = verdict.status
    return Article(title, verdict.headline, verdict.sentence, sections, numbers, status, caveats)


def choice_table(results: Results) -> RichTable:
    """Return the ways to choose for the terminal."""
    from rich import box
    from rich.table import Table as Rich
    from rich.text import Text

    header, rows = _rows(results)
    table = Rich(
        box=box.SIMPLE_HEAD, title=Text(results.settings[0].capitalize()), title_justify="left", pad_edge=False
    )
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of ways."""
    words, setting = Words(results.unit), results.settings[0]
    recovered = {gap.arm: gap.estimate for gap in results.gaps if gap.measure == "RGR"}
    header = ["chosen by", "right", "95%", f"against {results.baseline}", "p", "gap recovered"]
    rows = []
    for arm in results.arms:
        found = arm.settings[setting].estimate
        c = results.comparison(setting, arm.name, results.baseline)
        gap = recovered.get(arm.name)
        rows.append(
            [
                arm.name,
                words.value(found.value),
                words.interval(found.low, found.high),
                words.signed(c.difference.value) if c else DASH,
                p_value(c.p_holm) if c else DASH,
                Words("share").value(gap.value) if gap else DASH,
            ]
        )
    return header, rows
