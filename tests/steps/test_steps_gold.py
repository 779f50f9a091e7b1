"""What a recipe has to guess of local files is said, or refused, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.runs.loaded import recipe_from_text
from w2s_align.runs.plan import notes, plan

RECIPE = """\
name: own
steps:
  problems: {kind: prompts, source: FILE}
  model: {kind: lab_model, slip: 0.5, steps: 10}
  answers: {kind: generate, model: $model, prompts: $problems, sampling: {temperature: 0, max_tokens: 8}}
  scores: {kind: score, responses: $answers, scorer: SCORER}
  results:
    kind: evaluate
    prompts: $problems
    scorer: SCORER
    arms: {before: $model}
    roles: {before: student}
    baseline: before
    sampling: {greedy: {temperature: 0, max_tokens: 8}}
"""


def own_file(folder: Path, *columns: str) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps({name: f"{name} {row}" for name in columns}) + "\n" for row in range(20)))
    return path


def recipe(path: Path, scorer: str = "auto", overrides: Sequence[str] = ()) -> str:
    return RECIPE.replace("FILE", str(path)).replace("SCORER", scorer)


@pytest.mark.parametrize("scorer", ["auto", "exact", "math", "{name: numeric, tolerance: 0.1}"])
def test_a_scorer_without_gold_is_refused_with_the_columns_there_are(scorer: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        recipe_from_text(recipe(own_file(tmp_path, "question", "worked_out"), scorer))
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == 2 and all("needs gold answers, and $problems has none" in text for text in said)
    assert "its columns are question, worked_out" in said[0] and "columns: {answer: <column>}" in said[0]


@pytest.mark.parametrize("overrides", [["problems.columns={answer: worked_out}"], ["problems.task=lab/addition"]])
def test_a_named_column_and_a_check_by_task_are_enough(overrides: list[str], tmp_path: Path) -> None:
    text = recipe(own_file(tmp_path, "question", "worked_out"))
    assert recipe_from_text(text, overrides=overrides).recipe.nodes


def test_known_answer_columns_are_read_and_scorers_that_need_none_pass(tmp_path: Path) -> None:
    assert recipe_from_text(recipe(own_file(tmp_path, "question", "solution"))).recipe.nodes
    assert recipe_from_text(recipe(own_file(tmp_path, "question"), "feature:words")).recipe.nodes


def test_columns_that_are_not_read_are_named_before_anything_runs(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "source_url": "u"}) + "\n")
    text = (
        f"name: own\nsteps:\n  p: {{kind: prompts, source: {own_file(tmp_path, 'question', 'solution', 'level')}}}\n"
    )
    loaded = recipe_from_text(f"{text}  i: {{kind: import_pairs, source: {pairs}}}\n")
    said = notes(plan(loaded.recipe, Store(tmp_path / "runs")))
    assert said == [
        ("p", "Columns of own.jsonl that were not read: level. The option columns maps them."),
        ("p", "The column solution is read as the answer; columns: {answer: <column>} names another."),
        ("i", "Columns of pairs.jsonl that are not read: source_url. The option columns maps them."),
    ]


def test_a_file_without_the_columns_is_refused_by_plan(tmp_path: Path) -> None:
    path = own_file(tmp_path, "a", "b")
    for step in (f"{{kind: prompts, source: {path}}}", f"{{kind: import_pairs, source: {path}}}"):
        with pytest.raises(UserError, match=r"looks like a prompt|do not fit any layout"):
            recipe_from_text(f"name: own\nsteps:\n  p: {step}\n")
