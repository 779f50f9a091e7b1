"""A recipe says which versions it is written for; another version answers once, with the way out."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.recipe import load, parse_document
from w2s_align.runs import load_recipe
from w2s_align.steps import CATALOGUE
from w2s_align.terminal.catalogue import recipe_schema

HERE = metadata.version("w2s-align")
RECIPE = "name: versioned\nsteps:\n  prompts: {kind: prompts, source: lab/addition, limit: 10}\n"


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        load(parse_document(text, "recipe.yaml"), CATALOGUE)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize("fits", [">=0.1", f"=={HERE}", ">=0.1,<99", "~=0.1", ""])
def test_a_recipe_for_this_version_loads(fits: str) -> None:
    recipe = load(parse_document(f'w2s_align: "{fits}"\n{RECIPE}', "recipe.yaml"), CATALOGUE)
    assert list(recipe.nodes) == ["prompts"]


def test_a_recipe_for_another_version_is_refused_once_whatever_else_is_new_in_it() -> None:
    text = f'w2s_align: ">=99"\nflavour: new\n{RECIPE}  new: {{kind: dream}}\n'
    said = refusal(text)
    assert said.startswith(f"recipe.yaml:1  The recipe is for w2s-align >=99, and this is {HERE}.")
    assert "pip install 'w2s-align>=99'" in said


@pytest.mark.parametrize("wrong", ["0.1", '"new enough"', "[1, 2]", "true"])
def test_what_is_no_version_is_refused_with_an_example(wrong: str) -> None:
    assert 'w2s_align: ">=0.1"' in refusal(f"w2s_align: {wrong}\n{RECIPE}")


def test_the_version_is_part_of_no_key_and_known_to_the_schema(tmp_path: Path) -> None:
    keys = []
    for line in ("", 'w2s_align: ">=0.1"\n', 'w2s_align: "<99"\n'):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"{line}name: toy\nsteps:\n  toy: {{kind: sections_toy}}\n", encoding="utf-8")
        keys.append(load_recipe(path).plan(tmp_path)["toy"].key)
    assert len(set(keys)) == 1  # also of a step that shows the recipe
    assert recipe_schema()["properties"]["w2s_align"]["type"] == "string"
