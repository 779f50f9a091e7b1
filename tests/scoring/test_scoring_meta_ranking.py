"""Meta Ranking: the published simulation, a comparator that really reads the texts, and what cannot work."""

from __future__ import annotations

import re

import numpy as np
import pytest

from w2s_align.errors import UserError
from w2s_align.scoring.meta_ranking import (
    Item,
    Known,
    MetaRankingSettings,
    calibrate,
    compare,
    draw_known,
    meta_scores,
)


def simulate(a: float, references: int, n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes of a comparator that is right with probability ``a`` where correctness differs and ties in 10%."""
    rng = np.random.default_rng(seed)
    right, reference = rng.random(n) < 0.5, np.arange(references) % 2
    differs = right[:, None] != (reference == 1)
    better = np.where(right, 1, -1)[:, None]
    says = np.where(rng.random((n, references)) < a, better, -better)
    says = np.where(differs, says, np.where(rng.random((n, references)) < 0.5, 1, -1))
    outcomes = np.where(rng.random((n, references)) < 0.1, 0, says).astype(np.int8)
    return outcomes, reference.astype(float), right


def accuracy(scores: np.ndarray, right: np.ndarray) -> float:
    """Share decided rightly; of an even score half."""
    return float(np.where(np.isclose(scores, 0.5), 0.5, (scores > 0.5) == right).mean())


PUBLISHED = {
    0.6: [0.54, 0.57, 0.59, 0.62, 0.66],
    0.7: [0.59, 0.65, 0.68, 0.73, 0.81],
    0.8: [0.65, 0.72, 0.77, 0.83, 0.92],
}


@pytest.mark.parametrize("a", PUBLISHED)
def test_the_accuracy_is_that_of_the_trial_runs(a: float) -> None:
    found = []
    for count in (2, 4, 6, 10, 20):
        outcomes, reference, right = simulate(a, count)
        found.append(accuracy(meta_scores(outcomes, reference), right))
    assert found == pytest.approx(PUBLISHED[a], abs=0.015)


def test_log_odds_are_as_good_and_calibrated() -> None:
    for count, published in ((4, 0.721), (10, 0.834), (20, 0.916)):
        outcomes, reference, right = simulate(0.8, count)
        learned = calibrate(outcomes[:2000], reference, right[:2000].astype(float))
        scores = meta_scores(outcomes[2000:], reference, learned)
        assert accuracy(scores, right[2000:]) == pytest.approx(published, abs=0.01)
        for low in (0.5, 0.6, 0.7, 0.8):
            inside = (scores >= low) & (scores < low + 0.1)
            if inside.sum() > 300:
                assert right[2000:][inside].mean() == pytest.approx(scores[inside].mean(), abs=0.05)


def items(count: int, share: float = 0.5, start: int = 0) -> list[Known]:
    """Sums with right and wrong results."""
    made = []
    for i in range(start, start + count):
        right = (i * 7919) % 100 < 100 * share
        made.append(Known(f"p{i}", f"What is {i} + {i}?", str(2 * i if right else 2 * i + 1), right))
    return made


def careful(questions: list[str]) -> list[str | None]:
    """A comparator that does the sums in what it is shown."""
    answers: list[str | None] = []
    for question in questions:
        sums = re.findall(r"What is (\d+) \+ \d+\?\n\[Response [AB]\]\n(\d+)", question)
        good = [2 * int(number) == int(said) for number, said in sums]
        answers.append("tie" if good[0] == good[1] else "Verdict: A" if good[0] else "Verdict: B")
    return answers


def test_a_careful_comparator_tells_right_from_wrong() -> None:
    known, targets = items(60), items(40, start=100)
    settings = MetaRankingSettings(comparisons=6, calibration=20)
    references, rest = draw_known(known, settings, seed=0)
    assert sum(one.right for one in references) == 3 and len(rest) == 20
    assert not {one.prompt_id for one in references} & {one.prompt_id for one in rest}
    right = np.array([one.right for one in references], float)
    outcomes = compare(targets, references, careful)
    truth = np.array([one.right for one in targets])
    assert ((meta_scores(outcomes, right) > 0.5) == truth).all()
    learned = calibrate(compare(rest, references, careful), right, np.array([one.right for one in rest], float))
    scores = meta_scores(outcomes, right, learned)
    assert scores[truth].min() > 0.8 and scores[~truth].max() < 0.2


def test_a_judge_that_always_says_the_first_says_nothing() -> None:
    outcomes = compare(items(5), items(4, start=50), lambda questions: ["A"] * len(questions))
    assert (outcomes == 0).all()
    assert (meta_scores(outcomes, np.array([1.0, 0, 1, 0])) == 0.5).all()


def test_unreadable_answers_and_references_of_the_same_prompt_count_for_nobody() -> None:
    references = [*items(2), Known("p7", "other", "x", True)]
    targets = [*items(1, start=7), Item("q", "What is 1 + 1?", "2")]
    outcomes = compare(targets, references, lambda questions: [None] * len(questions))
    assert (outcomes == -2).all() and np.isnan(meta_scores(outcomes, np.array([1.0, 0, 1]))).all()
    told = compare(targets, references, lambda questions: ["B"] * len(questions))
    assert told[0, 2] == -2 and told[1, 2] == 0


def test_too_few_of_a_kind() -> None:
    with pytest.raises(UserError, match="3 wrong references are needed, of 3 prompts, and there are 0"):
        draw_known(items(20, share=1.0), MetaRankingSettings(), seed=0)
    with pytest.raises(UserError, match="Calibration needs right and wrong"):
        draw_known(items(6), MetaRankingSettings(comparisons=6, calibration=5), seed=0)
    with pytest.raises(UserError, match=r"lacks \{second\}"):
        MetaRankingSettings(template="{first_prompt} {first} {second_prompt}").check_template()
