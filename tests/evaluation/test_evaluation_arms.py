"""From tables to results: the right rows in the right place, what is left out counted, what does not fit refused."""

import dataclasses
import json

import pytest
from simulated_study import study

from w2s_align.errors import UserError
from w2s_align.evaluation import Answers, Arm, ArmRun, Results, evaluate_arms, verdict
from w2s_align.records import Prompt, Response, Score, from_table, to_table
from w2s_align.scoring import Outcome

PROMPTS = [Prompt.of(f"What is {i} + {i}?", answer=str(2 * i)) for i in range(4)]


def answers(values, order=None, tokens=10, finish="stop"):
    """Make tables from {problem: [value, ...]}, rows in any order."""
    rows = [(PROMPTS[i].id, sample, v) for i in (order or range(len(values))) for sample, v in enumerate(values[i])]
    scores = [Score(p, s, "m", "exact", v, "" if v is not None else "timeout") for p, s, v in rows]
    responses = [Response(p, s, "m", "x", finish_reason=finish, completion_tokens=tokens) for p, s, _ in rows]
    return Answers(to_table(scores, Score), to_table(responses, Response))


def arm(name, role, *runs, setting="greedy"):
    return Arm(name, role, [ArmRun(str(i), {setting: run}) for i, run in enumerate(runs)])


def test_rows_find_their_problem_in_any_order():
    before = arm("before", "student", answers([[1], [0], [0], [0]]))
    after = arm("after", "treatment", answers([[1], [1], [1], [0]], order=[3, 1, 0, 2]))
    results = evaluate_arms(to_table(PROMPTS), [before, after], "before")
    c = results.comparison("greedy", "after", "before")
    assert (c.difference.value, c.better, c.worse, c.p) == (0.5, 2, 0, 0.5)
    assert results.arm("after").settings["greedy"].estimate.value == 0.75


def test_samples_are_averaged_per_problem_before_anything_else():
    before = arm("before", "student", answers([[1, 1, 1, 1], [0], [0], [0]]))
    s = evaluate_arms(to_table(PROMPTS), [before], "before").arms[0].settings["greedy"]
    assert s.estimate.value == 0.25  # a pooled mean would say 4 of 7
    assert (s.answers, s.problems, s.samples_per_problem) == (7, 4, 1.75)


def test_unscored_is_left_out_and_counted():
    nan = float("nan")
    before = arm("before", "student", answers([[1, None], [None, None], [0, nan], [1, 1]]))
    results = evaluate_arms(to_table(PROMPTS), [before], "before")
    s = results.arms[0].settings["greedy"]
    assert s.estimate.value == pytest.approx(2 / 3)
    assert (s.problems, s.problems_without_score, s.unscored) == (3, 1, 4)
    assert s.unscored_reasons == {"timeout": 3, "no reason given": 1}
    assert results.warnings[0] == "before, greedy: 4 of 8 answers could not be scored (50.0%), left out."


def test_seeds_are_kept_apart_from_problems():
    before = arm("before", "student", answers([[0]] * 4))
    after = arm("after", "treatment", answers([[1], [1], [0], [0]]), answers([[1], [1], [1], [1]]))
    results = evaluate_arms(to_table(PROMPTS), [before, after], "before")
    s = results.arm("after").settings["greedy"]
    assert s.estimate.value == 0.75
    assert [one.estimate.value for one in s.seeds] == [0.5, 1.0]
    assert s.seed_spread == pytest.approx(0.353553, abs=1e-5)
    c = results.comparison("greedy", "after", "before")
    assert c.problems == 4  # not 8
    assert [(one.value, one.p) for one in c.seeds] == [(0.5, 0.5), (1.0, 0.125)]


def test_counts_of_tokens_truncation_and_missing_results():
    made = answers([[1], [0], [0], [0]], tokens=7, finish="length")
    scores = [
        dataclasses.replace(s, answer="4") if s.value else dataclasses.replace(s, outcome=Outcome.NO_ANSWER)
        for s in from_table(Score, made.scores)
    ]
    before = arm("before", "student", Answers(to_table(scores), made.responses))
    s = evaluate_arms(to_table(PROMPTS), [before], "before").arms[0].settings["greedy"]
    assert (s.mean_tokens, s.truncated_share, s.no_answer_share) == (7.0, 1.0, 0.75)


def test_without_responses_lengths_are_unknown_not_zero():
    before = arm("before", "student", Answers(answers([[1], [0], [0], [0]]).scores))
    s = evaluate_arms(to_table(PROMPTS), [before], "before").arms[0].settings["greedy"]
    assert (s.mean_tokens, s.truncated_share) == (None, None)


def test_scores_outside_0_and_1_are_numbers():
    before = arm("before", "student", answers([[5], [6], [7], [4]]))
    after = arm("after", "treatment", answers([[9], [9], [9], [8]]))
    results = evaluate_arms(to_table(PROMPTS), [before, after], "before")
    assert results.unit == "number"
    assert results.comparison("greedy", "after", "before").difference.value == 3.25
    assert results.arm("after").settings["greedy"].pass_at == {}


def test_pass_at_k():
    before = arm("before", "student", answers([[1, 0, 0, 0], [0] * 4, [1] * 4, [1, 1, 0, 0]]), setting="sampled")
    s = evaluate_arms(to_table(PROMPTS), [before], "before").arms[0].settings["sampled"]
    assert s.pass_at == pytest.approx({"1": 7 / 16, "2": (0.5 + 0 + 1 + 5 / 6) / 4, "4": 0.75})


def problems_of(error):
    return [problem.what for problem in error.value.problems]


def test_other_problems_are_refused():
    before = arm("before", "student", answers([[1], [0], [0], [0]]))
    after = arm("after", "treatment", answers([[1], [0], [0]]))
    with pytest.raises(UserError) as error:
        evaluate_arms(to_table(PROMPTS), [before, after], "before")
    assert problems_of(error) == [
        "Arm 'after', seed 0, greedy: the scores belong to other problems than the ones given.",
        "Arm 'after', seed 0, greedy: the responses belong to other problems than the ones given.",
    ]
    assert error.value.problems[0].why == "1 of 4 problems have none, 0 problems are not among the given."


def test_doubled_answers_and_two_scorers_are_refused():
    made = from_table(Score, answers([[1], [0], [0], [0]]).scores)
    twice = arm("before", "student", Answers(to_table([*made, made[0]])))
    with pytest.raises(UserError, match="1 scores are doubled"):
        evaluate_arms(to_table(PROMPTS), [twice], "before")
    mixed = [dataclasses.replace(s, scorer=f"scorer{i % 2}") for i, s in enumerate(made)]
    with pytest.raises(UserError, match="2 scorers: scorer0, scorer1"):
        evaluate_arms(to_table(PROMPTS), [arm("before", "student", Answers(to_table(mixed)))], "before")


def test_several_mistakes_are_told_at_once():
    one = arm("before", "student", answers([[1], [0], [0], [0]]))
    other = arm("before", "control", answers([[1], [0], [0], [0]]), setting="sampled")
    with pytest.raises(UserError) as error:
        evaluate_arms(to_table([], Prompt), [one, other, Arm("empty", "other", [])], "befor")
    assert problems_of(error) == [
        "There are no problems to evaluate on.",
        "The baseline 'befor' is not an arm.",
        "Two arms are called 'before'.",
        "Arm 'empty' has no run.",
    ]


def test_arms_with_other_settings_are_refused():
    one = arm("before", "student", answers([[1], [0], [0], [0]]))
    other = arm("after", "treatment", answers([[1], [0], [0], [0]]), setting="sampled")
    with pytest.raises(UserError, match="Arm 'after' has the settings sampled, another has greedy"):
        evaluate_arms(to_table(PROMPTS), [one, other], "before")


@pytest.fixture(scope="module")
def results():
    return evaluate_arms(*study(), "before")


def test_results_survive_json(results):
    text = json.dumps(results.model_dump(mode="json"), allow_nan=False)
    assert Results.model_validate(json.loads(text)) == results


def test_order_and_comparisons(results):
    assert [a.name for a in results.arms] == ["weaker", "weak", "before", "reversed", "sft", "dpo"]
    made = [(c.first, c.second, c.kind) for c in results.comparisons if c.setting == "greedy"]
    assert made == [
        ("weaker", "before", "baseline"),
        ("weak", "before", "baseline"),
        ("reversed", "before", "baseline"),
        ("sft", "before", "baseline"),
        ("dpo", "before", "baseline"),
        ("dpo", "weaker", "teacher"),
        ("dpo", "weak", "teacher"),
        ("dpo", "reversed", "control"),
        ("dpo", "sft", "control"),
    ]
    assert all(c.p <= c.p_holm for c in results.comparisons)
    gain = next(g for g in results.delta_gains if g.setting == "greedy")
    assert (gain.arm, gain.teacher) == ("dpo", "weak")
    assert gain.difference == results.comparison("greedy", "dpo", "weak").difference


def test_the_same_study_gives_the_same_numbers(results):
    assert evaluate_arms(*study(), "before") == results


def test_verdict_of_the_simulated_study(results):
    found = verdict(results)
    assert (found.status, found.attributed) == ("improved", True)
    assert found.controls == {"reversed": "below", "sft": "unclear"}
    assert found.sentence.startswith("dpo reaches 98.6% (95% interval 96.0 to 100%) with greedy decoding, against 19%")
    assert "is above both teachers (p = 0.001)" in found.sentence


def test_no_effect_is_said():
    found = verdict(evaluate_arms(*study(effect=False), "before"))
    assert found.status == "no_effect"
    assert found.sentence.startswith("No effect can be claimed: dpo reaches 16%")
    assert "would often be missed" in found.sentence
