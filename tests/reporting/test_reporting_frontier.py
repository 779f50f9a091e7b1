"""The page of a sweep over budgets: the golden frontier marked in its table, one frontier for each price."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from w2s_align.evaluation.run_comparison import Cell, Row, RunComparison
from w2s_align.reporting.article import write_article
from w2s_align.reporting.frontier_page import (
    Priced,
    frontier_article,
    frontier_sentence,
    frontier_table,
    on_frontier,
)

COSTS, REACHED = [10, 20, 21, 40, 41], [0.60, 0.62, 0.70, 0.701, 0.71]
CHEAP, DEAR = "a weak label costs 0.1", "a weak label costs 0.5"
POINTS = [Priced(f"{10 * cost} weak, 0 exact", cost, CHEAP) for cost in COSTS] + [Priced("0 weak, 5 exact", 5, DEAR)]


def cells(*values: float) -> list[Cell | None]:
    return [Cell(value, value - 0.02, value + 0.02) for value in values]


FOUND = RunComparison(
    [point.name for point in POINTS],
    "share",
    [
        Row("weak", "teacher", "labels", cells(*[0.55] * 6)),
        Row("student", "treatment", "labels", cells(*REACHED, 0.5)),
        Row("shuffled", "control", "labels", cells(0.5, 0.5, 0.5, 0.5, 0.6, 0.5)),
    ],
    [],
)


def test_the_golden_frontier_is_marked_and_each_price_has_its_own() -> None:
    assert [POINTS[i].cost for i in on_frontier(FOUND.rows[1], POINTS)] == [10, 21, 41, 5]
    assert [POINTS[i].cost for i in on_frontier(FOUND.rows[2], POINTS)] == [10, 41, 5]
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(frontier_table(FOUND, POINTS, ["9 weak, 1 exact"]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    marked = [line.split()[4:6] for line in text.splitlines() if " exact  " in line]
    assert [cell.startswith("*") for _, cell in marked] == [True, False, True, False, True, True]
    assert "9 weak, 1 exact failed." in text and "The same at every point: weak 55.0% (53.0 to 57.0)." in text
    assert "prices of an exact label" in " ".join(text.split())


def test_the_page_has_the_frontier_as_a_plot_a_table_and_numbers(tmp_path: Path) -> None:
    files = write_article(frontier_article(FOUND, POINTS, []), tmp_path)
    assert {f.name for f in files} == {"report.html", "report.md", "report.json", "frontier.svg", "frontier.png"}
    svg = (tmp_path / "plots" / "frontier.svg").read_text()
    assert "a weak label costs 0.1" in svg and "a weak label costs 0.5" in svg and "shuffled" in svg
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["frontier"]["labels/student"] == [0, 2, 4, 5] and numbers["points"][2]["cost"] == 21
    said = frontier_sentence(FOUND, POINTS)
    assert said.startswith("6 purchases of labels. Where a weak label costs 0.1, the frontier of student is: 100 weak")
