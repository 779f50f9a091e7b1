"""Halves of items: whole groups, as full as they can be, the same for everybody with the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from w2s_align.errors import UserError
from w2s_align.interchange.halves import first_half, refuse_overlap
from w2s_align.records import Prompt, to_table


def items(groups: list[str | None], answers: bool = True):
    rows = [Prompt.of(f"item {i}", answer=str(i % 2) if answers else None, group=g) for i, g in enumerate(groups)]
    return to_table(rows, Prompt)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_single_items_are_divided_exactly(share):
    first = first_half(items([None] * 200), share, 0)
    assert sum(first) == round(share * 200)


def test_groups_stay_together_and_the_parts_are_nearly_as_large_as_asked():
    groups = [f"g{i % 37}" for i in range(400)]
    first = first_half(items(groups), 0.5, 3)
    sides = Counter((group, side) for group, side in zip(groups, first, strict=True))
    assert len(sides) == 37  # each group on one side
    assert abs(sum(first) - 200) <= 11


def test_the_seed_decides_and_gold_answers_do_not():
    groups = [None] * 60
    assert first_half(items(groups), 0.5, 1) == first_half(items(groups, answers=False), 0.5, 1)
    assert first_half(items(groups), 0.5, 1) != first_half(items(groups), 0.5, 2)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="3 items in 1 groups cannot be divided"):
        first_half(items(["g"] * 3), 0.5, 0)


def test_items_of_the_test_or_of_its_groups_are_refused():
    refuse_overlap(items(["a", "b"]), to_table([Prompt.of("other", group="c")]))
    with pytest.raises(UserError, match="1 of the 2 items are in the test, or share a group"):
        refuse_overlap(items(["a", "b"]), to_table([Prompt.of("other", group="b")]))
    with pytest.raises(UserError, match="1 are the same items"):
        refuse_overlap(items([None, None]), to_table([Prompt.of("item 1")]))
