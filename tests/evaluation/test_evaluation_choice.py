"""Best-of-n by several ways to choose, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation import verdict
from w2s_align.evaluation.choice import compare_choices
from w2s_align.records import Prompt, Score, to_table

PROMPTS = [Prompt.of(f"What is {i} + {i}?", answer=str(2 * i)) for i in range(4)]


def table(values: Sequence[Sequence[float | None]], scorer: str, prompts: Sequence[Prompt] = PROMPTS) -> pa.Table:
    rows = zip(prompts, values, strict=True)
    return to_table([Score(p.id, i, "m", scorer, value) for p, row in rows for i, value in enumerate(row)], Score)


GOLD = table([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, None]], "exact")


def test_each_way_is_worth_the_response_that_it_likes_best() -> None:
    good = table([[0.9, 0.1, 0.2], [0.1, 0.9, 0.2], [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]], "good")
    tied = table([[0.5, 0.5, 0.1], [0.2, 0.2, 0.2], [1, 0, 0], [1, 0, 0]], "tied")
    results, _ = compare_choices(to_table(PROMPTS), GOLD, {"good": good, "tied": tied})
    setting = results.settings[0]
    assert setting == "best of 3" and results.study == "choice"
    found = {arm.name: arm.settings[setting].estimate.value for arm in results.arms}
    assert found["good"] == pytest.approx(3 / 4)
    assert found["tied"] == pytest.approx((1 / 2 + 2 / 3 + 0 + 1) / 4)  # of equal ones any
    assert found["one_response"] == pytest.approx((1 / 3 + 2 / 3 + 0 + 1) / 4)
    assert found["oracle"] == pytest.approx(3 / 4)


def test_a_response_without_a_value_is_never_chosen_and_a_problem_without_any_is_unscored() -> None:
    way = table([[None, 0.1, float("nan")], [None, None, None], [0, 0, 0], [0, 1, 0]], "some")
    results, arms = compare_choices(to_table(PROMPTS), GOLD, {"some": way})
    arm = results.arm("some").settings["best of 3"]
    assert arm.unscored_reasons == {"nothing to choose by": 1}
    assert arm.estimate.value == pytest.approx((0 + 0 + 1) / 3)
    assert {a.name for a in arms} == {"one_response", "some", "oracle"}


def many(share: float, seed: int) -> tuple[list[Prompt], pa.Table, pa.Table, pa.Table]:
    rng = np.random.default_rng(seed)
    prompts = [Prompt.of(str(i)) for i in range(400)]
    right = rng.random((400, 8)) < 0.3
    noise = rng.random((2, 400, 8))
    return (
        prompts,
        table(right.astype(float).tolist(), "exact", prompts),
        table((right * share + noise[0]).tolist(), "better", prompts),
        table((right * 0.1 + noise[1]).tolist(), "worse", prompts),
    )


def test_the_verdict_names_the_best_way_and_what_it_beats() -> None:
    prompts, gold, better, worse = many(0.8, 0)
    ways = {"better": better, "worse": worse}
    results, _ = compare_choices(to_table(prompts), gold, ways, roles={"worse": "control"})
    found = verdict(results)
    assert (found.status, found.headline) == ("improved", "Best chosen by better.")
    assert found.sentence.startswith("Chosen by better, ") and "by one_response (p < 0.001)" in found.sentence
    assert "if the best response were always chosen. Above worse (by " in found.sentence
    assert 0 < next(gap.estimate.value or 0 for gap in results.gaps if gap.arm == "better") < 1
    same, _ = compare_choices(to_table(prompts), gold, {"a": better, "b": better}, roles={"b": "control"})
    assert verdict(same).sentence.endswith("Not clearly different from b (by 0.0 points, p = 1.00).")
    assert verdict(same).headline == "a chooses well, but not clearly better than b."
    against, _ = compare_choices(to_table(prompts), gold, ways, baseline="better")
    assert verdict(against).status == "worse"
    assert verdict(against).headline == "worse chooses worse than better."


def test_what_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="oracle is always among the arms"):
        compare_choices(to_table(PROMPTS), GOLD, {"oracle": GOLD})
    with pytest.raises(UserError, match="good: the scores come from several scorers: a, b"):
        scores = pa.concat_tables([table([[1]] * 4, "a"), table([[1]] * 4, "b")])
        compare_choices(to_table(PROMPTS), GOLD, {"good": scores})
