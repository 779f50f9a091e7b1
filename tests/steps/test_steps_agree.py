"""Where two packages share a convention without importing each other, this pins it; and every shipped recipe loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.evaluation.arms import NO_ANSWER
from w2s_align.recipe.schema import Resources
from w2s_align.runs import load_recipe
from w2s_align.runs.catalogue import shipped_recipes
from w2s_align.scoring.scorers import NOT_FOUND
from w2s_align.steps import CATALOGUE
from w2s_align.steps.work import merge_warnings


def test_an_answer_that_was_not_found_has_one_name() -> None:
    assert NO_ANSWER == NOT_FOUND


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(shipped_recipes()[name]).recipe
    assert recipe.nodes
    assert recipe.description


@pytest.mark.parametrize("kind", CATALOGUE)
def test_every_option_of_every_step_has_a_help_text(kind: str) -> None:
    step = CATALOGUE[kind]
    assert step.__doc__
    assert [name for name, info in step.model_fields.items() if name != "kind" and not info.description] == []
    assert issubclass(type(step.model_fields["resources"].default), Resources)


def test_seeds_that_warn_about_the_same_are_one_line() -> None:
    warnings = [
        ("dpo@1", "step 47: both fell"),
        ("dpo@2", "step 5: both fell"),
        ("s/dpo/0/greedy", "6% cut"),
        ("p", "x"),
    ]
    assert merge_warnings([*warnings, ("s/dpo/1/greedy", "7.5% cut")]) == [
        "dpo@1: step 47: both fell (and 1 more like it)",
        "s/dpo/0/greedy: 6% cut (and 1 more like it)",
        "p: x",
    ]


def test_a_data_file_beside_a_recipe_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "p.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "recipes" / "r.yaml").write_text("name: r\nsteps:\n  prompts: {kind: prompts, source: p.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    run = load_recipe("recipes/r.yaml").run(tmp_path / "runs")
    assert run.table("prompts").num_rows == 1
