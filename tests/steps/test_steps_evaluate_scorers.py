"""An evaluation whose scorers ask models: they are read from other steps, and belong to the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation import Results
from w2s_align.runs import recipe_from_text

RECIPE = """\
name: chosen
seed: 0
steps:
  student: {kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 5, batch_size: 8}
  other: {kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 5, batch_size: 8, seed: 5}
  problems: {kind: prompts, source: lab/addition, split: test, limit: 4}
  scores:
    kind: evaluate
    prompts: $problems
    arms: {student: $student, other: $other}
    roles: {student: student, other: treatment}
    baseline: student
    sampling: {drawn: {temperature: 1, max_tokens: 8, n: 2}}
    best_of: [{name: logprob, model: $student}]
    engine: {name: transformers}
"""


@pytest.mark.slow
def test_a_model_of_another_step_chooses_among_answers(tmp_path: Path) -> None:
    loaded = recipe_from_text(RECIPE)
    assert loaded.recipe.nodes["scores"].inputs["best_of.0.model"] == "student"
    run = loaded.run(tmp_path)
    results = Results.model_validate_json((run.artifact("scores").path / "results.json").read_text())
    by = [selection.by for selection in results.arms[0].settings["drawn"].selections]
    assert any("logprob:student" in name for name in by), by


def test_a_model_that_scores_is_part_of_the_key(tmp_path: Path) -> None:
    first = recipe_from_text(RECIPE).plan(tmp_path)
    second = recipe_from_text(RECIPE.replace("logprob, model: $student", "logprob, model: $other")).plan(tmp_path)
    assert {name for name in first if first[name].key != second[name].key} == {"scores"}


def test_one_served_model_cannot_answer_for_all_arms() -> None:
    text = RECIPE.replace("{name: transformers}", "{name: openai, served_model: alias}")
    with pytest.raises(UserError, match="for all 2 arms"):
        recipe_from_text(text)
