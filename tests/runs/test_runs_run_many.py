"""Several recipes as one plan: what they share is made once, and a failure stays with what it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine
from w2s_align.runs import recipe_from_text
from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.run import Run
from w2s_align.runs.run_many import run_many

RECIPE = """\
name: NAME
seed: 0
steps:
  asked: {kind: prompts, source: lab/addition, limit: 6, resources: {cpus: 1}}
  own: {kind: prompts, source: SOURCE, resources: {cpus: 1}}
"""


def together(folder: Path, sources: dict[str, str]) -> tuple[list[Run], Outcome, list[Event]]:
    texts = [RECIPE.replace("NAME", name).replace("SOURCE", source) for name, source in sources.items()]
    events: list[Event] = []
    recipes = [recipe_from_text(text).recipe for text in texts]
    runs, outcome = run_many(recipes, Store(folder / "runs"), Machine(2, ()), events.append)
    return runs, outcome, events


def test_what_recipes_share_is_made_once_and_each_has_its_run(tmp_path: Path) -> None:
    rows, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    rows.write_text('{"prompt": "What is 1 + 1?"}\n')
    other.write_text('{"prompt": "What is 2 + 2?"}\n{"prompt": "What is 3 + 3?"}\n')
    runs, outcome, events = together(tmp_path, {"a": str(rows), "b": str(other)})
    assert outcome.ok
    assert sorted((e.name, e.kind) for e in events if e.kind in ("done", "cached")) == [
        ("a: asked", "done"), ("a: own", "done"), ("b: asked", "cached"), ("b: own", "done"),
    ]  # fmt: skip
    assert [run.state["name"] for run in runs] == ["a", "b"]
    assert [run.state["status"] for run in runs] == ["done", "done"]
    assert [run.table("asked").num_rows for run in runs] == [6, 6]
    assert [run.table("own").num_rows for run in runs] == [1, 2]
    assert outcome.seconds.keys() == {"a: asked", "a: own", "b: own"}
    _, outcome, events = together(tmp_path, {"a": str(rows), "b": str(other)})
    assert {e.kind for e in events} == {"cached"} and not outcome.seconds


def test_what_fails_is_tried_once_and_keeps_nothing_else_from_running(tmp_path: Path) -> None:
    empty, rows = tmp_path / "empty.jsonl", tmp_path / "rows.jsonl"
    empty.write_text('{"prompt": ""}\n')
    rows.write_text('{"prompt": "What is 1 + 1?"}\n')
    runs, outcome, events = together(tmp_path, {"a": str(empty), "b": str(empty), "c": str(rows)})
    assert [run.state["status"] for run in runs] == ["failed", "failed", "done"]
    assert sorted(outcome.states.items()) == [
        ("a: asked", "done"), ("a: own", "failed"), ("b: asked", "cached"), ("b: own", "skipped"),
        ("c: asked", "cached"), ("c: own", "done"),
    ]  # fmt: skip
    assert [problem.what for problem in outcome.problems if "empty prompt" in problem.what]
    assert next(e.note for e in events if e.name == "b: own") == "it is the same as a: own, which failed"


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "What is 1 + 1?"}\n')
    recipe = recipe_from_text(RECIPE.replace("NAME", "same").replace("SOURCE", str(rows))).recipe
    with pytest.raises(UserError, match="are called same"):
        run_many([recipe, recipe], Store(tmp_path), Machine(2, ()), lambda event: None)
