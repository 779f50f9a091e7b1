"""The page and the terminal table of `w2s sweep`: a row for each point, a plot over the values, and the best point.

Reads a RunComparison of the points and their swept values; makes an Article and a rich table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.run_comparison import Cell, Row, RunComparison, best_cell
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.compare_page import (
    MOST_PANELS,
    PLOT_NOTE,
    TONES,
    best_sentence,
    cells_line,
    is_log,
    is_number,
    moves,
    settings_of,
    student_level,
    sweep_plot,
    unit_title,
)
from w2s_align.reporting.figure import Plot
from w2s_align.reporting.lines import Panel, lines_plot
from w2s_align.reporting.text import DASH, Words, p_value, setting_name

if TYPE_CHECKING:
    from rich.console import Group

Values = Mapping[str, Sequence[Any]]
"""Swept options by path, with the value at each point."""
MOST_GROUPS = 2 * len(TONES)
"""Lines of a plot: beyond two of each tone they cannot be told apart."""


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the last part of each path, or the whole of it where two end alike: ``weak.seed``, ``weaker.seed``."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def sweep_article(found: RunComparison, values: Values, failed: Sequence[Mapping[str, Any]]) -> Article:
    """Return the page of a sweep.

    Args:
        found: The finished points side by side.
        values: Swept options, with the value at each finished point.
        failed: The values of every point that failed.
    """
    best = best_cell(found)
    headline, lede = "No treatment to compare.", ""
    if best is not None:
        headline, _, lede = best_sentence(found, best).partition(", where ")
        headline, lede = f"{headline}.", f"There {lede}"
    plot = sweep_plot(found, values) if len(values) == 1 else _grid_plot(found, values)
    tables = [_points(found, values, failed, setting) for setting in settings_of(found)]
    against = [_differences(found, setting) for setting in settings_of(found)]
    notes = ["Means with 95% intervals over problems; the best point is marked with *.", *_constant(found)]
    tested = "Problem by problem; p is adjusted over all points and arms of a setting (Holm)."
    sections = [
        Section("Points", notes, tables=tables),
        Section(f"Against {found.names[0]}", [tested], tables=against),
    ]
    if plot is not None:
        sections.insert(0, Section("Results by value", [PLOT_NOTE], [plot]))
    numbers = {**found.to_json(), "values": {path: list(v) for path, v in values.items()}, "failed": [*failed]}
    names = ", ".join(values)
    return Article(f"Sweep of {names}", headline, lede, sections, numbers, caveats=found.caveats)


def sweep_table(found: RunComparison, values: Values, failed: Sequence[Mapping[str, Any]]) -> Group:
    """Return the points of a sweep for the terminal, those that failed included; the best is marked with *."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[Any] = []
    for setting in settings_of(found):
        table = _points(found, values, failed, setting)
        made = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left", pad_edge=False)
        for name in table.header:
            made.add_column(Text(name), justify="right", no_wrap=True)
        for row in table.rows:
            made.add_row(*map(Text, row), style="bold" if row[0].startswith("*") else None)
        parts.append(made)
    parts += [Text(text, style="dim") for text in _constant(found)]
    return Group(*parts, *(Text(f"Note: {caveat}", style="yellow") for caveat in found.caveats))


def _points(found: RunComparison, values: Values, failed: Sequence[Mapping[str, Any]], setting: str) -> Table:
    words, rows = Words(found.unit), _moving(found, setting)
    best = best_cell(found)
    starred = best[1] if best is not None and best[0].setting == setting else None
    made = []
    for i in range(len(found.names)):
        point = f"*{i + 1}" if i == starred else str(i + 1)
        own = [_text(listed[i]) for listed in values.values()]
        made.append([point, *own, *(_value(row.cells[i], words) for row in rows)])
    for missing in failed:
        made.append([DASH, *(_text(missing.get(path)) for path in values), *["failed"] * len(rows)])
    header = ["point", *short_names(list(values)).values(), *(row.arm for row in rows)]
    return Table(header, made, setting_name(setting))


def _moving(found: RunComparison, setting: str) -> list[Row]:
    """Return the arms that a sweep is about: those that the values change, and the treatment in any case."""
    rows = [row for row in found.rows if row.setting == setting]
    return [row for row in rows if moves(row) or row.role == "treatment"]


def _constant(found: RunComparison) -> list[str]:
    """Say, for each setting, what the arms have that no value changes."""
    words = Words(found.unit)
    said = []
    for setting in settings_of(found):
        still = [row for row in found.rows if row.setting == setting and row not in _moving(found, setting)]
        listed = "; ".join(f"{row.arm} {_value(row.cells[0], words)}" for row in still)
        if still:
            said.append(f"The same at every point, {setting_name(setting).lower()}: {listed}.")
    return said


def _value(cell: Cell | None, words: Words) -> str:
    return DASH if cell is None else f"{words.value(cell.value)} ({words.interval(cell.low, cell.high)})"


def _differences(found: RunComparison, setting: str) -> Table:
    words, rows = Words(found.unit), _moving(found, setting)
    made = [[name, *(_difference(row.cells[i], words) for row in rows)] for i, name in enumerate(found.names) if i]
    return Table(["point", *(row.arm for row in rows)], made, setting_name(setting))


def _difference(cell: Cell | None, words: Words) -> str:
    if cell is None or cell.difference is None:
        return DASH
    return "same scores" if cell.same else f"{words.signed(cell.difference)} (p {p_value(cell.p_holm)})"


def _text(value: Any) -> str:
    text = DASH if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _grid_plot(found: RunComparison, values: Values) -> Plot | None:
    """Draw the treatment over the numeric option with the most values: a line for each combination of the others."""
    best = best_cell(found)
    numeric = {path: v for path, v in values.items() if all(map(is_number, v)) and len(set(v)) > 1}
    if best is None or not numeric:
        return None
    path = max(numeric, key=lambda name: len(set(numeric[name])))
    others = [name for name in values if name != path]
    short = short_names(list(values))
    groups: dict[str, list[int]] = {}
    for i in sorted(range(len(found.names)), key=lambda i: values[path][i]):
        groups.setdefault(", ".join(f"{short[o]} {_text(values[o][i])}" for o in others), []).append(i)
    if max(map(len, groups.values())) < 2 or len(groups) > MOST_GROUPS:
        return None  # a list of points that share nothing
    everything = [float(x) for x in values[path]]
    log = is_log(everything)
    # so that intervals of several lines do not hide each other
    apart = 0 if log else 0.008 * (max(everything) - min(everything))
    panels = []
    for row in [row for row in found.rows if row.arm == best[0].arm][:MOST_PANELS]:
        lines = [
            cells_line(
                label,
                [float(values[path][i]) * (1 + 0.03 * k if log else 1) + apart * k for i in points],
                [row.cells[i] for i in points],
                TONES[k % len(TONES)],
                found.unit,
            )
            for k, (label, points) in enumerate(groups.items())
        ]
        title = f"{row.arm}: {setting_name(row.setting).lower()}{unit_title(found.unit)}"
        level = student_level(found, row.setting)
        ticks = [(x, f"{x:g}") for x in sorted(set(everything))]
        panels.append(Panel(title, lines, short[path], log_x=log, level=level, ticks=ticks))
    return lines_plot("sweep", f"{best[0].arm} over {short[path]}", panels)
