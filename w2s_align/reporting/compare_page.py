"""The page and the terminal table of `w2s compare`: options that differ, results, and for several runs a plot.

Reads a RunComparison and the options that differ; makes an Article and a rich table.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.conclusion import ALPHA
from w2s_align.evaluation.run_comparison import Cell, Row, RunComparison
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.figure import Plot
from w2s_align.reporting.lines import Line, Panel, Tone, lines_plot
from w2s_align.reporting.text import DASH, Words, p_value, role_name, setting_name

if TYPE_CHECKING:
    from rich.console import Group

MOST_LINES = 6
"""Arms drawn in one panel: with more their intervals cover each other; the table has all of them."""
MOST_PANELS = 3
"""Settings drawn side by side: with more the panels are narrower than their titles."""
LOG_RATIO = 20
"""Largest over smallest value from which an axis is logarithmic: swept values are usually powers of ten."""
PLOT_NOTE = "Intervals are over problems; the dotted line is the untouched student."
"""Said above every plot of values."""
TONES: tuple[Tone, ...] = ("accent", "ink", "warn", "soft")
"""Tones of the lines, in their order; they repeat."""


def compare_article(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> Article:
    """Return the page of a comparison.

    Args:
        found: The studies side by side.
        options: Options that differ, by path, with the value in each study.
    """
    same = [] if options else ["None: the recipes are the same but for their names and resources."]
    sections = [Section("Options that differ", same, tables=_option_tables(found, options))]
    plot = sweep_plot(found, options)
    if plot is not None:
        sections.append(Section("Results by value", [PLOT_NOTE], [plot]))
    note = (
        f"Differences are against {found.names[0]}, problem by problem on the same problems; p is adjusted over all "
        "of them (Holm). “Detectable” is the true difference that would be found in 80 of 100 studies."
    )
    tables = [_numbers_table(found, setting) for setting in settings_of(found)]
    sections.append(Section("Results", [note], tables=tables))
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
    shown = [*_option_tables(found, options), *(_numbers_table(found, s) for s in settings_of(found))]
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
    told_apart = any(other is not None and other.p_holm is not None and other.p_holm < ALPHA for other in row.cells)
    return (
        f"{named}, where {row.arm} ({setting_name(row.setting).lower()}) has {words.value(cell.value)} "
        f"(95% interval {words.bare(cell.low)} to {words.bare(cell.high)}). "
        + ("" if told_apart else f"No difference from {found.names[0]} was found. ")
        + f"It was chosen among {len(found.names)} on the same problems: evaluate it on others before you report it."
    )


def sweep_plot(found: RunComparison, options: Mapping[str, Sequence[Any]]) -> Plot | None:
    """Draw every arm over the one value that differs, or over the runs where several do; None for two runs."""
    if len(found.names) < 3:
        return None
    path, values = next(iter(options.items())) if len(options) == 1 else ("run", list(found.names))
    numeric = all(map(is_number, values))
    order = sorted(range(len(values)), key=lambda i: values[i]) if numeric else list(range(len(values)))
    x = [float(values[i]) for i in order] if numeric else list(map(float, order))
    ticks = list(zip(x, [f"{values[i]:g}" if numeric else str(values[i]) for i in order], strict=True))
    panels = []
    for setting in settings_of(found)[:MOST_PANELS]:
        rows = [row for row in found.rows if row.setting == setting and row.role != "student"]
        moving = [row for row in rows if moves(row)] or rows
        moving.sort(key=lambda row: row.role != "treatment")
        tones = itertools.cycle(TONES)
        lines = [cells_line(row.arm, x, [row.cells[i] for i in order], next(tones), found.unit) for row in moving]
        panels.append(
            Panel(
                f"{setting_name(setting)}{unit_title(found.unit)}",
                lines[:MOST_LINES],
                path,
                log_x=numeric and is_log(x),
                level=student_level(found, setting),
                ticks=ticks,
            )
        )
    return lines_plot("sweep", f"Every arm over {path}", panels)


def cells_line(label: str, x: Sequence[float], cells: Sequence[Cell | None], tone: Tone, unit: str) -> Line:
    """Return the values of an arm with their intervals as a line, shares in percent."""
    scale = 100 if unit == "share" else 1
    y, low, high = (
        [None if cell is None or (v := getattr(cell, name)) is None else scale * v for cell in cells]
        for name in ("value", "low", "high")
    )
    return Line(label, x, y, tone, low=low, high=high)


def student_level(found: RunComparison, setting: str) -> float | None:
    """Return where the untouched student of the first study stands, shares in percent."""
    student = next((row for row in found.rows if row.role == "student" and row.setting == setting), None)
    cell = student.cells[0] if student else None
    value = cell.value if cell else None
    return None if value is None else value * (100 if found.unit == "share" else 1)


def unit_title(unit: str) -> str:
    """Return what follows the title of a panel."""
    return ", %" if unit == "share" else ""


def is_number(value: Any) -> bool:
    """Say whether an option's value has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_log(values: Sequence[float]) -> bool:
    """Say whether values are spread so far that their axis is logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= LOG_RATIO


def moves(row: Row) -> bool:
    """Say whether an arm differs between the studies."""
    return len({cell.value for cell in row.cells if cell is not None}) > 1


def settings_of(found: RunComparison) -> list[str]:
    """Return the sampling settings of the studies, in their order."""
    return list(dict.fromkeys(row.setting for row in found.rows))


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
    interval = words.interval(cell.low, cell.high)
    if several:
        if i == 0 or cell.difference is None:
            return [f"{value} ({interval})"]
        change = "same scores" if cell.same else f"{words.signed(cell.difference)}, p {p_value(cell.p_holm)}"
        return [f"{value} ({change})"]
    own = f"{value} ({interval})"
    if i == 0:
        return [own]
    if cell.same:
        return [own, "same scores", DASH, DASH, DASH]
    span = words.signed_interval(cell.difference_low, cell.difference_high)
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
    sure = [(row, i, cell) for row, i, cell in tested if cell.p_holm is not None and cell.p_holm < ALPHA]
    changed = f"{len(options)} option{'s' if len(options) != 1 else ''} differ{'s' if len(options) == 1 else ''}."
    if not tested:
        return "No difference to test.", f"{changed} Every arm has the same scores on the same problems."
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
