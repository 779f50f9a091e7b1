"""Budgets of labels: the golden grid, the golden frontier, and errors without structure."""

from __future__ import annotations

import random

import pytest

from w2s_align.evaluation.budget import frontier, purchases, shuffled_errors

GOLDEN = {  # (weak, exact) at a weak price of .1, for shares .8, .6, .4, .2, .05
    16: [(40, 12), (70, 9), (100, 6), (130, 3), (160, 0)],
    64: [(130, 51), (260, 38), (390, 25), (520, 12), (610, 3)],
    256: [(520, 204), (1030, 153), (1540, 102), (2050, 51), (2440, 12)],
    1024: [(2050, 819), (4100, 614), (6150, 409), (8200, 204), (9730, 51)],
    4096: [(8200, 3276), (16390, 2457), (24580, 1638), (32770, 819), (38920, 204)],
}


def test_the_golden_grid():
    found = purchases(GOLDEN, 0.1)
    for budget, wanted in GOLDEN.items():
        assert [(p.weak, p.exact) for p in found if p.budget == budget] == wanted
    assert [(p.weak, p.exact) for p in purchases([256], 0.5)] == [
        (104, 204),
        (206, 153),
        (308, 102),
        (410, 51),
        (488, 12),
    ]


@pytest.mark.parametrize("price", [0.01, 0.1, 0.5])
def test_no_purchase_exceeds_its_budget_and_none_leaves_a_weak_label_unbought(price):
    for found in purchases([16, 64, 256, 512, 1024, 4096], price, (0, 0.05, 0.5, 1)):
        assert found.budget - price < found.cost(price) <= found.budget + 1e-6


def test_end_points_and_the_number_of_items():
    first, last = purchases([64], 0.1, (0, 1))
    assert (first.weak, first.exact, last.weak, last.exact) == (640, 0, 0, 64)
    assert [p.exact for p in purchases([16, 64], 0.1, (1,), most_exact=20)] == [16]
    for wrong in ({"price": 0}, {"budgets": [0]}, {"shares": [1.2]}):
        with pytest.raises(ValueError):
            purchases(**{"budgets": [16], "price": 0.1} | wrong)


def test_the_golden_frontier():
    points = [(10, 0.60), (20, 0.62), (21, 0.70), (40, 0.701), (41, 0.71)]
    assert [cost for cost, _ in frontier(points)] == [10, 21, 41]
    assert frontier(points[::-1]) == frontier(points)


def test_shuffled_errors_keep_the_error_rate_and_lose_the_structure():
    rng = random.Random(0)
    gold = {f"i{i}": rng.randrange(2) for i in range(2000)}
    weak = {
        item: rng.random() * 0.4 + (0.6 if int(item[1:]) < 600 else 0.0) * (1 - y) + 0.5 * y * (int(item[1:]) >= 600)
        for item, y in gold.items()
    }
    made = shuffled_errors(weak, gold, 0)

    def errors(labels):
        return sorted(round(abs(labels[item] - gold[item]), 9) for item in gold)

    assert errors(made) == errors(weak) and all(0 <= p <= 1 for p in made.values())
    wrong = [item for item in gold if (made[item] > 0.5) != gold[item]]
    early = sum(int(item[1:]) < 600 for item in wrong) / len(wrong)
    assert 0.25 < early < 0.35  # before all of them were among the first 600
