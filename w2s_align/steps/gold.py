"""Whether an answer check can work on the prompts of a recipe, told before anything runs.

Follows references from what is scored to the prompts behind it, and looks into those that are local files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from w2s_align.errors import UserError
from w2s_align.recipe.schema import StepConfig
from w2s_align.scoring.scorers import ScorerSettings, scorer_settings
from w2s_align.steps.prompts import Prompts


def check_gold(scorer: str | ScorerSettings, reference: str, steps: Mapping[str, StepConfig]) -> None:
    """Refuse a scorer that compares with gold answers where the prompts have none.

    Args:
        scorer: As in the recipe.
        reference: What is scored, or its prompts: ``$step``.
        steps: All steps of the recipe by name.

    Raises:
        UserError: With the way out.
    """
    found = scorer_settings(scorer)
    if not found.reads_gold:
        return
    for name, prompts in _prompts_behind(reference, steps, set()):
        if found.name == "auto" and (prompts.task or "").startswith("lab/"):
            continue  # checked by its task, without a gold answer
        if why := prompts.without_gold():
            raise UserError(
                f"The scorer {found.name} needs gold answers, and ${name} has none.",
                why=why,
                fix=f"Name their column in {name}: columns: {{answer: <column>}}; or use a scorer that needs none, "
                "such as a reward model.",
            )


def _prompts_behind(
    reference: str, steps: Mapping[str, StepConfig], visited: set[str]
) -> Iterator[tuple[str, Prompts]]:
    name = reference.removeprefix("$").partition("@")[0]
    step = steps.get(name)
    if step is None or name in visited:
        return
    visited.add(name)
    if isinstance(step, Prompts):
        yield name, step
        return
    for read in step.references():
        if read.step is not None and {"prompts", "responses"} & set(read.reads.types):
            yield from _prompts_behind(read.value, steps, visited)
