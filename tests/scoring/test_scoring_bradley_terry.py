"""Bradley-Terry strengths: by hand, against choix, and where the data do not determine them."""

import math
import random

import pytest

from w2s_align.errors import UserError
from w2s_align.scoring.bradley_terry import bradley_terry


def test_two_items_by_hand():
    # 3 wins of 4: the log-odds ln 3 are the difference of strengths; a tiny prior hardly moves it.
    found = bradley_terry([("a", "b", 3.0), ("b", "a", 1.0)], prior=1e-9)
    assert found.values["a"] - found.values["b"] == pytest.approx(math.log(3), abs=1e-6)
    assert sum(found.values.values()) == pytest.approx(0, abs=1e-6)
    assert (found.groups, found.separated, found.notes) == ([["a", "b"]], False, [])


def test_a_tie_is_half_a_win_for_each_side():
    ties = bradley_terry([("a", "b", 0.5), ("b", "a", 0.5)])
    assert ties.values == {"a": 0.0, "b": 0.0}
    # 2 wins and 2 ties of 4 count like 3 of 4
    mixed = bradley_terry([("a", "b", 2.0), *[("a", "b", 0.5), ("b", "a", 0.5)] * 2], prior=1e-9)
    assert mixed.values["a"] - mixed.values["b"] == pytest.approx(math.log(3), abs=1e-6)


def test_equal_to_choix_and_near_to_what_was_planted():
    import choix
    import numpy as np

    draw = random.Random(0)
    planted = [draw.gauss(0, 1) for _ in range(10)]
    wins = []
    for _ in range(3000):
        i, j = draw.sample(range(10), 2)
        wins.append((i, j) if draw.random() < 1 / (1 + math.exp(planted[j] - planted[i])) else (j, i))
    expected = choix.opt_pairwise(10, wins, alpha=0.01, method="Newton-CG", tol=1e-10)
    found = bradley_terry([(str(i), str(j), 1.0) for i, j in wins], prior=0.01)
    values = np.array([found.values[str(i)] for i in range(10)])
    assert values == pytest.approx(expected, abs=1e-5)
    truth = np.array(planted) - np.mean(planted)
    assert np.sqrt(np.mean((values - truth) ** 2)) < 0.15  # verifiers.md 7.6: .077 in one draw


def test_items_that_were_never_compared_are_said():
    found = bradley_terry(
        [("a", "b", 1.0), ("b", "a", 2.0), ("c", "d", 3.0), ("d", "c", 1.0), ("c", "e", 1.0), ("e", "c", 1.0)]
    )
    assert found.groups == [["a", "b"], ["c", "d", "e"]]
    assert found.notes == ["No comparisons between {a, b} and {c, d, e}: their strengths cannot be compared."]
    for group in found.groups:
        assert sum(found.values[item] for item in group) == pytest.approx(0, abs=1e-8)


def test_perfect_separation_is_finite_in_order_and_said():
    found = bradley_terry([("a", "b", 500.0), ("b", "c", 500.0), ("a", "c", 500.0)], prior=1e-4)
    assert found.separated and "size of the difference is not" in found.notes[0]
    assert found.values["a"] > found.values["b"] > found.values["c"]
    assert all(math.isfinite(value) and abs(value) < 50 for value in found.values.values())
    cycle = bradley_terry([("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 1.0)])
    assert not cycle.separated and set(cycle.values.values()) == {0.0}


def test_no_wins_and_wrong_wins():
    assert bradley_terry([]).values == {}
    with pytest.raises(UserError, match="is not a win"):
        bradley_terry([("a", "a", 1.0)])
    with pytest.raises(UserError, match="is not a win"):
        bradley_terry([("a", "b", -1.0)])
    with pytest.raises(UserError, match="not above 0"):
        bradley_terry([("a", "b", 1.0)], prior=0.0)
