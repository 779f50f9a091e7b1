"""Picking items: at random, the surest, the least sure, and draws between the two."""

from __future__ import annotations

from collections import Counter

import pytest

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Score, to_table
from w2s_align.scoring.pick import pick_items, sure_items
from w2s_align.steps.pick import Pick

ITEMS = to_table([Prompt.of(f"item {i}") for i in range(21)])
IDS = ITEMS["id"].to_pylist()
LABELS = to_table(
    [
        Score(item, 0, "m", "label", 0.5, probabilities=[{"label": "0", "p": 1 - i / 20}, {"label": "1", "p": i / 20}])
        for i, item in enumerate(IDS[:20])  # the last one has no label
    ]
)


def places(found: set[str]) -> list[int]:
    return sorted(IDS.index(item) for item in found)


def test_without_temperature_the_highest_are_taken():
    assert places(pick_items(ITEMS, LABELS, 3, "uncertainty")) == [9, 10, 11]
    assert places(pick_items(ITEMS, LABELS, 3, "confidence")) in ([0, 1, 2], [0, 1, 19])
    assert 0 in places(pick_items(ITEMS, LABELS, 1, "confidence"))


def test_a_temperature_draws_in_proportion_to_a_power_of_the_entropy():
    cold, hot = (
        Counter(
            place
            for seed in range(400)
            for place in places(pick_items(ITEMS, LABELS, 3, "uncertainty", temperature=t, seed=seed))
        )
        for t in (0.05, 100.0)
    )
    assert cold[0] == hot[0] == 0 or hot[0] < 5  # an entropy of 0 has no weight
    assert cold[10] > 2 * cold[5] > 0 and hot[10] < 1.7 * hot[1]
    assert sum(cold.values()) == 1200


def test_gold_answers_decide_nothing():
    gold = to_table([Prompt.of(f"item {i}", answer=str(i % 2)) for i in range(21)])
    for by in ("random", "confidence", "uncertainty"):
        assert pick_items(gold, LABELS, 6, by) == pick_items(ITEMS, LABELS, 6, by)


def test_random_needs_no_labels_and_depends_on_the_seed():
    first, second = (pick_items(ITEMS, None, 5, "random", seed=seed) for seed in (0, 1))
    assert len(first) == 5 and first != second and first == pick_items(ITEMS, None, 5, "random", seed=0)


def test_what_cannot_be_picked_is_refused():
    with pytest.raises(UserError, match="21 items are wanted, and there are 20 with a label"):
        pick_items(ITEMS, LABELS, 21, "uncertainty")
    with pytest.raises(UserError, match="by: confidence needs labels"):
        Pick(items="$i", number=3, by="confidence").check()
    with pytest.raises(UserError, match="reads no labels"):
        Pick(items="$i", number=3, labels="$l").check()


def test_all_items_whose_label_is_sure_enough_are_picked() -> None:
    items = to_table([Prompt.of(f"item {i}") for i in range(4)])
    ids = items["id"].to_pylist()
    rows = [Score(one, 0, "m", "label", p) for one, p in zip(ids, (0.7, 0.75, 0.8, None), strict=True)]
    assert sure_items(items, to_table(rows), 0.75) == {ids[2]}
    with pytest.raises(UserError, match=r"No label is surer than 0\.9"):
        sure_items(items, to_table(rows), 0.9)
