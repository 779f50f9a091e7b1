"""Places of an evaluation: the text that is part of keys, and back."""

from __future__ import annotations

import pytest

from w2s_align.steps.evaluation_places import Place


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("dpo", "0", "greedy"), "dpo/0/greedy"),
        (Place("dpo", "1", "standard", "lab/addition"), "dpo/1/standard/lab/addition"),
        (Place(task="lab/addition"), "_tasks/lab/addition"),
        (Place("dpo", "0", "greedy", "alpaca_eval", compared=True), "_tasks/_answers/dpo/0/greedy/alpaca_eval"),
    ],
)
def test_a_place_is_written_and_read(place: Place, text: str) -> None:
    assert (str(place), place.input, place.reference) == (text, f"implied.{text}", f"$/{text}")
    assert Place.parse(f"implied.{text}") == place


@pytest.mark.parametrize("other", ["prompts", "scorer.model", "arms.dpo.0"])
def test_what_a_recipe_names_is_no_implied_place(other: str) -> None:
    assert Place.parse(other) is None
