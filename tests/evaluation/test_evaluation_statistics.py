"""Statistics against scipy and statsmodels on the same numbers, by hand, and where there is nothing to estimate."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from w2s_align.evaluation import (
    holm,
    majority_at_n,
    mcnemar_exact,
    mean_interval,
    minimum_detectable_effect,
    paired_difference,
    pass_at_k,
    performance_gap_recovered,
    sign_flip_test,
    wilson,
)

NAN = float("nan")


def shares(n, problems, seed=0, mean=(2, 1)):
    rng = np.random.default_rng(seed)
    return rng.binomial(n, rng.beta(*mean, problems)) / n


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 7), (170, 1000), (1, 1)])
def test_wilson_is_statsmodels(successes, trials):
    assert wilson(successes, trials) == pytest.approx(
        proportion_confint(successes, trials, method="wilson"), abs=1e-12
    )


def test_one_answer_per_problem_is_wilson():
    found = mean_interval([1, 1, 0, 1])
    assert (found.value, found.method, found.problems) == (0.75, "Wilson", 4)
    assert (found.low, found.high) == pytest.approx(proportion_confint(3, 4, method="wilson"))


@pytest.mark.parametrize(
    "values", [shares(8, 200), shares(8, 60, mean=(9, 1)), np.random.default_rng(1).normal(size=80)]
)
def test_bca_is_scipys(values):
    ours = mean_interval(values, bounds=None, resamples=60_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=60_000, method="BCa", rng=np.random.default_rng(7))
    width = ours.high - ours.low
    assert ours.method == "BCa bootstrap"
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_shares_are_never_given_less_than_wilson_gives_them():
    values = np.array([1.0] * 47 + [0.875, 0.75, 0.5])
    bounded, free = mean_interval(values), mean_interval(values, bounds=None)
    assert bounded.low <= free.low and bounded.high >= free.high
    assert bounded.method == "BCa bootstrap, never narrower than Wilson"


def test_pgr_interval_is_scipys():
    rng = np.random.default_rng(4)
    ceiling = rng.binomial(8, 0.8, 150) / 8
    weak, student = ceiling * 0.4, np.clip(ceiling - rng.binomial(2, 0.5, 150) / 8, 0, 1)

    def ratio(w, s, c, axis=-1):
        return (s.mean(axis) - w.mean(axis)) / (c.mean(axis) - w.mean(axis))

    ours = performance_gap_recovered(weak, student, ceiling, resamples=40_000)
    rng = np.random.default_rng(5)
    theirs = stats.bootstrap((weak, student, ceiling), ratio, paired=True, n_resamples=40_000, method="BCa", rng=rng)
    assert ours.value == pytest.approx(float(ratio(weak, student, ceiling)))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.004)


def test_pgr_by_hand_and_undefined():
    weak, student, ceiling = [0.0] * 60, [0.5] * 60, [1.0] * 60
    assert performance_gap_recovered(weak, student, ceiling).value == 0.5
    few = performance_gap_recovered([0.0] * 10, [0.5] * 10, [1.0] * 10)
    assert (few.value, few.low, few.method) == (0.5, None, "no interval: 10 problems are too few")
    flat = performance_gap_recovered([0, 1] * 30, [1, 1] * 30, [1, 0] * 30)
    assert flat.value is None
    assert flat.method.startswith(
        "not defined: the gap between ceiling and weak, 0.000, has an interval that touches 0"
    )
    assert performance_gap_recovered([NAN], [1], [1]).method.startswith("not defined: no problem")


@pytest.mark.parametrize("n", [3, 9, 14])
def test_exact_sign_flips_are_scipys(n):
    d = np.random.default_rng(n).integers(-4, 6, n) / 8
    ours, name = sign_flip_test(d)
    theirs = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert name == "sign flips, exact"
    assert ours == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(
    "d", [np.random.default_rng(2).integers(-3, 5, 60) / 8, np.random.default_rng(3).normal(0.2, 1, 90)]
)
def test_drawn_sign_flips_are_scipys(d):
    ours, name = sign_flip_test(d)
    rng = np.random.default_rng(6)
    theirs = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=20_000, rng=rng)
    assert name == "sign flips, 20,000 drawn"
    assert ours == pytest.approx(theirs.pvalue, abs=0.01)
    assert sign_flip_test(d) == (ours, name)


def test_a_drawn_p_value_is_never_zero():
    assert sign_flip_test([1.0] * 400)[0] == 1 / 20_001


@pytest.mark.parametrize(("better", "worse"), [(12, 3), (5, 5), (0, 0), (30, 0), (1, 0)])
def test_mcnemar_is_statsmodels(better, worse):
    expected = mcnemar([[40, better], [worse, 20]], exact=True).pvalue if better + worse else 1.0
    assert mcnemar_exact(better, worse) == pytest.approx(expected)


def test_difference_of_yes_and_no_uses_mcnemar():
    first, second = [1] * 12 + [0] * 3 + [1] * 40, [0] * 12 + [1] * 3 + [1] * 40
    found = paired_difference(first, second)
    assert (found.better, found.worse, found.test) == (12, 3, "exact McNemar")
    assert found.value == pytest.approx(9 / 55)
    assert found.p == pytest.approx(stats.binomtest(12, 15).pvalue)
    assert found.low < 9 / 55 < found.high


def test_holm_is_statsmodels_and_skips_the_missing():
    p = [0.01, 0.04, 0.03, 0.2, 0.0005]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([]) == []


def test_pass_at_k_by_hand():
    # n = 5, c = 2: 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10
    assert pass_at_k([5, 5, 5, 5], [0, 2, 4, 5], 2) == pytest.approx([0.0, 0.7, 1.0, 1.0])
    assert pass_at_k([8, 8], [3, 8], 1) == pytest.approx([3 / 8, 1.0])
    assert pass_at_k([100], [7], 10) == pytest.approx([1 - math.comb(93, 10) / math.comb(100, 10)])
    with pytest.raises(ValueError, match="at least 4 scored answers"):
        pass_at_k([8, 3], [1, 1], 4)
    with pytest.raises(ValueError, match="between 0 and"):
        pass_at_k([4], [5], 2)


def test_majority():
    assert majority_at_n(["12", "12", "7"], [1, 1, 0]) == 1.0
    assert majority_at_n(["12", "7", "7"], [1, 0, 0]) == 0.0
    assert majority_at_n(["12", "7", None, None, None], [1, 0, 0, 0, 0]) == 0.5
    assert majority_at_n([None, None], [0, 0]) == 0.0
    assert majority_at_n([], []) is None
    with pytest.raises(ValueError, match="1 answers and 2 verdicts"):
        majority_at_n(["1"], [0, 1])


def test_minimum_detectable_effect_by_hand():
    d = np.array([1.0, -1.0, 0.0, 0.0] * 25)
    expected = (1.959964 + 0.841621) * d.std(ddof=1) / 10
    assert minimum_detectable_effect(d) == pytest.approx(expected, rel=1e-5)
    assert minimum_detectable_effect([0.0]) is None
    # no difference anywhere is not a perfect measurement: 30 problems cannot show less than about 15 points
    assert minimum_detectable_effect([0.0] * 30) > 0.15


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([1] * 50, 0.9286, 1.0), ([0] * 50, 0.0, 0.0714), ([1], 0.2065, 1.0), ([0], 0.0, 0.7935)],
)
def test_all_right_and_all_wrong_keep_a_width(values, low, high):
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_the_same_share_everywhere_keeps_a_width():
    found = mean_interval([0.5] * 40)
    assert found.low < 0.5 < found.high
    assert found.method == "exact bound: 40 problems, all alike"


def test_nothing_to_estimate():
    for values in ([], [NAN], [NAN, float("inf")]):
        found = mean_interval(values)
        assert (found.value, found.low, found.high, found.problems) == (None, None, None, 0)
    nothing = paired_difference([NAN, 1.0], [1.0, NAN])
    assert (nothing.value, nothing.p, nothing.problems) == (None, None, 0)


def test_nan_is_left_out_in_pairs():
    found = paired_difference([1, 1, NAN, 0], [0, 1, 1, NAN])
    assert (found.value, found.problems) == (0.5, 2)


def test_one_problem_claims_nothing():
    found = paired_difference([1.0], [0.0])
    assert (found.value, found.p, found.mde) == (1.0, 1.0, None)
    assert found.low < 0


def test_identical_arms_are_not_certain_to_be_equal():
    found = paired_difference([1, 0] * 25, [1, 0] * 25)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.low == pytest.approx(-0.0711, abs=1e-3)
    assert found.high == pytest.approx(0.0711, abs=1e-3)


def test_unbounded_scores():
    assert mean_interval([5.0] * 6, bounds=None).low is None
    few = mean_interval([1, 2, 3, 4, 5], bounds=None)
    expected = stats.t.interval(0.95, 4, loc=3, scale=stats.sem([1, 2, 3, 4, 5]))
    assert (few.low, few.high) == pytest.approx(expected)


def test_few_problems_stay_between_0_and_1():
    found = mean_interval([1.0, 1.0, 0.875, 1.0, 1.0])
    assert 0 < found.low < found.value < found.high <= 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one number per problem"):
        paired_difference([1, 0], [1])


@pytest.mark.parametrize(("problems", "answers"), [(60, 1), (60, 8), (15, 8), (300, 8)])
def test_intervals_cover_the_truth(problems, answers):
    """The large version, with the sizes and counts that users meet, is scripts/check_coverage.py."""
    rng = np.random.default_rng([problems, answers])
    covered, alarms, studies = 0, 0, 300
    for study in range(studies):
        chance = rng.beta(1.2, 0.8, problems)
        first, second = rng.binomial(answers, chance, (2, problems)) / answers
        found = mean_interval(first, resamples=1_000, seed=study)
        covered += found.low <= 0.6 <= found.high
        alarms += paired_difference(first, second, resamples=200, seed=study).p < 0.05
    # 95 % of 300 has a standard error of 1.3 points
    assert 0.91 <= covered / studies <= 0.99
    assert alarms / studies <= 0.09
