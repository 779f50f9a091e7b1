"""Plans: GPUs by name, memory against what is published, ways out that fit, and counts that equal those of the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.estimates.estimate import estimate
from w2s_align.estimates.gpus import GPUS, hardware
from w2s_align.families import find_shape
from w2s_align.generation.memory import generation_memory
from w2s_align.runs import recipe_from_text


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("8xH100", 8, "H100"),
        ("h200", 1, "H200"),
        ("4 x RTX 4090", 4, "RTX4090"),
        ("1x4090", 1, "RTX4090"),
        ("2xa100-40", 2, "A100-40"),
        ("8xA100-80GB", 8, "A100"),
        ("NVIDIA A100-SXM4-40GB", 1, "A100-40"),
    ],
)
def test_gpus_are_found_by_name(text: str, count: int, name: str) -> None:
    found = hardware(text)
    assert found is not None and (found.count, found.gpu.name) == (count, name)
    priced = hardware(text, price=2.5)
    assert priced is not None and priced.price == (2.5, 2.5)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("8xH1000", "Did you mean H100"), ("4xV100", "H100"), ("8", "For example 8xH100"), ("0xH100", "8xH100")],
)
def test_gpus_that_do_not_exist_are_answered(text: str, answer: str) -> None:
    with pytest.raises(UserError, match=answer):
        hardware(text)


def test_a_model_that_does_not_fit_says_how_it_would() -> None:
    text = """\
name: big
steps:
  pairs: {kind: import_pairs, source: allenai/llama-3.1-tulu-3-8b-preference-mixture}
  prompts: {kind: prompts, source: openai/gsm8k, config: main}
  dpo: {kind: dpo, model: meta-llama/Llama-3.1-8B-Instruct, pairs: $pairs, learning_rate: 1e-6}
  answers: {kind: generate, model: Qwen/Qwen2.5-72B-Instruct, prompts: $prompts,
            sampling: {temperature: 0, max_tokens: 512}}
"""
    planned = recipe_from_text(text).plan("nowhere")
    costs = estimate(planned, Store(Path("nowhere")), hardware("1xRTX4090"))
    assert costs.steps["dpo"].fits is False
    assert costs.steps["dpo"].advice == (
        "launch: zero3_offload, resources: {optimize_for: memory} (128 GB of the machine's own memory), or "
        "adapter: {r: 64, alpha: 128}, or adapter: {r: 64, alpha: 128, load_in_4bit: true}"
    )
    costs = estimate(planned, Store(Path("nowhere")), hardware("1xRTX3060"))
    assert "adapter: {r: 64, alpha: 128, load_in_4bit: true}" in costs.steps["dpo"].advice
    assert "adapter: {r: 64, alpha: 128}," not in costs.steps["dpo"].advice
    costs = estimate(planned, Store(Path("nowhere")), hardware("8xH100"))
    assert costs.steps["answers"].advice == "resources: {tensor_parallel_size: 4}"
    assert costs.steps["dpo"].steps == 8482 and costs.steps["answers"].rows == 7473
    shape = find_shape("Qwen/Qwen2.5-72B-Instruct")
    assert shape is not None and generation_memory(shape, GPUS["H100"].memory, devices=4, longest=1536).sequences > 16


RUN = """\
name: counted
steps:
  student: {kind: stand_in_model, like: Qwen/Qwen2.5-1.5B-Instruct}
  weaker: {kind: stand_in_model, like: Qwen/Qwen2.5-0.5B-Instruct}
  prompts: {kind: prompts, source: lab/addition, limit: 20}
  a: &generate
    kind: generate
    model: $student
    prompts: $prompts
    sampling: {temperature: 1, max_tokens: 80}
    engine: {name: transformers}
    seed: 1
  b: {<<: *generate, model: $weaker, seed: 2}
  pairs: {kind: pair, rule: model_order, chosen: $a, rejected: $b, filters: {truncated: false}}
  judged: {kind: judge, mode: pairwise, model: $student, responses: [$a, $b], engine: {name: transformers},
           sampling: {temperature: 0, max_tokens: 8}}
  # An epoch and a half; a batch that is filled up; rows that are too long; passes without padding.
  dpo: &dpo {kind: dpo, model: $student, pairs: $pairs, learning_rate: 1e-3, batch_size: 6, num_train_epochs: 1.5,
             max_length: 200, dtype: float32, resources: {device: cpu}}
  two_seeds: {<<: *dpo, seeds: [3, 4], max_steps: 4, resources: {device: cpu, padding_free: false}}
  sft: {kind: sft, model: $student, data: $pairs, learning_rate: 1e-3, batch_size: 8, num_train_epochs: 2, held_out: 3,
        max_length: 200, dtype: float32, resources: {device: cpu}}
  answers: {kind: sft, model: $student, data: $a, learning_rate: 1e-3, batch_size: 6, max_steps: 5, max_length: 200,
            dtype: float32, resources: {device: cpu}}
  kto: {<<: *dpo, kind: kto, kl_batch: 3}
  reward: {<<: *dpo, kind: reward, held_out: 0.1}
  simpo: {<<: *dpo, kind: simpo, max_steps: 3}
"""
DATA = ("student", "weaker", "prompts", "a", "b", "pairs")


@pytest.mark.slow
def test_rows_steps_and_tokens_of_the_plan_are_those_of_the_run(tmp_path: Path) -> None:
    recipe = tmp_path / "counted.yaml"
    recipe.write_text(RUN)
    runs = str(tmp_path / "runs")
    only = [part for name in DATA for part in ("--only", name)]
    command = [sys.executable, "-m", "w2s_align.cli"]
    subprocess.run([*command, "run", str(recipe), *only, "--runs-dir", runs], check=True, capture_output=True)
    shown = subprocess.run(
        [*command, "plan", str(recipe), "--count", "--gpus", "1xH100", "--runs-dir", runs],
        check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": "150"},
    ).stdout  # fmt: skip
    assert "On 1 x H100 (80 GB)" in shown and "US dollars" in shown
    loaded = recipe_from_text(RUN)
    before = estimate(loaded.plan(runs), Store(Path(runs)), hardware("1xH100"), count=True).steps
    run = loaded.run(runs)
    kinds = set()
    for name, planned in before.items():
        if name in DATA:
            continue
        manifest = run.artifact(name).manifest
        kinds.add(manifest["kind"])
        assert planned.exact, name
        if manifest["kind"] == "judge":
            assert planned.rows == manifest["counts"]["rows_in"] == manifest["result"]["asked"]["prompts"]
            continue
        assert planned.rows == manifest["counts"]["kept"], name
        assert planned.steps == manifest["result"]["steps"], name
        if manifest["kind"] != "simpo":  # TRL counts no tokens there
            assert planned.tokens == (manifest["result"]["tokens"],) * 2, name
    assert kinds == {"judge", "dpo", "sft", "kto", "reward", "simpo"}


def test_a_reference_that_is_another_model_takes_its_memory(tmp_path: Path) -> None:
    text = """
name: one
steps:
  pairs: {{kind: import_pairs, source: {file}}}
  tuned: {{kind: dpo, model: Qwen/Qwen2.5-1.5B-Instruct, pairs: $pairs, learning_rate: 1e-6{more}}}
"""
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')

    def memory(more: str) -> float:
        recipe = recipe_from_text(text.format(file=file, more=more))
        found = estimate(recipe.plan(tmp_path / "runs"), Store(tmp_path / "runs"), hardware("1xH100"))
        return float(found.steps["tuned"].memory or 0)

    other = find_shape("Qwen/Qwen2.5-0.5B-Instruct")
    assert other is not None
    beside = memory(", reference: Qwen/Qwen2.5-0.5B-Instruct") - memory("")
    assert beside == pytest.approx(4.0 * other.parameters)
    assert memory(", merge_start: false") < memory("") / 2  # an adapter goes on, not the whole model
