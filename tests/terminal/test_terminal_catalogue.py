"""What `w2s steps KIND` shows: a screen of options that matter, and an example that is part of a recipe that runs."""

from __future__ import annotations

import io
import pydoc
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from w2s_align.generation import Sampling
from w2s_align.runs import load_recipe
from w2s_align.steps import CATALOGUE
from w2s_align.terminal.catalogue import TOUR, kind_options, shipped_recipes

SCREEN = 50
"""Lines of a terminal window of ordinary size."""


def shown(kind: str, *, every: bool = False) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(kind_options(kind, every=every), highlight=False)
    return console.export_text()


@pytest.mark.parametrize("kind", CATALOGUE)
def test_a_kind_fits_a_screen_and_names_what_must_be_given(kind: str) -> None:
    text = shown(kind)
    assert len(text.splitlines()) <= SCREEN
    fields = CATALOGUE[kind].model_fields
    options = re.findall(r"^([a-z]\w*)  ", text, re.MULTILINE)
    required = [name for name, info in fields.items() if info.is_required()]
    assert sorted(options[: len(required)]) == sorted(required) and len(options) <= 10
    left = len(fields) - 1 - len(options)
    assert (f"{left} more options: w2s steps {kind} --all" in text) == (left > 0)
    assert ("Example, in" in text) != ("No shipped recipe names such a step." in text)


def test_options_that_recipes_use_come_first_and_all_of_them_on_request() -> None:
    text = shown("dpo")
    assert "\nbeta  " in text and "\nadam_beta1" not in text
    assert "\nadam_beta1  " in shown("dpo", every=True)


def test_the_example_is_the_text_of_the_recipe() -> None:
    text = shown("evaluate")
    assert "w2s run tour --until scores" in text
    example = text.partition("--until scores\n")[2]
    assert yaml.safe_load(example)["scores"]["roles"] == {"weak": "student", "weaker": "teacher", "dpo": "treatment"}


def test_the_tour_plans_offline_and_its_kinds_have_their_examples_from_it(tmp_path: Path) -> None:
    recipe = load_recipe(shipped_recipes()[TOUR])
    kinds = {item.node.config.kind for item in recipe.plan(tmp_path).values() if not item.node.implied}
    assert len(kinds) > 25
    assert all(f"in the recipe `{TOUR}`" in " ".join(shown(kind).split()) for kind in kinds)


def test_help_of_a_group_of_options_shows_the_texts_of_its_fields() -> None:
    text = pydoc.render_doc(Sampling, renderer=pydoc.plaintext)
    assert "temperature: 0 is greedy decoding; 1 draws from the model's own distribution." in text
    assert text.count("Responses per prompt.") == 1
