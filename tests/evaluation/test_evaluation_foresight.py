"""Predictions of a target from a student's responses: known mixtures, what is unsure, what points the wrong way."""

from __future__ import annotations

import math
import random

import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation.foresight import direction, predict


def study(problems=300, samples=8, slip=0.5, target_slip=0.2, seed=0):
    """A response is right with probability 1 - slip; the target slips with another one."""
    dice = random.Random(seed)
    rows = []
    for problem in range(problems):
        for _ in range(samples):
            right = dice.random() > slip
            ratio = math.log((1 - target_slip) / (1 - slip)) if right else math.log(target_slip / slip)
            rows.append((str(problem), float(right), ratio))
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("target", [0.1, 0.5, 0.8])
def test_the_target_of_a_known_mixture(target):
    problems, right, ratios = study(target_slip=target)
    found = predict(problems, right, ratios, 1.0)
    assert found.accuracy == pytest.approx(1 - target, abs=0.03)
    assert found.low < 1 - target < found.high
    assert not found.unsure and found.effective <= len(problems) + 1e-6
    assert predict(problems, right, [0.0] * len(right), 0.0).effective == pytest.approx(len(right))


def test_a_constant_in_all_ratios_changes_nothing_and_few_effective_responses_are_said():
    problems, right, ratios = study()
    moved = predict(problems, right, [ratio - 700 for ratio in ratios], 1.0)
    assert moved.accuracy == pytest.approx(predict(problems, right, ratios, 1.0).accuracy)
    one = [0.0] * len(ratios)
    one[3] = 60.0
    assert predict(problems, right, one, 2.0).unsure


def test_intervals_cover():
    inside = 0
    for seed in range(100):
        problems, right, ratios = study(problems=80, samples=4, seed=seed)
        found = predict(problems, right, ratios, 1.0, seed)
        inside += found.low <= 0.8 <= found.high
    assert inside >= 88


def test_which_responses_the_contrasts_prefer():
    problems, right = ["a", "a", "a", "b", "b", "c"], [1, 0, 0, 0, 1, 1]
    found = direction(problems, right, [2.0, 1.0, 3.0, 0.0, 4.0, 9.0], [5, 5, 9, 2, 1, 7])
    assert found is not None and found.problems == 2
    assert found.share == (0.5 + 1) / 2
    assert found.strength == pytest.approx(((2 - 1 + 2 - 3) / 2 + 4) / 2)
    assert found.longer == (0.25 + 0) / 2
    assert direction(["a", "b"], [1, 0], [1.0, 2.0], [1, 1]) is None


def test_scores_must_be_shares():
    with pytest.raises(UserError, match="Scores go from 0 to 45"):
        predict(["a", "b"], [0, 45], [0.0, 0.0], 1.0)
    with pytest.raises(UserError, match="no response to predict from"):
        predict([], [], [], 1.0)
