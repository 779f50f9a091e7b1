"""The verdict, one condition at a time, on small studies whose numbers are written out."""

import pytest

from w2s_align.evaluation import Answers, Arm, ArmRun, evaluate_arms, verdict
from w2s_align.records import Prompt, Score, to_table
from w2s_align.reporting import summary_table

N = 60
PROMPTS = [Prompt.of(f"problem {i}") for i in range(N)]


def arm(name, role, *rights):
    """An arm that solves the first so many problems, one number per seed."""
    runs = []
    for seed, right in enumerate(rights):
        scores = [Score(p.id, 0, name, "exact", float(i < right)) for i, p in enumerate(PROMPTS)]
        runs.append(ArmRun(str(seed), {"greedy": Answers(to_table(scores))}))
    return Arm(name, role, runs)


def judge(*arms):
    return verdict(evaluate_arms(to_table(PROMPTS), arms, "before"))


BEFORE = arm("before", "student", 20)


def test_improved_needs_every_teacher():
    weak, strong = arm("weak", "teacher", 15), arm("strong", "teacher", 48)
    assert judge(BEFORE, weak, arm("dpo", "treatment", 50)).status == "improved"
    partial = judge(BEFORE, weak, strong, arm("dpo", "treatment", 50))
    assert partial.status == "partial"
    assert "but it cannot be told apart from strong" in partial.sentence
    below = judge(BEFORE, weak, arm("strong", "teacher", 60), arm("dpo", "treatment", 40))
    assert "but it stays below strong" in below.sentence


def test_without_teachers_nothing_is_said_about_them():
    found = judge(BEFORE, arm("dpo", "treatment", 50))
    assert (found.status, found.headline) == ("partial", "This model improved.")
    assert "no teacher was evaluated" in found.sentence
    assert found.attributed is None
    assert found.caveats[-2].startswith("No control arm was run")


def test_worse():
    found = judge(BEFORE, arm("weak", "teacher", 5), arm("dpo", "treatment", 2))
    assert found.status == "worse"
    assert found.sentence.startswith("dpo is worse than the untouched student: 3.3%")


def test_a_control_that_does_as_well_takes_the_credit():
    weak = arm("weak", "teacher", 10)
    found = judge(BEFORE, weak, arm("dpo", "treatment", 50), arm("sft", "control", 49))
    assert (found.status, found.attributed) == ("improved", False)
    assert found.headline == "This model improved, but sft did as well."
    assert found.sentence.endswith("Since sft did as well, the gain cannot be credited to the preference pairs.")
    beaten = judge(BEFORE, weak, arm("dpo", "treatment", 58), arm("sft", "control", 40))
    assert (beaten.controls, beaten.attributed) == ({"sft": "above"}, True)


def test_seeds_that_disagree_are_no_effect():
    found = judge(BEFORE, arm("dpo", "treatment", 60, 60, 15))
    assert found.status == "no_effect"
    assert "The training seeds point in different directions." in found.sentence


def test_a_small_difference_is_no_effect():
    found = judge(BEFORE, arm("dpo", "treatment", 23))
    assert found.status == "no_effect"
    assert "No effect can be claimed" in found.sentence


def test_a_control_that_is_above_the_treatment_did_better():
    found = judge(BEFORE, arm("sft", "control", 79), arm("dpo", "treatment", 50))
    assert found.headline == "This model improved, but sft did better."
    assert found.attributed is False


def test_one_training_seed_is_said_where_something_is_claimed():
    one = (
        "There is one training seed of dpo: this is about this model. How much another seed would differ is not "
        "known; three or more say something of the method (seeds: [1, 2, 3])."
    )
    assert one in judge(BEFORE, arm("dpo", "treatment", 60)).caveats
    assert one not in judge(BEFORE, arm("dpo", "treatment", 60, 60)).caveats
    assert judge(BEFORE, arm("dpo", "treatment", 23)).caveats == []


def test_a_treatment_whose_seeds_agree_goes_before_a_larger_one_whose_seeds_do_not():
    found = judge(BEFORE, arm("wild", "treatment", 80, 80, 15), arm("calm", "treatment", 45, 45, 45))
    assert (found.status, found.arm) == ("partial", "calm")


def test_several_treatments_are_said():
    found = judge(BEFORE, arm("a", "treatment", 40), arm("b", "treatment", 50))
    assert found.arm == "b"
    assert found.caveats[0] == "b is the best of 2 treatments; p-values are adjusted for all of them."


@pytest.mark.parametrize("extra", [[], [arm("sft", "control", 10)]])
def test_no_treatment_is_no_verdict(extra):
    found = judge(BEFORE, *extra)
    assert (found.status, found.sentence) == ("undefined", "No verdict: no arm has the role treatment.")


def test_nothing_scored_is_no_verdict():
    scores = to_table([Score(p.id, 0, "dpo", "exact", None, "timeout") for p in PROMPTS])
    found = judge(BEFORE, Arm("dpo", "treatment", [ArmRun("0", {"greedy": Answers(scores)})]))
    assert found.status == "undefined"
    assert "could be scored" in found.sentence


def test_nothing_scored_at_all():
    nothing = to_table([Score(p.id, 0, "m", "exact", None, "timeout") for p in PROMPTS])
    arms = [
        Arm(name, role, [ArmRun("0", {"greedy": Answers(nothing)})])
        for name, role in (("before", "student"), ("weak", "teacher"), ("dpo", "treatment"))
    ]
    assert judge(*arms).status == "undefined"


def test_one_problem_proves_nothing():
    table = to_table(PROMPTS[:1])
    made = [
        Arm(n, r, [ArmRun("0", {"greedy": Answers(to_table([Score(PROMPTS[0].id, 0, n, "exact", v)]))})])
        for n, r, v in (("before", "student", 0.0), ("dpo", "treatment", 1.0))
    ]
    found = verdict(evaluate_arms(table, made, "before"))
    assert found.status == "no_effect"


def test_arms_without_roles_are_compared_and_nothing_is_said_of_a_training():
    found = judge(arm("before", "other", 20), arm("big", "other", 50), arm("small", "other", 3))
    assert (found.status, found.arm) == ("compared", None)
    assert found.headline == "Clearly big above before, and small below before."
    assert found.sentence.startswith("big reaches 83% (95% interval ")
    assert "Differences to before: small -28.3 points (p < 0.001), big 50.0 points (p < 0.001)." in found.sentence
    even = judge(arm("before", "other", 20), arm("other", "other", 21))
    assert even.headline == "No model is clearly different from before."
    alone = judge(arm("before", "other", 20))
    assert (alone.headline, alone.caveats) == ("before: 33%.", [])
    table = summary_table(
        evaluate_arms(to_table(PROMPTS), [arm("before", "other", 20), arm("b", "other", 50)], "before")
    )
    assert [column.header for column in table.columns] == ["arm", "Greedy decoding", "95%", "against before"]
