"""Which items to take when not all can be had: at random, those that a classifier is sure of, or those that it is not.

Reads items and labels; returns ids. Gold answers are not read.
"""

from __future__ import annotations

import math
import random
from typing import Literal

import pyarrow as pa

from w2s_align.errors import UserError

By = Literal["random", "confidence", "uncertainty"]
"""confidence: the largest probability of a class, highest first. uncertainty: the entropy of the probabilities,
highest first, as in arXiv 2410.13215."""


def pick_items(
    items: pa.Table, labels: pa.Table | None, number: int, by: By, *, temperature: float = 0.0, seed: int = 0
) -> set[str]:
    """Return the ids of some items.

    Args:
        items: Rows of ``Prompt.SCHEMA``.
        labels: Labels of them, for all but ``random``; an item without a label is not taken.
        number: How many.
        by: What decides.
        temperature: 0 takes the highest; above it, items are drawn without replacement in proportion to their value to
            the power of 1 / temperature.
        seed: Seed of what is drawn.

    Raises:
        UserError: There are fewer items, or none has a label.
    """
    ids = items["id"].to_pylist()
    values = dict.fromkeys(ids, 1.0)
    if by != "random":
        if labels is None:
            raise UserError(f"by: {by} needs labels.", fix="labels: $step of kind label, or by: random.")
        asked, values = set(ids), {}
        for row in labels.select(["prompt_id", "probabilities"]).to_pylist():
            if row["prompt_id"] in asked and row["probabilities"]:
                p = [entry["p"] for entry in row["probabilities"]]
                values[row["prompt_id"]] = max(p) if by == "confidence" else -sum(x * math.log(x) for x in p if x > 0)
    if len(values) < number:
        raise UserError(
            f"{number:,} items are wanted, and there are {len(values):,}"
            + (" with a label." if by != "random" else "."),
            fix="Lower number, or label more items.",
        )
    rng = random.Random(seed)
    if by == "random":
        return set(rng.sample(sorted(values), number))
    keys = {
        item: values[item] if temperature == 0 else _drawn(values[item], temperature, rng) for item in sorted(values)
    }
    return set(sorted(keys, key=lambda item: (-keys[item], item))[:number])


def sure_items(items: pa.Table, labels: pa.Table | None, least: float) -> set[str]:
    """Return the ids of the items whose most probable class has more than a probability.

    Args:
        items: Rows of ``Prompt.SCHEMA``.
        labels: Labels of them; an item without a label is not taken.
        least: The probability.

    Raises:
        UserError: There is none.
    """
    ids = set(items["id"].to_pylist())
    rows = labels.select(["prompt_id", "value"]).to_pylist() if labels is not None else []
    known = [row for row in rows if row["prompt_id"] in ids and row["value"] is not None]
    chosen = {row["prompt_id"] for row in known if row["value"] > least}
    if not chosen:
        highest = max((row["value"] for row in known), default=0.0)
        raise UserError(
            f"No label is surer than {least:g}.", f"The highest of {len(known):,} is {highest:.3f}.", "Lower least."
        )
    return chosen


def _drawn(value: float, temperature: float, rng: random.Random) -> float:
    """Return a key whose highest values are a draw without replacement in proportion to value^(1 / temperature).

    The log-weight plus Gumbel noise (arXiv 1903.06059).
    """
    noise = -math.log(-math.log(min(max(rng.random(), 1e-300), 1 - 1e-16)))
    return (math.log(value) / temperature if value > 0 else -math.inf) + noise
