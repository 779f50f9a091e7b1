"""Labels of several classifiers as one: their mean, or weighted by how seldom they err, after temperature scaling.

Reads tables of ``Score.SCHEMA`` with probabilities. Errors and temperatures are those on validation items with gold
answers: of the half that taught the weak models, never of the half that they label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.evaluation.calibration import fit_temperature
from w2s_align.records import ClassProbability, Score, from_table, record_columns, to_table
from w2s_align.scoring.item_models import SCORER

NAME = "ensemble"
"""Name of the model in the labels of an ensemble."""
LEAST = 1e-6
"""Probabilities closer to 0 or 1 are taken as if they were so far away: their logits stay finite."""


@dataclass(frozen=True)
class Member:
    """What is known of a classifier of an ensemble.

    Attributes:
        name: Its name.
        weight: Its share in the labels; all weights together are 1.
        temperature: What its logits are divided by.
        error: Share of the validation items that it gets wrong; None without validation.
    """

    name: str
    weight: float
    temperature: float = 1.0
    error: float | None = None


def adaboost_weights(errors: Sequence[float]) -> list[float]:
    """Return weights in proportion to log((1 - e) / e), as in AdaBoost; together 1.

    Args:
        errors: Share of wrong labels of each classifier; one that is no better than a coin gets the weight 0.

    Raises:
        UserError: None is better than a coin.
    """
    raw = [max(0.0, math.log((1 - min(max(e, LEAST), 1 - LEAST)) / min(max(e, LEAST), 1 - LEAST))) for e in errors]
    if not sum(raw):
        raise UserError(
            "No classifier of the ensemble is right more often than a coin.",
            f"Their errors on the validation items are {', '.join(f'{e:.3f}' for e in errors)}.",
            "Use weights: mean, or train better classifiers.",
        )
    return [weight / sum(raw) for weight in raw]


def members_of(
    validation: Sequence[pa.Table], gold: Mapping[str, str], *, boosted: bool, scaled: bool
) -> list[Member]:
    """Fit temperatures and weights on validation items.

    Args:
        validation: Labels of these items by each classifier.
        gold: Gold answer of each item by its id.
        boosted: Weigh by AdaBoost's rule; else all alike.
        scaled: Scale by temperature; for two classes.

    Raises:
        UserError: A classifier has labeled none of the items, or no classifier is better than a coin.
    """
    found: list[tuple[str, float, float]] = []
    for table in validation:
        rows = [row for row in from_table(Score, record_columns(Score, table)) if row.prompt_id in gold and row.answer]
        if not rows:
            raise UserError(
                "A classifier of the ensemble has labeled none of the validation items.",
                fix="Let step label read the items of gold, with own_items: mark where it was trained on some.",
            )
        right = np.asarray([row.answer == gold[row.prompt_id] for row in rows])
        temperature = 1.0
        if scaled:
            classes = [entry["label"] for entry in rows[0].probabilities or ()]
            logits = [_logit([entry["p"] for entry in row.probabilities or ()]) for row in rows]
            temperature = fit_temperature(logits, [gold[row.prompt_id] == classes[1] for row in rows])
        found.append((rows[0].model, float(1 - right.mean()), temperature))
    weights = adaboost_weights([error for _, error, _ in found]) if boosted else [1 / len(found)] * len(found)
    return [Member(name, w, t, error) for (name, error, t), w in zip(found, weights, strict=True)]


def combine_labels(labels: Sequence[pa.Table], members: Sequence[Member]) -> pa.Table:
    """Return the weighted mean of labels.

    Args:
        labels: Labels of the same items by each classifier.
        members: Weight and temperature of each.

    Returns:
        Rows of ``Score.SCHEMA`` in the order of the first classifier's; an item that one of them has not labeled has
        no label.

    Raises:
        UserError: They are of other classes, or have no item in common.
    """
    tables = [{row.prompt_id: row for row in from_table(Score, record_columns(Score, table))} for table in labels]
    common = set(tables[0]).intersection(*tables[1:])
    if not common:
        raise UserError(
            "The classifiers of the ensemble have labeled no item in common.",
            fix="Let all of them label the same items.",
        )
    made = []
    for item in (item for item in tables[0] if item in common):
        rows = [table[item] for table in tables]
        if any(row.probabilities is None for row in rows):
            made.append(Score(item, 0, NAME, SCORER, None, outcome="not labeled by all"))
            continue
        classes = [entry["label"] for entry in rows[0].probabilities or ()]
        mean = np.zeros(len(classes))
        for row, member in zip(rows, members, strict=True):
            p = {entry["label"]: entry["p"] for entry in row.probabilities or ()}
            if set(p) != set(classes):
                raise UserError(f"Labels of the classes {', '.join(p)} cannot join those of {', '.join(classes)}.")
            mean += member.weight * np.asarray(_scaled([p[name] for name in classes], member.temperature))
        best = int(mean.argmax())
        probabilities: list[ClassProbability] = [
            {"label": name, "p": float(value)} for name, value in zip(classes, mean, strict=True)
        ]
        value, answer = float(mean[best]), classes[best]
        made.append(Score(item, 0, NAME, SCORER, value, answer=answer, probabilities=probabilities))
    return to_table(made, Score)


def _logit(p: Sequence[float]) -> float:
    one = min(max(p[1], LEAST), 1 - LEAST)
    return math.log(one / (1 - one))


def _scaled(p: Sequence[float], temperature: float) -> list[float]:
    """Return probabilities after their logits were divided by a temperature."""
    if temperature == 1.0:
        return list(p)
    powers = [max(value, LEAST) ** (1 / temperature) for value in p]
    return [power / sum(powers) for power in powers]
