"""Several tasks, parts of the problems, one answer out of several, gaps recovered, agreement, calibration."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from simulated_study import study
from statsmodels.stats.multitest import multipletests

from w2s_align.errors import UserError
from w2s_align.evaluation import Answers, Arm, ArmRun, evaluate_arms, verdict
from w2s_align.evaluation.best_of_n import agreement, best_of_values, counted_answers, majority_values
from w2s_align.evaluation.calibration import calibration_error, fit_temperature, negative_log_likelihood
from w2s_align.evaluation.macro import macro_difference, macro_gap_recovered, macro_interval, over_seeds
from w2s_align.evaluation.run_comparison import RunArms, compare_studies
from w2s_align.records import Prompt, Score, to_table
from w2s_align.scoring import Outcome

NAN = float("nan")


def prompts(tasks: list[str], **meta: list) -> list[Prompt]:
    rows = [{name: values[i] for name, values in meta.items()} for i in range(len(tasks))]
    return [Prompt.of(f"{task} {i}", answer="1", task=task, meta=rows[i]) for i, task in enumerate(tasks)]


def arm(name: str, role: str, asked: list[Prompt], values: list[list[float | None]], found=None, **more) -> Arm:
    rows = [
        score_of(Score(p.id, i, name, "numeric", v), found[j][i] if found else "1")
        for j, (p, given) in enumerate(zip(asked, values, strict=True))
        for i, v in enumerate(given)
    ]
    return Arm(name, role, [ArmRun("0", {"greedy": Answers(to_table(rows, Score), **more)})])


def score_of(score: Score, found: str | None) -> Score:
    """Put what a check found into a score: an answer, None for no answer, or the reason of a missing value."""
    if score.value is None:
        return replace(score, detail=found, outcome=found)
    return replace(score, answer=found, outcome=Outcome.NO_ANSWER if found is None else None)


# --- the mean over tasks ---


def test_two_tasks_are_welch() -> None:
    """Mean over two tasks: half the sum of two means, whose interval is scipy's Welch interval of a difference."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.1, 40), rng.normal(0.7, 0.3, 15)
    tasks = np.array([0] * 40 + [1] * 15)
    found = macro_interval(np.concatenate([a, b]), tasks, bounds=None)
    expected = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx((a.mean() + b.mean()) / 2)
    assert (found.low, found.high) == pytest.approx((expected.low / 2, expected.high / 2))


def test_every_task_weighs_the_same_whatever_its_size() -> None:
    values = np.array([1.0] * 90 + [0.0] * 10)
    tasks = np.array([0] * 90 + [1] * 10)
    found = macro_interval(values, tasks)
    assert found.value == 0.5
    assert 0 < found.low < 0.5 < found.high < 1  # alike within each task, and still not certain


def test_a_task_that_only_one_arm_has_is_left_out_of_the_difference() -> None:
    first, second = np.array([1, 1, 0, 0, NAN, NAN]), np.array([0, 1, 0, 0, 1, 1.0])
    found = macro_difference(first, second, np.array([0, 0, 1, 1, 2, 2]))
    assert (found.value, found.problems, found.better, found.worse) == (0.25, 4, 1, 0)


def test_the_test_over_tasks_keeps_its_false_positive_rate() -> None:
    rng = np.random.default_rng(1)
    tasks = np.repeat([0, 1, 2], [80, 40, 20])
    alarms = 0
    for _ in range(400):
        p = rng.uniform(0.2, 0.8, 140)
        a, b = rng.binomial(4, p) / 4, rng.binomial(4, p) / 4
        alarms += macro_difference(a, b, tasks, seed=int(rng.integers(2**31))).p < 0.05
    assert 0.02 < alarms / 400 < 0.085


def test_the_interval_over_tasks_covers() -> None:
    rng = np.random.default_rng(2)
    tasks = np.repeat([0, 1, 2], [100, 50, 25])
    held = 0
    for _ in range(400):
        x = rng.binomial(1, np.repeat([0.3, 0.6, 0.9], [100, 50, 25])).astype(float)
        found = macro_interval(x, tasks)
        held += found.low <= 0.6 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_subjects_of_one_task_weigh_the_same_within_it() -> None:
    values = np.array([1.0, 0, 1, 1, 1, 1, 0, 0])
    tasks = np.array([[0, 1], [0, 1], [0, 2], [0, 2], [0, 2], [0, 2], [1, 0], [1, 0]])
    alone = macro_interval(values[:6], tasks[:6])
    assert alone.value == pytest.approx((0.5 + 1) / 2) and alone.method == "mean of 2 subjects, stratified t"
    both = macro_interval(values, tasks)
    assert both.value == pytest.approx((0.75 + 0) / 2) and both.method.startswith("mean of 2 tasks (3 tasks and")
    found = macro_difference(values, np.zeros(8), tasks)
    assert found.value == pytest.approx(both.value) and (found.better, found.worse) == (5, 0)
    by_seed = over_seeds(
        found, [np.stack([values, values]), np.zeros((1, 8))], {"tasks": tasks, "bounds": None, "level": 0.95}
    )
    assert by_seed.value == found.value


def test_a_part_of_a_task_has_the_error_of_its_own_problems() -> None:
    """Unequal subjects: the standard error is that of a stratified mean, sqrt(sum of (w s)^2 / n)."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.2, 0.1, 30), rng.normal(0.6, 0.4, 12)
    parts = np.column_stack([np.zeros(42, dtype=int), [1] * 30 + [2] * 12])
    found = macro_interval(np.concatenate([a, b]), parts, bounds=None)
    expected = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low / 2, expected.high / 2))


def test_an_evaluation_can_be_the_mean_over_subjects() -> None:
    asked = [
        replace(p, id=f"{i}", meta={"subject": "big" if i < 6 else "small"}) for i, p in enumerate(prompts(["t"] * 8))
    ]
    before = arm("before", "student", asked, [[0.0]] * 8)
    after = arm("after", "treatment", asked, [[0.0]] * 6 + [[1.0]] * 2)
    found = evaluate_arms(to_table(asked), [before, after], "before", by_subject=["t"])
    assert found.arm("after").settings["greedy"].estimate.value == pytest.approx(0.5)
    assert found.by_subject == ["t"]
    plain = evaluate_arms(to_table(asked), [before, after], "before")
    assert plain.arm("after").settings["greedy"].estimate.value == pytest.approx(0.25)


def test_several_tasks_in_one_evaluation() -> None:
    asked = prompts(["easy"] * 6 + ["hard"] * 3)
    before = arm("before", "student", asked, [[1.0]] * 3 + [[0.0]] * 6)
    after = arm("after", "treatment", asked, [[1.0]] * 6 + [[0.0]] * 3)
    results = evaluate_arms(to_table(asked), [before, after], "before")
    assert results.tasks == ["easy", "hard"]
    assert results.arm("after").settings["greedy"].estimate.value == 0.5
    (tasks,) = results.breakdowns
    assert [(part.name, part.problems) for part in tasks.parts] == [("easy", 6), ("hard", 3)]
    easy = tasks.parts[0].arms["after"]
    assert (easy.estimate.value, easy.difference.value, easy.p) == (1.0, 0.5, 0.25)
    ps = [part.arms["after"].p for part in tasks.parts]
    assert [part.arms["after"].p_holm for part in tasks.parts] == pytest.approx(multipletests(ps, method="holm")[1])
    assert "on average over 2 tasks" in verdict(results).sentence


def test_a_task_of_which_nothing_was_scored_is_said() -> None:
    asked = prompts(["a"] * 2 + ["b"] * 2)
    before = arm("before", "student", asked, [[1.0]] * 4)
    after = arm("after", "treatment", asked, [[1.0], [0.0], [None], [NAN]])
    warnings = evaluate_arms(to_table(asked), [before, after], "before").warnings
    assert "after, greedy: nothing of b could be scored, so its mean leaves this task out." in warnings


def test_one_scorer_for_each_task() -> None:
    asked = prompts(["a", "b"])
    rows = [Score(p.id, 0, "m", f"scorer {p.task}", 1.0) for p in asked]
    one = Arm("before", "student", [ArmRun("0", {"greedy": Answers(to_table(rows))})])
    assert evaluate_arms(to_table(asked), [one], "before").metric == "2 tasks"
    mixed = [Score(p.id, i, "m", f"scorer {i}", 1.0) for p in asked for i in (0, 1)]
    one = Arm("before", "student", [ArmRun("0", {"greedy": Answers(to_table(mixed))})])
    with pytest.raises(UserError, match="come from 2 scorers: scorer 0, scorer 1"):
        evaluate_arms(to_table(asked), [one], "before")


def test_pass_at_k_as_the_metric_of_a_task() -> None:
    asked = prompts(["code"] * 2 + ["qa"])
    before = arm("before", "student", asked, [[1.0, 0.0, 0.0, 0.0], [0.0] * 4, [1.0]])
    results = evaluate_arms(to_table(asked), [before], "before", metrics={"code": "pass@2"})
    assert results.breakdowns[0].parts[0].arms["before"].estimate.value == 0.25  # (1 - C(3,2)/C(4,2) + 0) / 2
    assert results.breakdowns[0].parts[1].arms["before"].estimate.value == 1.0
    with pytest.raises(UserError, match="needs at least 10 scored answers"):
        evaluate_arms(to_table(asked), [before], "before", metrics={"code": "pass@10"})


def test_parts_by_difficulty_and_what_stands_beside_each_number() -> None:
    problems, arms = study(problems=80)
    results = evaluate_arms(problems, arms, "before")
    greedy = next(b for b in results.breakdowns if (b.by, b.setting) == ("difficulty", "greedy"))
    assert [part.name for part in greedy.parts] == ["0 carries", "1 carries", "2 carries", "3 carries"]
    assert sum(part.problems for part in greedy.parts) == 80
    reversed_part = greedy.parts[0].arms["reversed"]
    assert reversed_part.truncated_share > 0 and reversed_part.no_answer_share > 0 and reversed_part.mean_tokens > 0
    assert greedy.parts[0].arms["before"].difference is None


@pytest.mark.parametrize("values", [[[1.0]], [[0.0]], [[NAN]], [[None]]])
def test_one_problem_and_nothing_but_one_verdict(values: list) -> None:
    asked = prompts(["t"])
    arms = [arm("before", "student", asked, values), arm("dpo", "treatment", asked, values)]
    results = evaluate_arms(to_table(asked), arms, "before")
    estimate = results.arm("dpo").settings["greedy"].estimate
    if values[0][0] in (0.0, 1.0):
        assert estimate.low < 0.3 or estimate.high > 0.7  # one problem says nearly nothing
        assert estimate.high - estimate.low > 0.5
    else:
        assert estimate.value is None and verdict(results).status == "undefined"
    assert results.breakdowns == []


# --- one answer out of several ---


def test_majority_and_its_share_of_the_votes() -> None:
    asked = prompts(["t"] * 4)
    values = [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, None], [None, None, None]]
    found = [["1,000", "1000.0", "7"], ["3", "3.", "4"], ["5", None, "time-out"], ["x", "x", "x"]]
    scores = arm("a", "student", asked, values, found).runs[0].settings["greedy"].scores
    right, share = majority_values(scores, [p.id for p in asked])
    assert right.tolist()[:3] == [1.0, 0.0, 1.0] and math.isnan(right[3])
    assert share.tolist()[:3] == pytest.approx([2 / 3, 2 / 3, 1 / 2])


def test_answers_of_the_auto_scorer_and_of_one_that_keeps_none() -> None:
    rows = [
        Score("a", 0, "m", "auto", 1.0, "numeric: 12.0", "12.0"),
        Score("a", 1, "m", "auto", None, "no gold answer", outcome="no gold answer"),
        Score("a", 2, "m", "auto", 0.0, outcome=Outcome.NO_ANSWER),
    ]
    assert counted_answers(to_table(rows)) == ["12", None, None]
    assert counted_answers(to_table([*rows, Score("a", 3, "m", "code", 1.0, "passed")])) is None


def test_best_of_n_by_a_scorer() -> None:
    asked = prompts(["t"] * 3)
    ids = [p.id for p in asked]
    scores = arm("a", "student", asked, [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]).runs[0].settings["greedy"].scores
    liked = [[0.2, 0.9], [0.5, 0.5], [None, 3.0]]
    chooser = to_table(
        [Score(p, i, "a", "reward:x", v) for p, row in zip(ids, liked, strict=True) for i, v in enumerate(row)]
    )
    assert best_of_values(scores, chooser, ids).tolist() == [1.0, 0.5, 0.0]
    one = Arm("before", "student", [ArmRun("0", {"greedy": Answers(scores, choosers={"reward:x": chooser})})])
    chosen = {s.by: s for s in evaluate_arms(to_table(asked), [one], "before").arms[0].settings["greedy"].selections}
    assert chosen["reward:x"].estimate.value == 0.5
    assert chosen["reward:x"].gap.value == 0.5  # every problem has a right answer, half of the choices are right
    assert set(chosen) == {"majority", "reward:x"}


def test_agreement_tells_imitated_mistakes_apart() -> None:
    shares = agreement(["1", "2", "3", None], ["1", "2", "4", None], [1.0, 0.0, 0.0, 0.0])
    assert shares == {"all": 0.5, "teacher right": 1.0, "teacher wrong": pytest.approx(1 / 3)}
    assert agreement([], [], []) == {"all": None, "teacher right": None, "teacher wrong": None}


# --- gaps recovered ---


def test_pgr_and_rgr_with_their_guards() -> None:
    asked = prompts(["t"] * 200)

    def made(name, role, right):
        return arm(name, role, asked, [[float(i < right)] for i in range(200)])

    arms = [
        made("weak", "teacher", 60), made("before", "student", 80), made("dpo", "treatment", 120),
        made("gold", "ceiling", 160),
    ]  # fmt: skip
    gaps = {g.measure: g for g in evaluate_arms(to_table(asked), arms, "before").gaps}
    assert gaps["PGR"].estimate.value == pytest.approx(0.6)
    assert gaps["RGR"].estimate.value == pytest.approx(0.5)
    assert gaps["PGR"].estimate.low < 0.6 < gaps["PGR"].estimate.high
    arms[3] = made("gold", "ceiling", 80)
    undefined = {g.measure: g for g in evaluate_arms(to_table(asked), arms, "before").gaps}["RGR"].estimate
    assert undefined.value is None and "not defined" in undefined.method


def test_pgr_over_tasks_is_that_of_the_means_over_tasks() -> None:
    """A large task must not outweigh a small one: pooled over problems the value would be (0.8*0.5 + 0.2*1) = 0.59."""
    asked = prompts(["big"] * 320 + ["small"] * 80)

    def made(name, role, big, small):
        return arm(name, role, asked, [[float(i < big)] for i in range(320)] + [[float(i < small)] for i in range(80)])

    arms = [
        made("weak", "teacher", 64, 16), made("before", "student", 64, 16), made("dpo", "treatment", 160, 64),
        made("gold", "ceiling", 256, 64),
    ]  # fmt: skip
    gaps = {g.measure: g for g in evaluate_arms(to_table(asked), arms, "before").gaps}
    pgr = gaps["PGR"]
    assert pgr.estimate.value == pytest.approx((0.3 + 0.6) / (0.6 + 0.6))
    assert {task: one.value for task, one in pgr.tasks.items()} == pytest.approx({"big": 0.5, "small": 1.0})
    assert pgr.median == pytest.approx(0.75)
    assert pgr.estimate.low < 0.75 < pgr.estimate.high and pgr.estimate.method.startswith("mean of 2 tasks, bootstrap")
    # one task of four without a gap: the mean over tasks is still defined, that task alone is not
    arms[3] = made("gold", "ceiling", 256, 16)
    pgr = next(g for g in evaluate_arms(to_table(asked), arms, "before").gaps if g.measure == "PGR")
    assert pgr.tasks["small"].value is None and pgr.median is None and pgr.estimate.value is not None
    arms[3] = made("gold", "ceiling", 64, 16)
    undefined = evaluate_arms(to_table(asked), arms, "before").gaps[0].estimate
    assert undefined.value is None and "as a mean of 2 tasks" in undefined.method


def test_the_interval_of_pgr_over_tasks_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    masks = [np.arange(160) < 100, np.arange(160) >= 100]
    rates = np.where(masks[0][:, None], [0.3, 0.5, 0.8], [0.2, 0.6, 0.7])
    truth = (0.2 + 0.4) / (0.5 + 0.5)
    held = 0
    for study_seed in range(150):
        drawn = (rng.random((160, 1)) < rates).astype(float)  # the same luck for all arms
        found = macro_gap_recovered(*drawn.T, masks[1].astype(np.int64), resamples=800, seed=study_seed)
        held += found.low <= truth <= found.high
    assert 0.9 <= held / 150 <= 0.99


def test_no_ceiling_no_gap() -> None:
    asked = prompts(["t"] * 4)
    arms = [arm("before", "student", asked, [[1.0]] * 4), arm("dpo", "treatment", asked, [[1.0]] * 4)]
    assert evaluate_arms(to_table(asked), arms, "before").gaps == []


# --- calibration ---


def test_temperature_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 1000)
    y = (rng.random(1000) < 1 / (1 + np.exp(-z))).astype(float)
    fitted = fit_temperature(3 * z, y)
    assert fitted == pytest.approx(1 / sm.Logit(y, 3 * z).fit(disp=0).params[0], rel=1e-3)
    chances = [1 / (1 + np.exp(-3 * z / temperature)) for temperature in (1.0, fitted)]
    before, after = (calibration_error(np.maximum(p, 1 - p), (p >= 0.5) == y) for p in chances)
    assert before > 0.1 and after < 0.05
    assert negative_log_likelihood(3 * z, y, fitted) < negative_log_likelihood(3 * z, y)
    with pytest.raises(ValueError, match="both labels"):
        fit_temperature([1.0, 2.0], [1.0, 1.0])


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0], bins=10) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert calibration_error([1.0, NAN], [1.0, 0.0]) == 0.0
    assert calibration_error([], []) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration_error([1.2], [1])


# --- several studies ---


def studied(name: str, asked: list[Prompt], dpo: list[float]) -> RunArms:
    arms = [arm("before", "student", asked, [[0.0]] * len(asked)), arm("dpo", "treatment", asked, [[v] for v in dpo])]
    return RunArms(name, to_table(asked), arms, evaluate_arms(to_table(asked), arms, "before"))


def test_two_studies_on_the_same_problems_are_paired() -> None:
    asked = prompts(["t"] * 12)
    found = compare_studies([studied("a", asked, [0.0] * 12), studied("b", asked, [1.0] * 9 + [0.0] * 3)])
    rows = {row.arm: row for row in found.rows}
    changed = rows["dpo"].cells[1]
    assert (changed.difference, changed.p) == (0.75, pytest.approx(stats.binomtest(9, 9).pvalue))
    assert changed.p_holm == changed.p  # the untouched student gave the same verdicts and is no comparison
    assert rows["before"].cells[1].same and rows["before"].cells[1].p_holm is None


def test_other_problems_are_shown_and_not_tested() -> None:
    a, b = prompts(["t"] * 6), prompts(["u"] * 6)
    found = compare_studies([studied("a", a, [0.0] * 6), studied("b", b, [1.0] * 6)])
    dpo = next(row for row in found.rows if row.arm == "dpo")
    assert dpo.cells[1].value == 1.0 and dpo.cells[1].difference is None
    assert "evaluated on other problems" in found.caveats[0]
