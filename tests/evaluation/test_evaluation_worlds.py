"""The same study in several worlds: means, t intervals over worlds, what the verdict says in each, and the page."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from simulated_study import study

from w2s_align.errors import UserError
from w2s_align.evaluation import Results, evaluate_arms, verdict
from w2s_align.evaluation.run_comparison import RunArms, compare_studies
from w2s_align.evaluation.worlds import over_worlds
from w2s_align.recipe.sweep import only_seeds
from w2s_align.reporting.article import write_article
from w2s_align.reporting.worlds_page import worlds_article, worlds_sentences, worlds_table

NAMES = ["world 1", "world 2", "world 3", "world 4"]


@pytest.fixture(scope="module")
def worlds() -> list[RunArms]:
    """Four worlds; in the third the tuning does nothing."""
    made = []
    for i, name in enumerate(NAMES):
        problems, arms = study(problems=60, samples=2, effect=i != 2, seed=i)
        made.append(RunArms(name, problems, arms, evaluate_arms(problems, arms, "before")))
    return made


def results(worlds: list[RunArms]) -> list[Results]:
    return [world.results for world in worlds]


def test_means_ranges_and_intervals_are_over_worlds(worlds: list[RunArms]) -> None:
    found = over_worlds(results(worlds), NAMES)
    for arm in found.arms:
        values = np.array([r.arm(arm.arm).settings[arm.setting].estimate.value for r in results(worlds)])
        if values.std() == 0:
            assert arm.spread.low is None
            continue
        ends = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert arm.spread.mean == pytest.approx(values.mean())
        assert (arm.spread.lowest, arm.spread.highest) == (values.min(), values.max())
        assert arm.spread.low == pytest.approx(max(0, ends[0])) and arm.spread.high == pytest.approx(min(1, ends[1]))
    gain = next(g for g in found.gains if (g.first, g.second, g.setting) == ("dpo", "before", found.arms[0].setting))
    assert gain.above == 3 and gain.below == 0
    assert gain.spread.mean == pytest.approx(np.mean(gain.spread.values))
    assert found.statuses == [verdict(r).status for r in results(worlds)]
    assert found.statuses.count("improved") == 3 and found.statuses[2] == "no_effect"


def test_two_worlds_have_a_range_and_no_interval(worlds: list[RunArms]) -> None:
    found = over_worlds(results(worlds)[:2], NAMES[:2])
    assert {(arm.spread.low, arm.spread.high) for arm in found.arms} == {(None, None)}
    assert all(arm.spread.lowest is not None for arm in found.arms)


def test_another_study_is_no_world_of_this_one(worlds: list[RunArms]) -> None:
    first, second = results(worlds)[:2]
    other = second.model_copy(update={"arms": second.arms[1:]})
    with pytest.raises(UserError, match="world 2 has other arms"):
        over_worlds([first, other], NAMES[:2])


def test_arms_in_another_order_are_the_same_study(worlds: list[RunArms]) -> None:
    first, second = results(worlds)[:2]
    other = second.model_copy(update={"arms": second.arms[::-1]})  # as where their values are in another order
    assert over_worlds([first, other], NAMES[:2]).arms == over_worlds([first, second], NAMES[:2]).arms


def test_the_page_and_the_terminal_say_how_many_worlds_improved(worlds: list[RunArms], tmp_path) -> None:
    found = over_worlds(results(worlds), NAMES)
    seeds, failed = {"student.seed": [1, 2, 3, 4]}, [{"student.seed": 5}]
    headline, lede = worlds_sentences(found)
    assert headline.startswith("3 of 4 worlds: ") and "; 1 of 4 worlds: " in headline
    assert "dpo gains +" in lede and "on before (greedy decoding; 95% interval" in lede
    article = worlds_article(found, compare_studies(worlds), seeds, failed)
    assert article.status == "plain" and len(article.plots) == 1
    write_article(article, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "1 more world failed" in text and "| – | 5 | failed |" in text and "| dpo against before |" in text
    assert json.loads((tmp_path / "report.json").read_text())["statuses"] == found.statuses
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(worlds_table(found, failed))
    shown = console.file.getvalue()
    assert "3 of 4" in shown and "Greedy decoding" in shown and "dpo against before" in shown


def test_a_sweep_over_seeds_alone_is_over_worlds() -> None:
    assert only_seeds(["seed"]) and only_seeds(["weak.seed", "student.seed"])
    assert not only_seeds(["weak.seed", "dpo.beta"])
