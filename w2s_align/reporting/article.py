"""A page of text, tables and plots in the style of the report: comparisons of runs, sweeps, theory.

Reads an Article; writes one HTML file that opens without a network, its Markdown and JSON twins, and every plot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from w2s_align.reporting.page import template
from w2s_align.reporting.plots import Plot
from w2s_align.reporting.text import fenced, unbroken
from w2s_align.reporting.text import markdown_cell as cell
from w2s_align.reporting.write import replace_file, without_nan


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
        status: ``improved`` colours the headline as good, ``worse`` as bad, ``plain`` not at all.
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


def write_article(article: Article, out: Path, name: str = "report") -> list[Path]:
    """Write ``<name>.html``, ``<name>.md``, ``<name>.json`` and ``plots/``.

    Args:
        article: What to show.
        out: Folder; made if it is not there.
        name: File name of the page without ending.

    Returns:
        The files, the page first.
    """
    folder = out / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    for plot in article.plots:
        plot.save(folder)
    numbers = {"title": article.title, "headline": article.headline, "text": article.lede, **article.numbers}
    texts = {
        f"{name}.html": _page(article),
        f"{name}.md": _markdown(article),
        f"{name}.json": json.dumps(without_nan(numbers), ensure_ascii=False, indent=1, allow_nan=False),
    }
    for file, text in texts.items():
        replace_file(out / file, text)
    drawn = [folder / f"{plot.name}.{ending}" for plot in article.plots for ending in ("svg", "png")]
    return [*(out / file for file in texts), *drawn]


def _page(article: Article) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["unbroken"] = unbroken
    return environment.from_string(template("article.html.j2")).render(a=article, style=template("page.css"))


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
            lines += ["| " + " | ".join(cell(text) for text in table.header) + " |"]
            lines += ["|" + " --- |" * len(table.header)]
            lines += ["| " + " | ".join(cell(text) for text in row) + " |" for row in table.rows]
            lines += [""]
        if section.code:
            lines += [fenced(section.code), ""]
    return "\n".join(lines)
