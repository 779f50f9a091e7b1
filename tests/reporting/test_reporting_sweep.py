"""The page of a sweep: a row for each point, a line for each combination of the other values, the best marked."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from simulated_study import study

from w2s_align.evaluation import evaluate_arms
from w2s_align.evaluation.run_comparison import RunArms, compare_studies
from w2s_align.reporting.article import write_article
from w2s_align.reporting.sweep_page import short_names, sweep_article, sweep_table

VALUES = {"dpo.beta": [0.1, 0.1, 10.0, 10.0], "dpo.learning_rate": [1e-6, 1e-5, 1e-6, 1e-5]}
FAILED = [{"dpo.beta": 100.0, "dpo.learning_rate": 1e-5}]


@pytest.fixture(scope="module")
def grid():
    """Four points; the third alone tunes something."""
    made = []
    for i, effect in enumerate((False, False, True, False)):
        problems, arms = study(problems=40, samples=2, effect=effect)
        name = f"beta={VALUES['dpo.beta'][i]}, learning_rate={VALUES['dpo.learning_rate'][i]}"
        made.append(RunArms(name, problems, arms, evaluate_arms(problems, arms, "before")))
    return compare_studies(made)


def test_the_terminal_has_a_row_for_each_point_and_marks_the_best(grid):
    console = Console(width=90, file=io.StringIO(), color_system=None)
    console.print(sweep_table(grid, VALUES, FAILED))
    rows = [line.split() for line in console.file.getvalue().splitlines() if line.strip()]
    assert rows[1] == ["point", "beta", "learning_rate", "dpo"]  # arms that no value changes are no columns
    points = rows[3:8]
    assert [row[:3] for row in points] == [
        ["1", "0.1", "1e-06"],
        ["2", "0.1", "1e-05"],
        ["*3", "10", "1e-06"],
        ["4", "10", "1e-05"],
        ["–", "100", "1e-05"],
    ]
    assert points[4][3:] == ["failed"]
    assert "The same at every point, greedy decoding: weaker" in " ".join(console.file.getvalue().split())


def test_the_page_has_a_line_for_each_combination_and_what_failed(grid, tmp_path):
    files = write_article(sweep_article(grid, VALUES, FAILED), tmp_path)
    assert {f.name for f in files} == {"report.html", "report.md", "report.json", "sweep.svg", "sweep.png"}
    text = (tmp_path / "report.md").read_text()
    assert "**Best: beta=10.0, learning\\_rate=1e-06.**" in text
    assert "| – | 100 | 1e-05 | failed |" in text and "same scores" in text
    svg = (tmp_path / "plots" / "sweep.svg").read_text()
    assert "learning_rate 1e-06" in svg and "learning_rate 1e-05" in svg and "dpo: greedy decoding" in svg
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["failed"] == FAILED and numbers["values"]["dpo.beta"] == [0.1, 0.1, 10.0, 10.0]


def test_points_that_share_nothing_have_no_plot(grid):
    values = {"weak.model": ["a", "b", "c", "d"], "dpo.beta": [1, 2, 3, 4]}
    assert sweep_article(grid, values, []).plots == []


def test_names_are_whole_where_two_end_alike():
    assert short_names(["weak.seed", "weaker.seed", "dpo.beta"]) == {
        "weak.seed": "weak.seed",
        "weaker.seed": "weaker.seed",
        "dpo.beta": "beta",
    }
