"""Training seeds as a source of uncertainty: their part of the variance, intervals, p-values, and the verdict."""

import numpy as np
import pytest
from scipy import stats

from w2s_align.evaluation import Answers, Arm, ArmRun, evaluate_arms, verdict
from w2s_align.evaluation.seeds import SeedPart, detectable, p_with_seeds, seed_part, widened
from w2s_align.records import Prompt, Score, to_table


def test_one_run_says_nothing_of_others():
    assert seed_part(np.ones((1, 5))) is None
    assert seed_part(np.full((2, 3), np.nan)) is None


def test_the_part_is_the_variance_between_runs_without_the_noise_of_the_problems():
    runs = np.array([[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    means = runs.mean(axis=1)
    noise = sum((runs[:, i] - means).var(ddof=1) for i in range(4)) / 16
    found = seed_part(runs)
    assert found == SeedPart(pytest.approx((means.var(ddof=1) - noise) / 3), 2)
    weighted = seed_part(runs, np.array([2.0, 2.0, 0.0, 0.0]))
    assert weighted.variance == pytest.approx(seed_part(runs[:, :2]).variance)


def test_runs_that_differ_by_chance_alone_add_nothing_on_average():
    rng = np.random.default_rng(0)
    parts = [seed_part((rng.random((3, 400)) < 0.6).astype(float)).variance for _ in range(300)]
    assert np.mean(parts) < 0.5 * 0.24 / 400 / 3


def test_the_ends_move_by_the_sum_of_squares():
    part = SeedPart(0.0004, 2)
    extra = stats.t.ppf(0.975, 2) ** 2 * 0.0004
    low, high = widened(0.2, 0.15, 0.22, [part], 0.95, None)
    assert (0.2 - low) ** 2 == pytest.approx(0.05**2 + extra)
    assert (high - 0.2) ** 2 == pytest.approx(0.02**2 + extra)
    assert widened(0.9, 0.85, 0.95, [SeedPart(0.01, 2)], 0.95, (0.0, 1.0))[1] == 1.0
    assert widened(0.2, 0.15, 0.22, [SeedPart(0.0, 2)], 0.95, None) == (0.15, 0.22)


def test_the_p_value_is_where_the_interval_reaches_zero():
    part = SeedPart(0.0004, 2)
    p = p_with_seeds(0.2, 1e-9, [part])
    error = 0.2 / stats.norm.isf(1e-9 / 2)
    half = stats.norm.isf(p / 2) * error
    low, _ = widened(0.2, 0.2 - half, 0.2 + half, [part], 1 - p, None)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert p_with_seeds(0.2, 0.01, [SeedPart(0.0, 2)]) == 0.01
    assert p_with_seeds(0.0, 1.0, [part]) == 1.0
    assert 0 < p_with_seeds(0.5, 0.0, [part]) < 0.01


def test_what_can_be_detected_grows():
    assert detectable(None, [SeedPart(0.01, 2)], 0.95) is None
    assert detectable(0.1, [], 0.95) == pytest.approx(0.1)
    assert detectable(0.1, [SeedPart(0.01, 2)], 0.95) > 0.5


@pytest.mark.parametrize(("runs", "spread"), [(3, 0.0), (3, 0.05), (5, 0.02)])
def test_intervals_cover_the_method(runs, spread):
    """400 studies each; ``scripts/check_coverage.py`` has the whole grid, through the real intervals."""
    rng = np.random.default_rng([runs, int(1000 * spread)])
    covered = 0
    for _ in range(400):
        hard = rng.normal(0, 0.25, 300)
        chance = np.clip(0.6 + hard + rng.normal(0, spread, (runs, 1)), 0, 1)
        truth = np.clip(0.6 + hard, 0, 1).mean()
        values = (rng.random((runs, 300)) < chance).astype(float)
        each = values.mean(axis=0)
        half = 1.96 * each.std(ddof=1) / np.sqrt(300)
        parts = [part for part in [seed_part(values)] if part]
        low, high = widened(each.mean(), each.mean() - half, each.mean() + half, parts, 0.95, None)
        covered += low <= truth <= high
    assert covered / 400 > 0.92


PROMPTS = [Prompt.of(f"problem {i}") for i in range(200)]


def arm(name, role, *runs):
    """An arm from its scores, one list per seed."""
    made = [
        ArmRun(
            str(seed),
            {
                "greedy": Answers(
                    to_table([Score(p.id, 0, name, "exact", v) for p, v in zip(PROMPTS, values, strict=True)])
                )
            },
        )
        for seed, values in enumerate(runs)
    ]
    return Arm(name, role, made)


def solved(number):
    return [float(i < number) for i in range(200)]


BEFORE = arm("before", "student", solved(100))


def judged(*arms):
    results = evaluate_arms(to_table(PROMPTS), [BEFORE, arm("weak", "teacher", solved(40)), *arms], "before")
    return verdict(results), results


def test_seeds_that_differ_widely_prove_nothing_of_the_method():
    found, results = judged(arm("dpo", "treatment", solved(105), solved(140), solved(190)))
    assert found.status == "no_effect"
    estimate = results.arm("dpo").settings["greedy"].estimate
    assert "3 training seeds (t)" in estimate.method
    assert estimate.low < 0.5 < 0.72 < estimate.high


def test_seeds_that_agree_prove_it():
    found, _ = judged(arm("dpo", "treatment", solved(150), solved(152), solved(148)))
    assert (found.status, found.about) == ("improved", "method")
    assert found.headline == "The student became better than its teacher."


def test_one_seed_is_about_this_model():
    found, _ = judged(arm("dpo", "treatment", solved(150)))
    assert (found.status, found.about) == ("improved", "model")
    assert found.headline == "This model became better than its teacher."


def test_answers_that_could_not_be_scored_never_raise_the_verdict():
    unscored = [1.0] * 100 + [None] * 60 + [0.0] * 40
    found, results = judged(arm("dpo", "treatment", unscored))
    assert found.status == "no_effect"
    assert "60 of 200 answers of dpo, which could be anywhere from 50 to 80%" in found.sentence
    setting = results.arm("dpo").settings["greedy"]
    assert setting.possible == (0.5, 0.8)
    comparison = results.comparison("greedy", "dpo", "before")
    assert comparison.worst_case.difference.value == 0.0


def test_a_gain_that_no_unscored_answer_can_undo_stays():
    unscored = [1.0] * 180 + [None] * 10 + [0.0] * 10
    found, _ = judged(arm("dpo", "treatment", unscored))
    assert found.status == "improved"
    assert "10 of 200 answers of dpo" in found.sentence


def test_unscored_answers_of_the_baseline_count_as_right_against_a_gain():
    before = arm("before", "student", [1.0] * 60 + [None] * 100 + [0.0] * 40)
    arms = [before, arm("weak", "teacher", solved(40)), arm("dpo", "treatment", solved(150))]
    found = verdict(evaluate_arms(to_table(PROMPTS), arms, "before"))
    assert found.status == "no_effect" and "100 of 200 answers of before" in found.sentence
