"""Label quantity against quality: which purchases of labels no cheaper one beats, and errors without their structure.

Source: Balancing Label Quantity and Quality (arXiv 2410.13215) and its public code;
docs/methods/label_budget.md has check values.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from w2s_align.errors import UserError
from w2s_align.records import Score, from_table, record_columns, to_table

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_GAIN = 0.002
"""Accuracy by which a point must beat all cheaper ones to be on the frontier."""
NEARBY = 0.05
"""Share of its cost within which no better point may lie."""


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of (cost, accuracy) that no cheaper or nearby one beats.

    By cost, a point is taken if it is better than the best so far by more than .002 and no better point lies within 5%
    of its cost.

    Args:
        points: Cost and accuracy of each.
    """
    found: list[tuple[float, float]] = []
    best = float("-inf")
    for cost, accuracy in sorted(points):
        near = any(c <= cost * (1 + NEARBY) and a > accuracy for c, a in points if c >= cost)
        if accuracy > best + LEAST_GAIN and not near:
            found.append((cost, accuracy))
            best = accuracy
    return found


def shuffled_errors(weak: Mapping[str, float], gold: Mapping[str, int], seed: int) -> dict[str, float]:
    """Return weak labels with the same errors at other items: as many and as large, but without structure.

    The salience control of the paper: e = abs(weak - gold) is permuted over the items; an item gets gold + e where it
    is of class 0, and gold - e where it is of class 1.

    Args:
        weak: Probability of class 1, by item.
        gold: Gold class, by item.
        seed: Seed of the permutation.
    """
    items = sorted(weak)
    errors = [abs(weak[item] - gold[item]) for item in items]
    random.Random(seed).shuffle(errors)
    return {item: gold[item] + e if gold[item] == 0 else gold[item] - e for item, e in zip(items, errors, strict=True)}


def with_shuffled_errors(labels: pa.Table, items: pa.Table, seed: int) -> pa.Table:
    """Return labels of two classes with their errors at other items; see :func:`shuffled_errors`.

    Args:
        labels: Rows of ``Score.SCHEMA`` with probabilities.
        items: Their items, with gold answers.
        seed: Seed of the permutation.

    Returns:
        Rows of ``Score.SCHEMA``, of the items that have both a label and a gold answer.

    Raises:
        UserError: There are none, or not two classes.
    """
    gold = dict(zip(items["id"].to_pylist(), items["answer"].to_pylist(), strict=True))
    rows = [row for row in from_table(Score, record_columns(Score, labels)) if row.probabilities]
    rows = [row for row in rows if gold.get(row.prompt_id) is not None]
    classes = [entry["label"] for entry in rows[0].probabilities or ()] if rows else []
    if len(classes) != 2 or not {gold[row.prompt_id] for row in rows} <= set(classes):
        raise UserError(
            "The errors of these labels are not known."
            if not rows
            else f"The classes of the labels are {', '.join(classes)}, those of the items may be others.",
            "An error is how far the probability of the second of two classes is from the gold answer.",
            "Give labels of two classes, and their items with gold answers.",
        )
    weak = {row.prompt_id: _of(row, classes[1]) for row in rows}
    made = shuffled_errors(weak, {item: int(gold[item] == classes[1]) for item in weak}, seed)
    found = []
    for row in rows:
        p = min(1.0, max(0.0, made[row.prompt_id]))
        both = {classes[0]: 1 - p, classes[1]: p}
        best = max(both, key=lambda name: both[name])
        listed = [{"label": name, "p": both[name]} for name in classes]
        label = Score(row.prompt_id, row.sample, row.model, row.scorer, both[best], answer=best, probabilities=listed)  # type: ignore[arg-type]
        found.append(label)
    return to_table(found, Score)


def _of(row: Score, name: str) -> float:
    """Return the probability of a class."""
    return next(entry["p"] for entry in row.probabilities or () if entry["label"] == name)
