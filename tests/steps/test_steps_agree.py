"""Where two packages share a convention without importing each other, this pins it; and every shipped recipe loads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from w2s_align.artifacts.artifact import Artifact
from w2s_align.generation import Sampling
from w2s_align.recipe.schema import Resources
from w2s_align.records import Prompt, Response, Score, own_docstring, to_table
from w2s_align.runs import load_recipe
from w2s_align.steps import CATALOGUE
from w2s_align.steps.generate import Generate
from w2s_align.steps.select import Select
from w2s_align.steps.work import Work, merge_warnings
from w2s_align.terminal.catalogue import shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(shipped_recipes()[name]).recipe
    assert recipe.nodes
    assert recipe.description


@pytest.mark.parametrize("kind", CATALOGUE)
def test_every_option_of_every_step_has_a_help_text(kind: str) -> None:
    step = CATALOGUE[kind]
    assert own_docstring(step)
    assert [name for name, info in step.model_fields.items() if name != "kind" and not info.description] == []
    assert issubclass(type(step.model_fields["resources"].default), Resources)


def test_the_context_is_named_where_it_cuts_answers() -> None:
    step = Generate(model="m", prompts="$p", sampling=Sampling(temperature=0, max_tokens=100))
    for context, said in (
        (110, "at the end of the model's context of 110 tokens."),
        (120, "at 100 tokens; raise"),
        (None, "at"),
    ):
        result: Any = SimpleNamespace(engine={"max_model_len": context}, prompt_tokens=40, rows=2)
        assert step._where_cut(result).startswith(said)


def test_seeds_that_warn_about_the_same_are_one_line() -> None:
    warnings = [
        ("dpo@1", "step 47: both fell"),
        ("dpo@2", "step 5: both fell"),
        ("s/dpo/0/greedy", "6% cut"),
        ("p", "x"),
    ]
    assert merge_warnings([*warnings, ("s/dpo/1/greedy", "7.5% cut"), ("s/sft/0/sampled", "9% cut")]) == [
        "dpo@1: step 47: both fell (and 1 more like it)",
        "s/dpo/0/greedy: 6% cut (and 2 more like it)",
        "p: x",
    ]


def test_a_data_file_beside_a_recipe_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "p.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "recipes" / "r.yaml").write_text("name: r\nsteps:\n  prompts: {kind: prompts, source: p.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    run = load_recipe("recipes/r.yaml").run(tmp_path / "runs")
    assert run.table("prompts").num_rows == 1


def test_a_selection_counts_dropped_responses_as_well_as_prompts(tmp_path: Path) -> None:
    prompts = [Prompt.of(question, answer="1") for question in ("a", "b", "c")]
    responses = [
        Response(p.id, 0, "m", "1", None, end) for p, end in zip(prompts, ("stop", "stop", "length"), strict=True)
    ]
    scores = [Score(p.id, 0, "m", "exact", value) for p, value in zip(prompts, (1.0, 0.0, 1.0), strict=True)]
    made = {}
    for kind, rows in (("prompts", prompts), ("responses", responses), ("scores", scores)):
        folder = tmp_path / kind / "key"
        (folder / "data").mkdir(parents=True)
        pq.write_table(to_table(rows), folder / "data" / f"{kind}.parquet")
        manifest = {"kind": kind, "type": kind, "key": "key", "inputs": {"prompts": {"kind": "prompts", "key": "key"}}}
        (folder / "artifact.json").write_text(json.dumps(manifest))
        made[kind] = Artifact.open(folder)
    inputs = {"responses": made["responses"], "scores.0": made["scores"]}
    work = Work("picked", tmp_path / "out", inputs, {}, lambda done, total, note: None)
    Select(by="correct", responses="$r", scores=["$s"]).run(work)
    assert (work.counts["rows_in"], work.counts["kept"]) == (3, 1)
    assert work.counts["dropped"] == {"prompts: all wrong": 1, "prompts: no response": 1, "responses: truncated": 1}
