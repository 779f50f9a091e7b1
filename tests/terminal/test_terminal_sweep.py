"""`w2s sweep`, whole: shared artifacts, one mistake for all points, the comparison and the best at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """\
name: swept
seed: 0
steps:
  student: {kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 5, batch_size: 8}
  tuned: {kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 5, batch_size: 8, seed: 5}
  problems: {kind: prompts, source: lab/addition, split: test, limit: 6}
  scores:
    kind: evaluate
    prompts: $problems
    arms: {student: $student, tuned: $tuned}
    roles: {student: student, tuned: treatment}
    baseline: student
    sampling: {greedy: {temperature: 0, max_tokens: 8}}
    engine: {name: transformers}
"""


def w2s(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "w2s_align.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeper")
    (folder / "swept.yaml").write_text(RECIPE)
    return folder


def test_the_points_share_artifacts_and_end_in_a_comparison(folder: Path) -> None:
    done = w2s("sweep", "swept.yaml", "tuned.steps=4,6", cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "1 of 2: steps=4" in said and "2 of 2: steps=6" in said
    assert "3 of 6 artifacts were cached" in said  # problems, student and its answers
    assert "All points are alike, where tuned (greedy decoding) has 0%" in " ".join(said.split())
    assert "2 of 2 points are done." in said
    (page,) = (folder / "w2s_runs" / "sweeps" / "swept").glob("*/report.html")
    assert f"Page: {page.relative_to(folder)}" in said
    assert "<h2" in page.read_text()
    (record,) = (folder / "w2s_runs" / "sweeps" / "swept").glob("*.json")
    points = json.loads(record.read_text())["points"]
    assert [point["values"] for point in points] == [{"tuned.steps": 4}, {"tuned.steps": 6}]
    assert all((folder / "w2s_runs" / point["run"] / "run.json").is_file() for point in points)


def test_a_point_that_fails_stops_no_other_and_stands_in_the_table(folder: Path) -> None:
    """Nothing is run twice: the first sweep has made everything but the third point."""
    (folder / "empty.jsonl").write_text('{"prompt": ""}\n')
    done = w2s("sweep", "swept.yaml", "--file", "points.yaml", cwd=folder)
    assert "Cannot read the sweep points.yaml" in done.stderr
    points = "- {tuned.steps: 4}\n- {tuned.steps: 4, problems.source: empty.jsonl}\n- {tuned.steps: 6}\n"
    (folder / "points.yaml").write_text(points)
    done = w2s("sweep", "swept.yaml", "--file", "points.yaml", cwd=folder)
    assert done.returncode == 2
    assert "3 of 3: steps=6" in done.stdout + done.stderr
    assert "2 of 3 points are done." in done.stdout
    row = next(line for line in done.stdout.splitlines() if "empty.jsonl" in line)
    assert row.split() == ["–", "4", "empty.jsonl", "failed"]
    assert "steps=4, source=empty.jsonl: step problems" in " ".join(done.stderr.split())


def test_a_model_that_is_not_there_is_said_before_the_first_point(folder: Path) -> None:
    done = w2s("sweep", "swept.yaml", "scores.arms.tuned=$tuned,/nowhere/at/all", cwd=folder)
    assert done.returncode == 2
    assert "/nowhere/at/all" in done.stderr and "1 of 2" not in done.stdout + done.stderr


def test_a_mistake_is_said_once_and_before_anything_runs(folder: Path) -> None:
    done = w2s("sweep", "swept.yaml", "tuned.stps=4,6", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("tuned.stps is not an option of lab_model") <= 2
    assert "Did you mean steps?" in done.stderr and "1 of 2" not in done.stderr


BUDGETS = """\
budgets: [4, 6]
weak_prices: [1]
shares: [0]
weak: [tuned.steps]
exact: [student.steps]
"""


def test_budgets_are_listed_with_their_costs_and_end_in_a_frontier(folder: Path) -> None:
    """Nothing is run: the first sweep has made both points."""
    (folder / "budgets.yaml").write_text(BUDGETS)
    command = ("sweep", "swept.yaml", "--file", "budgets.yaml")
    listed = w2s(*command, "--list", cwd=folder)
    assert listed.returncode == 0, listed.stderr
    assert "2 points. Without --list they are run." in listed.stdout and "1 of 2" not in listed.stderr
    done = w2s(*command, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2: 6 weak, 0 exact (a weak label costs 1)" in done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "2 purchases of labels. Where a weak label costs 1, the frontier of tuned is: 4 weak, 0 exact (0%" in said
    (page,) = (file for file in folder.rglob("report.html") if "Budgets of labels" in file.read_text())
    assert f"Page: {page.relative_to(folder)}" in done.stdout
