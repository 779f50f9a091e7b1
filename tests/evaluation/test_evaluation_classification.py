"""Measures of classifiers: AUROC with ties, balanced accuracy, F1, and the arms of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation import Answers, Arm, ArmRun, evaluate_arms, verdict
from w2s_align.evaluation.classification import (
    auroc,
    balanced_accuracy,
    classifier_results,
    f1,
    right_or_wrong,
)
from w2s_align.evaluation.results import Results
from w2s_align.records import Prompt, Score, to_table


def test_auroc_counts_ties_one_half():
    assert auroc([0.3] * 10, [True] * 4 + [False] * 6) == 0.5
    assert auroc([0.1, 0.9, 0.5, 0.5], [False, True, True, False]) == 0.875  # 3 of 4 pairs, and a tie
    assert auroc([1, 2, 3], [False, False, True]) == 1 and auroc([3, 2, 1], [False, False, True]) == 0
    assert auroc([1, 2], [True, True]) is None
    dice = np.random.default_rng(0)
    x, y = dice.integers(0, 5, 60), dice.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in x[y] for b in x[~y]]
    assert auroc(x, y) == pytest.approx(np.mean(pairs))


def test_balanced_accuracy_and_f1():
    gold, said = [0] * 8 + [1] * 2, [0] * 8 + [1, 0]
    assert balanced_accuracy(said, gold) == 0.75
    assert f1(said, gold, 1) == pytest.approx(2 / 3)
    assert f1([0, 0], [0, 0], 1) == 0


ITEMS = to_table([Prompt.of(f"item {i}", answer=str(i % 2), task="t") for i in range(200)])


def labels(right: np.ndarray, sure: float = 0.9):
    rows = []
    for prompt, good, gold in zip(ITEMS["id"].to_pylist(), right, ITEMS["answer"].to_pylist(), strict=True):
        said = gold if good else str(1 - int(gold))
        p = [{"label": name, "p": sure if name == said else 1 - sure} for name in "01"]
        rows.append(Score(prompt, 0, "m", "label", sure, answer=said, probabilities=p))
    return to_table(rows)


def results(weak, students, ceiling) -> Results:
    def arm(name, role, runs):
        made = [ArmRun(str(i), {"labels": Answers(right_or_wrong(ITEMS, labels(run)))}) for i, run in enumerate(runs)]
        return Arm(name, role, made)

    arms = [arm("weak", "teacher", [weak]), arm("xent", "treatment", students), arm("top", "ceiling", [ceiling])]
    return evaluate_arms(ITEMS, arms, "weak")


PLACES = np.arange(200)
WEAK, MIDDLE, TOP = PLACES % 10 < 7, PLACES % 10 < 9, PLACES >= 0


def test_a_supervisor_as_baseline_gives_the_gap_and_one_comparison():
    found = results(WEAK, [MIDDLE, MIDDLE], TOP)
    (gap,) = found.gaps
    assert (gap.measure, gap.lower, gap.upper) == ("PGR", "weak", "top")
    assert gap.estimate.value == pytest.approx(2 / 3) and gap.estimate.low < 2 / 3 < gap.estimate.high
    assert [(c.first, c.second) for c in found.comparisons] == [("xent", "weak"), ("top", "weak")]
    (agreed, top) = found.agreements
    assert agreed.arm == "xent" and agreed.teacher_right == 1 and agreed.teacher_wrong == pytest.approx(1 / 3)
    assert top.teacher_wrong == 0
    said = verdict(found)
    assert said.status == "improved" and "against 70% for its supervisor weak" in said.sentence
    assert "It recovers 0.67 (" in said.sentence and "of the gap to top" in said.sentence


def test_agreement_is_the_mean_over_the_runs():
    found = results(WEAK, [MIDDLE, WEAK], TOP)
    assert found.agreements[0].teacher_wrong == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("top", [WEAK, PLACES % 10 < 6])
def test_a_ceiling_that_is_not_above_the_weak_model_leaves_the_gap_undefined(top):
    found = results(WEAK, [MIDDLE], top)
    assert found.gaps[0].estimate.value is None and "not defined" in found.gaps[0].estimate.method
    assert "is not defined: no ceiling lies above the supervisor" in verdict(found).sentence


def test_what_stands_beside_the_accuracy_of_an_arm():
    (found,) = classifier_results(ITEMS, {"xent": [labels(MIDDLE), labels(TOP)]})
    assert found.balanced_accuracy.value == pytest.approx(0.95)
    assert found.balanced_accuracy.low < 0.95 < found.balanced_accuracy.high <= 1
    assert found.confidence == pytest.approx(0.9) and found.calibration_error == pytest.approx(0.05)
    assert sum(found.classes.values()) == pytest.approx(1)
    (constant,) = classifier_results(ITEMS, {"flat": [labels(TOP, sure=0.5)]})
    assert constant.auroc.value == 0.5


def test_items_without_gold_answers_and_of_other_classes_are_refused():
    bare = to_table([Prompt.of("item 0"), Prompt.of("item 1", answer="1")])
    with pytest.raises(UserError, match="1 of the 2 test items have no gold answer"):
        right_or_wrong(bare, labels(TOP))
    with pytest.raises(UserError, match="'yes' of the test is none of the classes 0, 1"):
        right_or_wrong(to_table([Prompt.of("item 0", answer="yes")]), labels(TOP))


def test_the_results_turn_into_json_and_back():
    found = results(WEAK, [MIDDLE], TOP)
    found = found.model_copy(update={"classifiers": classifier_results(ITEMS, {"weak": [labels(WEAK)]})})
    assert Results.model_validate_json(found.model_dump_json()) == found
