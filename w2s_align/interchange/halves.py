"""Disjoint halves of items, and what must not be in two of them. Reads tables of ``Prompt.SCHEMA``."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa

from w2s_align.errors import UserError


def groups_of(items: pa.Table) -> list[str]:
    """Return the group of each item: its own id where it has none."""
    return [group or item for group, item in zip(items["group"].to_pylist(), items["id"].to_pylist(), strict=True)]


def first_half(items: pa.Table, share: float, seed: int) -> list[bool]:
    """Say of each item whether it belongs to the first part: whole groups, in random order, until it is full.

    Gold answers have no influence.

    Args:
        items: Rows of ``Prompt.SCHEMA``.
        share: Share of the items in the first part.
        seed: Seed of the draw.

    Raises:
        UserError: One of the two parts is empty.
    """
    groups = groups_of(items)
    sizes = Counter(groups)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    first: set[str] = set()
    wanted, taken = round(share * len(groups)), 0
    for group in order:
        if taken >= wanted:
            break
        # A group that lies across the border goes to the side on which more of it would be.
        if taken + sizes[group] / 2 <= wanted or not first:
            first.add(group)
            taken += sizes[group]
    if not 0 < taken < len(groups):
        raise UserError(
            f"{len(groups):,} items in {len(sizes):,} groups cannot be divided.",
            "All items of a group are on one side, and no side may be empty.",
            "Give more items or more groups, or another share.",
        )
    return [group in first for group in groups]


def refuse_overlap(items: pa.Table, test: pa.Table) -> None:
    """Refuse items that are, or have the group of, an item of the test.

    Raises:
        UserError: With how many there are.
    """
    tested = set(test["id"].to_pylist())
    same = sum(item in tested for item in items["id"].to_pylist())
    tested_groups = set(groups_of(test))
    related = sum(group in tested_groups for group in groups_of(items))
    if same or related:
        raise UserError(
            f"{max(same, related):,} of the {items.num_rows:,} items are in the test, or share a group with it.",
            f"{same:,} are the same items. What a model has learned from is no test of it.",
            "Take the test from another split, or leave these items out.",
        )
