"""Budgets of labels: the golden frontier, and errors without structure."""

from __future__ import annotations

import random

import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation.budget import frontier, shuffled_errors, with_shuffled_errors
from w2s_align.records import Prompt, Score, from_table, to_table


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


def test_labels_with_shuffled_errors_keep_their_probabilities_of_being_wrong_and_leave_out_what_has_no_gold() -> None:
    items = [Prompt.of(f"item {i}", answer=None if i == 5 else "yes" if i % 2 else "no") for i in range(6)]
    weak = [0.1, 0.8, 0.7, 0.4, 0.2, 0.9]
    rows = [
        Score(item.id, 0, "m", "label", max(p, 1 - p), answer="yes" if p > 0.5 else "no",
              probabilities=[{"label": "no", "p": 1 - p}, {"label": "yes", "p": p}])
        for item, p in zip(items, weak, strict=True)
    ]  # fmt: skip
    made = from_table(Score, with_shuffled_errors(to_table(rows, Score), to_table(items, Prompt), 1))
    assert [row.prompt_id for row in made] == [item.id for item in items[:5]]
    gold = {item.id: item.answer for item in items}

    def errors(labels: list[Score]) -> list[float]:
        right = [{e["label"]: e["p"] for e in row.probabilities or ()}[gold[row.prompt_id]] for row in labels]
        return [round(1 - p, 9) for p in right]

    assert sorted(errors(made)) == sorted(errors(rows[:5])) and errors(made) != errors(rows[:5])
    assert all(row.value == max(e["p"] for e in row.probabilities or ()) for row in made)
    with pytest.raises(UserError, match="errors of these labels are not known"):
        with_shuffled_errors(to_table(rows[5:], Score), to_table(items, Prompt), 1)
