"""Cards that carry the evaluation: the README of a model or a data set, with results and intervals in the hub's
metadata, and, for a model, what it was made from and by which recipe.

Reads the text of a card and Results, returns the text of the card with all that in it. The hub shows
``model-index`` as a table beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.data import StepCost
from w2s_align.reporting.text import DASH, Words, fenced, p_value, percent, role_name, setting_name
from w2s_align.reporting.text import markdown_cell as cell

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from w2s_align.evaluation.results import Estimate, Results

HEADING = "## Evaluation"
"""Begins our part of a card, which is replaced when the card is written again."""


def model_card(
    text: str,
    results: Results,
    arm: str,
    name: str,
    sentence: str = "",
    *,
    made_from: Sequence[StepCost] = (),
    recipe: str = "",
    origin: Mapping[str, Any] | None = None,
) -> str:
    """Return a model card with the evaluation of an arm beside all others, its origin and the recipe.

    Args:
        text: The card as it is, with its YAML header; "" for a new one.
        results: What the evaluation found.
        arm: Name of the arm.
        name: Name of the model in the metadata.
        sentence: What the evaluation concluded.
        made_from: The steps behind the model, in their order, the model's own last.
        recipe: Text of the recipe.
        origin: What the hub's metadata says of where it comes from: ``base_model``, ``license``, ``datasets``.

    Raises:
        KeyError: There is no such arm.
    """
    from huggingface_hub import ModelCard, ModelCardData

    card = ModelCard(text or "---\n{}\n---\n", ignore_metadata_errors=True)
    known = {key: value for key, value in (origin or {}).items() if value}
    data = dict(vars(card.data)) | known | {"model_name": name, "eval_results": eval_results(results, arm)}
    data.pop("model-index", None)
    header = ModelCardData(ignore_metadata_errors=True, **data).to_yaml()
    parts = [_without_evaluation(card.text), _section(results, sentence, only=arm)]
    if made_from:
        parts.append(_origin(made_from))
    if recipe:
        parts.append(f"## Recipe\n\n{fenced(recipe, 'yaml')}\n")
    return f"---\n{header}\n---\n" + "\n\n".join(parts)


def dataset_card(text: str, results: Results, sentence: str = "") -> str:
    """Return a data set's card with what came of training on it; the hub has no metadata for this, so it is text."""
    from huggingface_hub import DatasetCard

    card = DatasetCard(text or "---\n{}\n---\n", ignore_metadata_errors=True)
    return f"---\n{card.data.to_yaml()}\n---\n{_without_evaluation(card.text)}\n\n{_section(results, sentence)}"


def eval_results(results: Results, arm: str) -> list[EvalResult]:
    """Return an arm's numbers in the hub's form: one for each setting, and for each task where there are several.

    Raises:
        KeyError: There is no such arm.
    """
    found = {one.name: one for one in results.arms}[arm]
    name = f"mean of {len(results.tasks)} tasks" if results.tasks else results.metric
    made = [
        _eval_result(results, name, setting, one.estimate, one.problems) for setting, one in found.settings.items()
    ]
    made += [
        _eval_result(results, part.name, b.setting, part.arms[arm].estimate, part.problems)
        for b in results.breakdowns
        if b.by == "task"
        for part in b.parts
    ]
    return [one for one in made if one is not None]


def _eval_result(results: Results, dataset: str, setting: str, estimate: Estimate, problems: int) -> EvalResult | None:
    """Return one number in the hub's form; None where nothing could be scored."""
    from huggingface_hub import EvalResult

    if estimate.value is None:
        return None
    arguments = {"problems": problems, "interval_method": estimate.method, "level": results.level}
    span = "no interval"
    if estimate.low is not None and estimate.high is not None:
        arguments |= {"low": round(estimate.low, 4), "high": round(estimate.high, 4)}
        span = f"{100 * results.level:.0f}% interval {estimate.low:.4g} to {estimate.high:.4g}"
    metric = "accuracy" if results.unit == "share" else results.metric
    return EvalResult(
        task_type="text-generation",
        dataset_type=dataset,
        dataset_name=dataset,
        dataset_args={"decoding": setting},
        metric_type=metric,
        metric_name=f"{metric}, {setting}, {span}",
        metric_value=round(estimate.value, 4),
        metric_args=arguments,
    )


def _without_evaluation(text: str) -> str:
    return text.partition(f"\n{HEADING}\n")[0].strip()


def _origin(steps: Sequence[StepCost]) -> str:
    """Return the artifacts behind a model: the key of each is a digest of everything that can change its content."""
    lines = ["## Made from", "", "| step | kind | rows | left out | key |", "| --- | --- | --- | --- | --- |"]
    for step in steps:
        rows = DASH if step.rows is None else f"{step.rows:,}"
        lines.append(f"| {cell(step.name)} | {cell(step.kind)} | {rows} | {cell(step.left_out)} | `{step.key}` |")
    return "\n".join(lines)


def _section(results: Results, sentence: str, only: str | None = None) -> str:
    """Return our part of a card; the arm ``only`` is in bold."""
    words = Words(results.unit)
    interval = f"{100 * results.level:.0f}% interval"
    lines = [HEADING, ""]
    if sentence:
        lines += [cell(sentence), ""]
    for setting in results.settings:
        lines += [f"{cell(setting_name(setting))}, {results.problems:,} problems, {cell(results.metric)}:", ""]
        lines += [f"| arm | role | value | {interval} | against {results.reference} | p, Holm | tokens | cut off |"]
        lines += ["|" + " --- |" * 8]
        for arm in results.arms:
            s = arm.settings[setting]
            c = results.comparison(setting, arm.name, results.baseline)
            row = [
                f"**{cell(arm.name)}**" if arm.name == only else cell(arm.name),
                role_name(arm.role),
                words.value(s.estimate.value),
                words.interval(s.estimate.low, s.estimate.high),
                words.signed(c.difference.value) if c else "",
                p_value(c.p_holm) if c else "",
                "" if s.mean_tokens is None else f"{s.mean_tokens:.0f}",
                percent(s.truncated_share),
            ]
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines)
