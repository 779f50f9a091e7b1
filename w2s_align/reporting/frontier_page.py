"""The page and the terminal table of a sweep over budgets: what each purchase of labels reaches, and which to make.

Reads a RunComparison of the points with their costs; makes an Article and a rich table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.budget import LEAST_GAIN, NEARBY, frontier
from w2s_align.evaluation.run_comparison import Cell, Row, RunComparison
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.compare_page import MOST_PANELS, TONES, moves, settings_of, unit_title
from w2s_align.reporting.figure import Plot
from w2s_align.reporting.lines import Line, Panel, lines_plot
from w2s_align.reporting.text import DASH, Words, percent, setting_name

if TYPE_CHECKING:
    from rich.console import Group

MOST_TICKS = 8
"""Costs that are all named on the axis; of more the axis chooses."""

NOTE = (
    "* is on the Pareto frontier of its arm: better than everything cheaper by more than "
    f"{100 * LEAST_GAIN:g} points, and no better point within {percent(NEARBY)} of its cost. Costs are in prices of "
    "an exact label."
)
"""How a frontier is drawn (arXiv 2410.13215, the notebook of its code)."""


@dataclass(frozen=True)
class Priced:
    """A point of a sweep over budgets.

    Attributes:
        name: What was bought.
        cost: What it cost.
        group: Points of one group, that is, at one price of a weak label, share a frontier.
    """

    name: str
    cost: float
    group: str


def on_frontier(row: Row, points: Sequence[Priced]) -> list[int]:
    """Return the places of an arm's points that are on the frontier of their group, cheapest first."""
    found = []
    for group in groups_of(points):
        known = [
            (points[i].cost, cell.value, i)
            for i, cell in enumerate(row.cells)
            if points[i].group == group and cell is not None and cell.value is not None
        ]
        best = set(frontier([(cost, value) for cost, value, _ in known]))
        found += [i for cost, value, i in sorted(known) if (cost, value) in best]
    return found


def groups_of(points: Sequence[Priced]) -> list[str]:
    """Return the groups in their order."""
    return list(dict.fromkeys(point.group for point in points))


def frontier_article(found: RunComparison, points: Sequence[Priced], failed: Sequence[str]) -> Article:
    """Return the page.

    Args:
        found: The finished points side by side.
        points: What each of them is.
        failed: Names of the points that failed.
    """
    plots = [plot for setting in settings_of(found)[:1] if (plot := _plot(found, points, setting))]
    tables = [_table(found, points, setting, group) for setting in settings_of(found) for group in groups_of(points)]
    notes = [NOTE, *([f"Failed: {', '.join(failed)}."] if failed else [])]
    sections = [Section("The frontier", notes, plots), Section("Every purchase", _still(found), tables=tables)]
    numbers = {
        **found.to_json(),
        "points": [asdict(point) for point in points],
        "frontier": {f"{row.setting}/{row.arm}": on_frontier(row, points) for row in found.rows if _bought(row)},
        "failed": [*failed],
    }
    headline = f"{len(points)} purchases of labels."
    return Article("Budgets of labels", headline, _lede(found, points), sections, numbers, caveats=found.caveats)


def frontier_table(found: RunComparison, points: Sequence[Priced], failed: Sequence[str]) -> Group:
    """Return the purchases for the terminal; those on the frontier are marked with *."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[Any] = []
    for table in (_table(found, points, s, group) for s in settings_of(found) for group in groups_of(points)):
        made = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left", pad_edge=False)
        for name in table.header:
            made.add_column(Text(name), justify="right")
        for row in table.rows:
            made.add_row(*map(Text, row))
        parts.append(made)
    notes = [NOTE, *_still(found), *(f"{name} failed." for name in failed)]
    return Group(*parts, *(Text(text, style="dim") for text in [*notes, *found.caveats]))


def frontier_sentence(found: RunComparison, points: Sequence[Priced]) -> str:
    """Return what a reader should know first."""
    return f"{len(points)} purchases of labels. {_lede(found, points)}"


def _lede(found: RunComparison, points: Sequence[Priced]) -> str:
    """Say of the first treatment what it is best to buy, cheapest first."""
    row = next((row for row in found.rows if row.role == "treatment"), None)
    if row is None:
        return "No treatment to compare."
    said = []
    for group in groups_of(points):
        places = [i for i in on_frontier(row, points) if points[i].group == group]
        bought = "; ".join(f"{points[i].name} ({_cell(row.cells[i], found.unit)})" for i in places)
        said.append(f"Where {group}, the frontier of {row.arm} is: {bought}.")
    return " ".join(said)


def _bought(row: Row) -> bool:
    """Say whether an arm depends on what is bought."""
    return row.role == "treatment" or moves(row)


def _still(found: RunComparison) -> list[str]:
    """Say what the arms have that no purchase changes."""
    return [
        f"The same at every point: {row.arm} {_cell(row.cells[0], found.unit)}."
        for row in found.rows
        if not _bought(row)
    ]


def _cell(cell: Cell | None, unit: str) -> str:
    words = Words(unit)
    return DASH if cell is None else f"{words.value(cell.value)} ({words.interval(cell.low, cell.high)})"


def _table(found: RunComparison, points: Sequence[Priced], setting: str, group: str) -> Table:
    rows = [row for row in found.rows if row.setting == setting and _bought(row)]
    best = {row.arm: set(on_frontier(row, points)) for row in rows}
    made = []
    for i in sorted(range(len(points)), key=lambda i: points[i].cost):
        if points[i].group == group:
            cells = [f"{'*' if i in best[row.arm] else ''}{_cell(row.cells[i], found.unit)}" for row in rows]
            made.append([points[i].name, f"{points[i].cost:,.6g}", *cells])
    title = ", ".join(part for part in (setting_name(setting), group) if part)
    return Table(["bought", "cost", *(row.arm for row in rows)], made, title)


def _plot(found: RunComparison, points: Sequence[Priced], setting: str) -> Plot | None:
    """Draw the frontier of every arm, with all points of the first in its color; a panel for each price."""
    rows = [row for row in found.rows if row.setting == setting and _bought(row)]
    scale = 100 if found.unit == "share" else 1
    panels = []
    for group in groups_of(points)[:MOST_PANELS]:
        lines = []
        for k, row in enumerate(rows[: len(TONES)]):
            places = [i for i in on_frontier(row, points) if points[i].group == group]
            values: Mapping[int, float] = {i: scale * (_value(row.cells[i]) or 0) for i in places}
            x, y = [points[i].cost for i in places], [values[i] for i in places]
            lines.append(Line(row.arm, x, y, TONES[k]))
            if k == 0:
                own = [i for i, cell in enumerate(row.cells) if points[i].group == group and _value(cell) is not None]
                costs = [points[i].cost for i in own]
                reached = [scale * (_value(row.cells[i]) or 0) for i in own]
                lines.append(Line("", costs, reached, TONES[0], "points"))
        costs = sorted({point.cost for point in points if point.group == group})
        ticks = [(cost, f"{cost:,.6g}") for cost in costs] if len(costs) <= MOST_TICKS else []
        wide = costs[-1] / costs[0] > 10
        panels.append(Panel(f"{group}{unit_title(found.unit)}", lines, "cost", log_x=wide, ticks=ticks))
    return lines_plot("frontier", "Accuracy over the cost of labels, with the frontier of each arm", panels)


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else cell.value
