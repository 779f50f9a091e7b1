"""The steps that train: what is part of their key, what they claim of a machine, and a recipe of all of them."""

import json

import pytest

from w2s_align.errors import UserError
from w2s_align.runs import load_recipe, recipe_from_text
from w2s_align.steps import CATALOGUE
from w2s_align.terminal.catalogue import recipes_folder

KINDS = ["sft", "dpo", "kto", "simpo", "cpo", "orpo", "reward"]


def step(kind, **options):
    data = {"data": "$pairs"} if kind == "sft" else {"pairs": "$pairs"}
    return CATALOGUE[kind](kind=kind, model="$student", learning_rate=1e-3, **data, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_training_runs_is_no_part_of_its_key(kind):
    alone = step(kind)
    shared = step(
        kind, launch="zero2", resources={"processes": 2, "micro_batch_size": 1, "report_to": ["tensorboard"]}
    )
    assert alone.content() == shared.content()
    assert "launch" not in alone.content()
    assert step(kind, batch_size=64).content() != alone.content()


def test_one_process_claims_one_gpu_and_several_claim_all():
    assert step("dpo").claims().gpus == 1
    assert step("dpo", launch="zero3").claims().gpus is None
    assert step("dpo", launch="zero3", resources={"gpus": 4, "cpus": 8}).claims().gpus == 4


def test_a_launch_that_does_not_exist_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="Did you mean zero2"):
        step("dpo", launch="zero_2").check()


RECIPE = """
name: all
steps:
  pairs:  {{kind: import_pairs, source: {pairs}, filters: {{min_words: 0}}}}
  sft:    {{kind: sft, model: {student}, data: $pairs, learning_rate: 1.0e-3, batch_size: 8}}
  one:    &dpo {{kind: dpo, model: $sft, pairs: $pairs, learning_rate: 1.0e-3, batch_size: 8, seeds: [1, 2]}}
  other:  {{<<: *dpo, beta: 0.5}}
  kto:    {{kind: kto, model: $sft, pairs: $pairs, learning_rate: 1.0e-3, batch_size: 8}}
  simpo:  {{kind: simpo, model: $sft, pairs: $pairs, learning_rate: 1.0e-3, batch_size: 8}}
  reward: {{kind: reward, model: $sft, pairs: $pairs, learning_rate: 1.0e-3, batch_size: 8}}
"""


@pytest.mark.slow
def test_a_recipe_of_all_trainings(tiny, student, tmp_path):
    rows = [
        {
            "prompt": row["prompt"],
            **{side: [{"role": "assistant", "content": row[side][0]["content"]}] for side in ("chosen", "rejected")},
        }
        for row in tiny.pairs(24)
    ]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = RECIPE.format(pairs=source, student=student).replace(", filters: {min_words: 0}", "")
    run = recipe_from_text(text).run(tmp_path / "runs")
    first = run.artifact("one@1").manifest
    assert first["result"]["preflight"]["batch"]["effective"] == 8
    assert first["counts"]["rows_in"] == run.table("pairs").num_rows
    # Two seeds and two betas over the same pairs and start: one set of reference log-probabilities. KTO has its own.
    assert len(list((tmp_path / "runs" / "cache" / "reference").rglob("train-*.arrow"))) == 2
    assert (run.artifact("reward").model / "config.json").is_file()


def test_the_quickstart_under_zero2_has_the_same_keys():
    overrides = ["dpo.launch=zero2", "dpo.resources.processes=2"]
    plain, launched = (load_recipe(recipes_folder() / "quickstart.yaml", o).recipe for o in ([], overrides))
    assert launched.nodes["dpo@1"].config.launch == "zero2"
    assert plain.nodes["dpo@1"].config.content() == launched.nodes["dpo@1"].config.content()
