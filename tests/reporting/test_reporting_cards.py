"""Cards carry the evaluation in the hub's own format: what is written is read back by huggingface_hub."""

from __future__ import annotations

import pytest
from huggingface_hub import DatasetCard, ModelCard
from simulated_report import report_data

from w2s_align.evaluation.results import Breakdown, Estimate, Part, PartArm
from w2s_align.reporting import StepCost
from w2s_align.reporting.cards import dataset_card, eval_results, model_card

README = "---\nlibrary_name: transformers\ntags:\n- dpo\n---\n# A model\n\nWords | with <b>.\n"


@pytest.fixture(scope="module")
def results():
    return report_data(problems=60).results


def test_model_card_has_the_results_with_intervals(results):
    card = ModelCard(model_card(README, results, "dpo", "dpo@1", "It | worked."))
    assert card.data.library_name == "transformers" and card.data.tags == ["dpo"]
    assert card.data.model_name == "dpo@1"
    first = card.data.eval_results[0]
    estimate = results.arm("dpo").settings["greedy"].estimate
    assert first.metric_value == round(estimate.value, 4)
    assert first.metric_type == "accuracy"
    assert first.metric_args["low"] == round(estimate.low, 4) and first.metric_args["problems"] == 60
    assert "95% interval" in first.metric_name
    assert len(card.data.eval_results) == 2  # greedy and sampled
    assert "# A model" in card.text and "It \\| worked." in card.text
    assert "| **dpo** | tuned student |" in card.text


def test_model_card_has_its_origin_and_the_recipe(results):
    steps = [StepCost("pairs", "pair", rows=20, key="ab12", counts={"dropped": {"same_score": 3, "cut": 0}})]
    recipe = "name: mine\n# ```` marks a block\n"
    once = model_card(
        README, results, "dpo", "m", made_from=[*steps, StepCost("dpo@1", "dpo", key="cd34")], recipe=recipe
    )
    text = ModelCard(once).text
    assert "| pairs | pair | 20 | same\\_score 3 | `ab12` |\n| dpo@1 | dpo | \N{EN DASH} |  | `cd34` |" in text
    assert text.rstrip().endswith("## Recipe\n\n`````yaml\nname: mine\n# ```` marks a block\n`````")
    again = model_card(once, results, "dpo", "m", made_from=steps, recipe=recipe)
    assert again.count("## Recipe") == again.count("## Made from") == 1


def test_writing_it_again_replaces_the_section(results):
    once = model_card(README, results, "dpo", "m", "one")
    twice = model_card(once, results, "dpo", "m", "two")
    assert twice.count("## Evaluation") == 1
    assert "two" in twice and "\none\n" not in twice


def test_a_card_from_nothing_and_a_data_set(results):
    assert ModelCard(model_card("", results, "weak", "weak")).data.eval_results
    card = DatasetCard(dataset_card("---\nlicense: odc-by\n---\n# Pairs\n", results, "Trained on them."))
    assert card.data.license == "odc-by"
    assert "# Pairs" in card.text and "Trained on them." in card.text


def test_every_task_has_its_line(results):
    half = Estimate(value=0.5, low=None, high=None, method="none")
    facts = {"unscored": 0, "truncated_share": None, "no_answer_share": None, "mean_tokens": None}
    arms = {arm.name: PartArm(estimate=half, **facts) for arm in results.arms}
    parts = [Part(name=name, problems=1, arms=arms) for name in ("gsm8k", "mmlu")]
    tasks = Breakdown(by="task", setting="greedy", parts=parts)
    several = results.model_copy(update={"tasks": ["gsm8k", "mmlu"], "breakdowns": [tasks]})
    more = eval_results(several, "dpo")
    assert [one.dataset_name for one in more] == ["mean of 2 tasks", "mean of 2 tasks", "gsm8k", "mmlu"]
    assert "no interval" in more[-1].metric_name


def test_an_arm_that_is_not_there(results):
    with pytest.raises(KeyError):
        eval_results(results, "nobody")
