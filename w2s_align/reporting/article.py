"""A page of text, tables and plots: comparisons of runs, sweeps, theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from w2s_align.reporting.figure import Plot
from w2s_align.reporting.page import render, write_page
from w2s_align.reporting.text import fenced, markdown_table
from w2s_align.reporting.text import markdown_cell as cell


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row.

    Attributes:
        header: Column titles.
        rows: Cells as texts.
        title: Line above it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A part of an article: paragraphs, then plots, then tables, then a text to copy.

    Attributes:
        title: Heading.
        text: Paragraphs.
        plots: Drawings.
        tables: Tables.
        code: Preformatted text, e.g. a recipe.
    """

    title: str
    text: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    code: str = ""


@dataclass(frozen=True)
class Article:
    """Everything on the page.

    Attributes:
        title: What it is about.
        headline: What was found, in a few words.
        lede: What was found, in one to three sentences.
        sections: Its parts.
        numbers: The same as plain values, for the JSON twin.
        status: ``improved`` colors the headline as good, ``worse`` as bad, ``plain`` not at all.
        caveats: What a reader must know.
    """

    title: str
    headline: str
    lede: str
    sections: Sequence[Section]
    numbers: dict[str, Any] = field(default_factory=dict)
    status: Literal["improved", "worse", "plain"] = "plain"
    caveats: Sequence[str] = ()

    @property
    def plots(self) -> list[Plot]:
        """All drawings in the order of the page."""
        return [plot for section in self.sections for plot in section.plots]


def write_article(article: Article, out: Path) -> list[Path]:
    """Write report.html, report.md, report.json and plots/.

    Args:
        article: What to show.
        out: Folder; made if it is not there.

    Returns:
        The files, the page first.
    """
    numbers = {"title": article.title, "headline": article.headline, "text": article.lede, **article.numbers}
    parts = [(f"part-{i}", section.title) for i, section in enumerate(article.sections, 1)]
    html = render("article.html.j2", a=article, status=article.status, caveats=article.caveats, parts=parts)
    return write_page(out, html, _markdown(article), numbers, article.plots)


def _markdown(article: Article) -> str:
    lines = [f"# {cell(article.title)}", "", f"**{cell(article.headline)}** {cell(article.lede)}", ""]
    if article.caveats:
        lines += [*(f"- {cell(caveat)}" for caveat in article.caveats), ""]
    for section in article.sections:
        lines += [f"## {cell(section.title)}", ""]
        for paragraph in section.text:
            lines += [cell(paragraph), ""]
        for plot in section.plots:
            lines += [f"![{cell(plot.title)}](plots/{plot.name}.png)", ""]
        for table in section.tables:
            if table.title:
                lines += [f"**{cell(table.title)}**", ""]
            lines += markdown_table(table.header, table.rows)
        if section.code:
            lines += [fenced(section.code), ""]
    return "\n".join(lines)
