"""diagnose and fused arms as a recipe runs them: predicted from the student's answers, observed by decoding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.runs import recipe_from_text

RECIPE = """
name: foretold
seed: 0
steps:
  student: {kind: stand_in_model, like: Qwen/Qwen2.5-0.5B-Instruct}
  weak:    {kind: stand_in_model, like: Qwen/Qwen2.5-1.5B-Instruct}
  asked:   {kind: prompts, source: lab/addition, split: test, limit: 6}
  own:     {kind: generate, model: $student, prompts: $asked, sampling: {temperature: 1, max_tokens: 48, n: 4}, engine: {name: transformers}}
  gold:    {kind: score, responses: $own, scorer: {name: lab_verifier, draws: 1, lazy: 0.5}}
  told:    {kind: diagnose, model: $student, responses: $own, gold: $gold, fusion: &shift {contrasts: [{plus: $weak, minus: $student}], plausibility: null}, factors: [0, 0.1]}
  scores:
    kind: evaluate
    prompts: $asked
    arms: {student: $student, fused: $student, expert: $weak}
    fusion: {fused: *shift}
    sampling: {greedy: {temperature: 0, max_tokens: 16}}
    engine: {name: transformers}
"""  # noqa: E501


def test_a_recipe_predicts_and_decodes_fused_models(tmp_path: Path) -> None:
    loaded = recipe_from_text(RECIPE)
    nodes = loaded.recipe.nodes
    assert nodes["told"].inputs["fusion.contrasts.0.plus"] == "weak"
    assert nodes["scores/fused/0/greedy"].inputs["engine.fusion.contrasts.0.plus"] == "weak"
    run = loaded.run(tmp_path)
    told = run.artifact("told")
    numbers = json.loads((told.path / "report.json").read_text())
    (same, _), student = numbers["predictions"], numbers["student"]
    assert same["accuracy"] == pytest.approx(student["accuracy"]) and same["factor"] == 0
    counts = told.manifest["counts"]
    assert counts["rows_in"] == 24 == counts["kept"] + sum(counts["dropped"].values())
    # The student plus "expert less student" writes what the expert writes.
    texts = {arm: run.table(f"scores/{arm}/0/greedy")["text"].to_pylist() for arm in ("fused", "expert", "student")}
    assert texts["fused"] == texts["expert"] != texts["student"]


def test_what_a_fusion_names_belongs_to_the_key(tmp_path: Path) -> None:
    first, second = recipe_from_text(RECIPE), recipe_from_text(RECIPE.replace("factors: [0, 0.1]", "factors: [0, 1]"))
    changed = {n for n, item in first.plan(tmp_path).items() if item.key != second.plan(tmp_path)[n].key}
    assert changed == {"told"}
    other = recipe_from_text(RECIPE.replace("plausibility: null", "plausibility: 0.2"))
    changed = {n for n, item in first.plan(tmp_path).items() if item.key != other.plan(tmp_path)[n].key}
    assert changed == {"told", "scores/fused/0/greedy", "scores"}


def test_a_fusion_of_no_arm_is_refused() -> None:
    with pytest.raises(UserError, match="fusion: fuzed is not an arm"):
        recipe_from_text(RECIPE.replace("{fused: *shift}", "{fuzed: *shift}"))
