"""The page and the terminal table of `w2s compare`: what differed, what that did, and for several runs a plot over it.

Reads a RunComparison and the options that differ; makes an Article and a rich table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.run_comparison import Cell, Row, RunComparison
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.lines import Line, Panel, Tone, lines_plot
from w2s_align.reporting.plots import Plot
from w2s_align.reporting.text import DASH, Words, p_value, role_name, setting_name

if TYPE_CHECKING:
    from rich.console import Group

MOST_LINES = 6
"""Arms drawn in one panel; the table has all of them."""


def compare_article(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> Article:
    """Return the page of a comparison.

    Args:
        found: The studies side by side.
        options: Options that differ, by path, with the value in each study.
    """
    sections = [Section("What differed", _option_text(options), tables=_option_tables(found, options))]
    plot = sweep_plot(found, options)
    if plot is not None:
        sections.append(
            Section(
                "Over the values", ["Intervals are over problems; the dotted line is the untouched student."], [plot]
            )
        )
    notes = [
        f"Differences are against {found.names[0]}, problem by problem on the same problems; p is adjusted over all "
        f"of "
        "them (Holm). “Detectable” is the true difference that would be found in 80 of 100 studies."
    ]
    tables = [_numbers_table(found, setting) for setting in _settings(found)]
    sections.append(Section("What that did", notes, tables=tables))
    headline, lede = _conclusion(found, options)
    numbers = {**found.to_json(), "options": {path: [_text(v) for v in values] for path, values in options.items()}}
    return Article(" against ".join(found.names[:3]), headline, lede, sections, numbers, caveats=found.caveats)


def compare_tables(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> Group:
    """Return the comparison for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    headline, lede = _conclusion(found, options)
    parts: list[Any] = [Text(f"\n{headline} {lede}\n", style="bold")]
    shown = [*_option_tables(found, options), *(_numbers_table(found, s) for s in _settings(found))]
    for table in shown:
        made = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left", pad_edge=False)
        shown_columns = [i for i, name in enumerate(table.header) if name != "role"]
        for i in shown_columns:
            made.add_column(Text(table.header[i]), justify="right" if i else "left")
        for row in table.rows:
            made.add_row(*(Text(row[i]) for i in shown_columns))
        parts.append(made)
    parts += [Text(f"Note: {caveat}", style="yellow") for caveat in found.caveats]
    return Group(*parts)


def best_sentence(found: RunComparison, best: tuple[Row, int]) -> str:
    """Return the best point of a sweep in words, with its interval and what a choice by the same numbers costs."""
    row, i = best
    cell = row.cells[i]
    assert cell is not None
    words = Words(found.unit)
    alike = [name for name, other in zip(found.names, row.cells, strict=True) if other and other.value == cell.value]
    named = "All points are alike" if len(alike) == len(found.names) else f"Best: {' and '.join(alike)}"
    told_apart = any(other is not None and other.p_holm is not None and other.p_holm < 0.05 for other in row.cells)
    return (
        f"{named}, where {row.arm} ({setting_name(row.setting).lower()}) has {words.value(cell.value)} "
        f"(95 % interval {words.bare(cell.low)} to {words.bare(cell.high)}). "
        + ("" if told_apart else f"No difference from {found.names[0]} was found. ")
        + f"It was chosen among {len(found.names)} on these very problems: measure it on others before you report it."
    )


def sweep_plot(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> Plot | None:
    """Draw every arm over the one value that differs, or over the runs where several do; None for two runs."""
    if len(found.names) < 3:
        return None
    path, values = next(iter(options.items())) if len(options) == 1 else ("run", list(found.names))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    order = sorted(range(len(values)), key=lambda i: values[i]) if numeric else list(range(len(values)))
    x = [float(values[i]) for i in order] if numeric else list(map(float, order))
    log = numeric and min(x) > 0 and max(x) / min(x) >= 20
    scale = 100 if found.unit == "share" else 1
    panels = []
    for setting in _settings(found)[:3]:
        rows = [row for row in found.rows if row.setting == setting]
        baseline = next((row for row in rows if row.role == "student"), None)
        constant = baseline.cells[0].value if baseline is not None and baseline.cells[0] is not None else None
        moving = [row for row in rows if row is not baseline and moves(row)] or [r for r in rows if r is not baseline]
        moving.sort(key=lambda row: row.role != "treatment")
        tones: list[Tone] = ["accent", "ink", "warn", "soft"] * 2
        lines = [
            Line(
                row.arm,
                x,
                [_scaled(row.cells[i], "value", scale) for i in order],
                tone,
                low=[_scaled(row.cells[i], "low", scale) for i in order],
                high=[_scaled(row.cells[i], "high", scale) for i in order],
            )
            for tone, row in zip(tones, moving[:MOST_LINES], strict=False)
        ]
        ticks = list(zip(x, [f"{values[i]:g}" if numeric else str(values[i]) for i in order], strict=True))
        unit = ", %" if found.unit == "share" else ""
        level = None if constant is None else scale * constant
        panels.append(Panel(f"{setting_name(setting)}{unit}", lines, path, log_x=log, level=level, ticks=ticks))
    return lines_plot("sweep", f"Every arm over {path}", panels)


def moves(row: Row) -> bool:
    """Say whether an arm differs between the studies."""
    return len({cell.value for cell in row.cells if cell is not None}) > 1


def _scaled(cell: Cell | None, name: str, scale: float) -> float | None:
    value = None if cell is None else getattr(cell, name)
    return None if value is None else scale * float(value)


def _settings(found: RunComparison) -> list[str]:
    return list(dict.fromkeys(row.setting for row in found.rows))


def _option_text(options: Mapping[str, Sequence[Any]]) -> list[str]:
    return [] if options else ["Nothing: the recipes are the same but for their names and resources."]


def _option_tables(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> list[Table]:
    rows = [[path, *(_text(value) for value in values)] for path, values in options.items()]
    return [Table(["option", *found.names], rows)] if rows else []


def _text(value: Any) -> str:
    text = DASH if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _numbers_table(found: RunComparison, setting: str) -> Table:
    words = Words(found.unit)
    several = len(found.names) > 2
    header = ["arm", "role"] + [name for i, name in enumerate(found.names) for name in _columns(i, name, several)]
    rows = []
    for row in found.rows:
        if row.setting == setting:
            cells = [text for i, cell in enumerate(row.cells) for text in _cells(i, cell, words, several)]
            rows.append([row.arm, role_name(row.role), *cells])
    return Table(header, rows, setting_name(setting))


def _columns(i: int, name: str, several: bool) -> list[str]:
    if several:
        return [name]
    return [name] if i == 0 else [name, "difference", "interval", "p", "detectable"]


def _cells(i: int, cell: Cell | None, words: Words, several: bool) -> list[str]:
    if cell is None:
        return [DASH] * len(_columns(i, "", several))
    value = words.value(cell.value)
    interval = words.interval({"low": cell.low, "high": cell.high})
    if several:
        if i == 0 or cell.difference is None:
            return [f"{value} ({interval})"]
        change = "same verdicts" if cell.same else f"{words.signed(cell.difference)}, p {p_value(cell.p_holm)}"
        return [f"{value} ({change})"]
    own = f"{value} ({interval})"
    if i == 0:
        return [own]
    if cell.same:
        return [own, "same verdicts", DASH, DASH, DASH]
    span = words.signed_interval({"low": cell.difference_low, "high": cell.difference_high})
    return [own, words.signed(cell.difference), span, p_value(cell.p_holm), words.bare(cell.mde)]


def _conclusion(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> tuple[str, str]:
    words = Words(found.unit)
    points = " points" if found.unit == "share" else ""
    tested = [
        (row, i, cell)
        for row in found.rows
        for i, cell in enumerate(row.cells)
        if i and cell is not None and cell.difference is not None and not cell.same
    ]
    sure = [(row, i, cell) for row, i, cell in tested if cell.p_holm is not None and cell.p_holm < 0.05]
    changed = f"{len(options)} option{'s' if len(options) != 1 else ''} differ{'s' if len(options) == 1 else ''}."
    if not tested:
        return "Nothing to tell apart.", f"{changed} Every arm has the same verdicts on the same problems."
    if not sure:
        least = max((cell.mde for _, _, cell in tested if cell.mde is not None), default=None)
        rest = "" if least is None else f" True differences below {words.bare(least)}{points} would often be missed."
        return "No difference was found.", f"{changed}{rest}"
    row, i, cell = max(sure, key=lambda entry: (entry[0].role == "treatment", abs(entry[2].difference or 0.0)))
    what = (
        f"{row.arm} ({setting_name(row.setting).lower()}) differs by {words.signed(cell.difference)}{points} in "
        f"{found.names[i]} against {found.names[0]} (p {p_value(cell.p_holm)})."
    )
    count = f"{len(sure)} of {len(tested)} comparisons differ."
    return count, f"{changed} {what}"
