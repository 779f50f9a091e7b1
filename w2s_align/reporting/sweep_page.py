"""The page and the terminal table of `w2s sweep`: a row for each point, a plot over the values, and the best point.

Reads a RunComparison of the points and their swept values; makes an Article and a rich table.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.run_comparison import Cell, Row, RunComparison, best_cell
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.compare_page import best_sentence, moves, sweep_plot
from w2s_align.reporting.lines import Line, Panel, Tone, lines_plot
from w2s_align.reporting.plots import Plot
from w2s_align.reporting.text import DASH, Words, p_value, setting_name

if TYPE_CHECKING:
    from rich.console import Group

Values = Mapping[str, Sequence[Any]]
"""Swept options by path, with the value at each point."""
TONES: list[Tone] = ["accent", "ink", "warn", "soft"]


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
    headline, lede = "No treatment to choose by.", ""
    if best is not None:
        headline, _, lede = best_sentence(found, best).partition(", where ")
        headline, lede = f"{headline}.", f"There {lede}"
    plot = sweep_plot(found, values) if len(values) == 1 else _grid_plot(found, values)
    settings = list(dict.fromkeys(row.setting for row in found.rows))
    tables = [_points(found, values, failed, setting) for setting in settings]
    against = [_differences(found, setting) for setting in settings]
    notes = ["Means with 95 % intervals over problems; the best point is marked with *.", *_constant(found)]
    tested = "Problem by problem; p is adjusted over all points and arms of a setting (Holm)."
    sections = [
        Section("Every point", notes, tables=tables),
        Section(f"Against {found.names[0]}", [tested], tables=against),
    ]
    if plot is not None:
        text = ["Intervals are over problems; the dotted line is the untouched student."]
        sections.insert(0, Section("Over the values", text, [plot]))
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
    for setting in dict.fromkeys(row.setting for row in found.rows):
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
    for setting in dict.fromkeys(row.setting for row in found.rows):
        still = [row for row in found.rows if row.setting == setting and row not in _moving(found, setting)]
        listed = "; ".join(f"{row.arm} {_value(row.cells[0], words)}" for row in still)
        if still:
            said.append(f"The same at every point, {setting_name(setting).lower()}: {listed}.")
    return said


def _value(cell: Cell | None, words: Words) -> str:
    return DASH if cell is None else f"{words.value(cell.value)} ({words.bare(cell.low)} to {words.bare(cell.high)})"


def _differences(found: RunComparison, setting: str) -> Table:
    words, rows = Words(found.unit), _moving(found, setting)
    made = [[name, *(_difference(row.cells[i], words) for row in rows)] for i, name in enumerate(found.names) if i]
    return Table(["point", *(row.arm for row in rows)], made, setting_name(setting))


def _difference(cell: Cell | None, words: Words) -> str:
    if cell is None or cell.difference is None:
        return DASH
    return "same verdicts" if cell.same else f"{words.signed(cell.difference)} (p {p_value(cell.p_holm)})"


def _text(value: Any) -> str:
    text = DASH if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _grid_plot(found: RunComparison, values: Values) -> Plot | None:
    """Draw the treatment over the numeric option with the most values: a line for each combination of the others."""
    best = best_cell(found)
    numeric = {path: v for path, v in values.items() if all(_is_number(x) for x in v) and len(set(v)) > 1}
    if best is None or not numeric:
        return None
    path = max(numeric, key=lambda name: len(set(numeric[name])))
    others = [name for name in values if name != path]
    short = short_names(list(values))
    groups: dict[str, list[int]] = {}
    for i in sorted(range(len(found.names)), key=lambda i: values[path][i]):
        groups.setdefault(", ".join(f"{short[o]} {_text(values[o][i])}" for o in others), []).append(i)
    if max(map(len, groups.values())) < 2 or len(groups) > len(TONES) * 2:
        return None  # a list of points that share nothing
    everything = [float(x) for x in values[path]]
    log = min(everything) > 0 and max(everything) / min(everything) >= 20
    scale = 100 if found.unit == "share" else 1
    panels = []
    for row in [row for row in found.rows if row.arm == best[0].arm][:3]:
        apart = 0.008 * (
            max(everything) - min(everything)
        )  # so that intervals of several lines do not hide each other
        lines = [
            Line(
                label,
                [float(values[path][i]) * (1 + 0.03 * k if log else 1) + (0 if log else apart * k) for i in points],
                [_scaled(row, i, "value", scale) for i in points],
                tone,
                low=[_scaled(row, i, "low", scale) for i in points],
                high=[_scaled(row, i, "high", scale) for i in points],
            )
            for k, tone, (label, points) in zip(
                itertools.count(), itertools.cycle(TONES), groups.items(), strict=False
            )
        ]
        student = next((r.cells[0] for r in found.rows if r.role == "student" and r.setting == row.setting), None)
        level = None if student is None or student.value is None else scale * student.value
        unit = ", %" if found.unit == "share" else ""
        ticks = [(x, f"{x:g}") for x in sorted(set(everything))]
        title = f"{row.arm}: {setting_name(row.setting).lower()}{unit}"
        panels.append(Panel(title, lines, short[path], log_x=log, level=level, ticks=ticks))
    return lines_plot("sweep", f"{best[0].arm} over {short[path]}", panels)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scaled(row: Row, i: int, name: str, scale: float) -> float | None:
    cell = row.cells[i]
    value = None if cell is None else getattr(cell, name)
    return None if value is None else scale * float(value)
