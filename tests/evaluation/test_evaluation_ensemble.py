"""Ensembles of labels: means, AdaBoost's weights, temperatures that are fitted on other items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation.ensemble import Member, adaboost_weights, combine_labels, members_of
from w2s_align.records import Score, from_table, to_table
from w2s_align.steps.ensemble import Ensemble


def labels(name: str, p: dict[str, float | None]):
    rows = []
    for item, one in p.items():
        if one is None:
            rows.append(Score(item, 0, name, "label", None, outcome="longer than the model reads"))
            continue
        both = [{"label": "0", "p": 1 - one}, {"label": "1", "p": one}]
        rows.append(Score(item, 0, name, "label", max(one, 1 - one), answer=str(int(one > 0.5)), probabilities=both))
    return to_table(rows)


def second(table) -> dict[str, float | None]:
    return {
        row.prompt_id: None if row.probabilities is None else row.probabilities[1]["p"]
        for row in from_table(Score, table)
    }


def test_the_mean_of_probabilities():
    first, other = labels("a", {"x": 0.9, "y": 0.2, "z": None, "w": 0.5}), labels("b", {"y": 0.6, "x": 0.3, "z": 0.4})
    made = combine_labels([first, other], [Member("a", 0.5), Member("b", 0.5)])
    assert second(made) == {"x": pytest.approx(0.6), "y": pytest.approx(0.4), "z": None}  # w: not labeled by b
    assert made["answer"].to_pylist() == ["1", "0", None]


def test_adaboost_weights_are_the_log_odds_of_being_right():
    found = adaboost_weights([0.1, 0.25, 0.5, 0.6])
    raw = [math.log(9), math.log(3), 0, 0]
    assert found == pytest.approx([value / sum(raw) for value in raw])
    assert adaboost_weights([0.0, 0.5]) == [1.0, 0.0]
    with pytest.raises(UserError, match="more often than a coin"):
        adaboost_weights([0.5, 0.7])


def test_weights_and_temperatures_come_from_the_validation_items():
    rng = np.random.default_rng(0)
    items = [f"i{place}" for place in range(4000)]
    logit = rng.normal(0, 2, len(items))
    gold = {item: str(int(rng.random() < 1 / (1 + math.exp(-z)))) for item, z in zip(items, logit, strict=True)}
    honest = labels("honest", {item: 1 / (1 + math.exp(-z)) for item, z in zip(items, logit, strict=True)})
    loud = labels("loud", {item: 1 / (1 + math.exp(-3 * z)) for item, z in zip(items, logit, strict=True)})
    one, three = members_of([honest, loud], gold, boosted=True, scaled=True)
    assert one.temperature == pytest.approx(1, abs=0.1) and three.temperature == pytest.approx(3, abs=0.3)
    assert one.error == three.error and one.weight == three.weight == 0.5
    made, alone = second(combine_labels([honest, loud], [one, three])), second(honest)
    assert max(abs(made[item] - alone[item]) for item in items) < 0.03  # scaled, both say the same


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="no item in common"):
        combine_labels([labels("a", {"x": 0.5}), labels("b", {"y": 0.5})], [Member("a", 0.5), Member("b", 0.5)])
    with pytest.raises(UserError, match="none of the validation items"):
        members_of([labels("a", {"x": 0.5})], {"y": "1"}, boosted=False, scaled=False)
    with pytest.raises(UserError, match="are fitted on validation items"):
        Ensemble(labels=["$a", "$b"], weights="adaboost").check()
    with pytest.raises(UserError, match="changes nothing with weights: mean"):
        Ensemble(labels=["$a", "$b"], gold="$items").check()
