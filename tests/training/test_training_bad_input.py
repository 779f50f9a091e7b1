"""What cannot be trained is refused before the model is loaded, with the way out: exit code 2 and no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.runs import load_recipe, recipe_from_text
from w2s_align.training import DPOSettings, Lora, TrainResources, train

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 2, "lr_scheduler_type": "constant", "warmup_steps": 0}

RENAMED_BY_TRL = {
    "max_prompt_length": "Use max_length for prompt and response together, and too_long",
    "warmup_ratio": "Use warmup_steps: a number below 1 is a share of all steps",
    "torch_dtype": "Use dtype",
    "tokenizer": "the student's own tokenizer and chat template are used",
    "max_seq_length": "Use max_length.",
    "evaluation_strategy": "Use held_out for a loss during training, and quick_task for an accuracy.",
    "gradient_checkpointing": "Write it under resources",
    "activation_checkpointing": "Use gradient_checkpointing, under resources.",
    "use_liger_kernel": "the trainer has its own fused output head",
    "use_liger_loss": "the trainer has its own fused output head",
    "rpo_alpha": "Use loss: [sigmoid, sft] with loss_weights: [1.0, alpha].",
    "reference_free": "Use a step of kind simpo, cpo or orpo",
    "overwrite_output_dir": "every training has its own folder",
    # Gone from TRL or transformers 5 without a place in the table.
    "max_completion_length": "Use max_length for prompt and response together, and too_long.",
    "force_use_ref_model": "the reference is always the model that training starts from",
    "ref_model_init_kwargs": "the reference is always the model that training starts from",
    "model_adapter_name": "the reference is always the model that training starts from",
    "ref_adapter_name": "the reference is always the model that training starts from",
    "base_model_attribute_name": "Leave it out",
    "generate_during_eval": "Use quick_task",
    "label_pad_token_id": "micro batches have no padding",
    "padding_value": "micro batches have no padding",
    "use_logits_to_keep": "logits only where there is loss",
    "tools": "chats with tools are not trained on",
    "logging_dir": "events of tensorboard go to tensorboard/ beside the model",
    "save_safetensors": "models are always saved as safetensors",
    "group_by_length": "micro batches have no padding",
    "include_tokens_per_second": "tokens and seconds are always counted",
    "push_to_hub_token": "the token is that in HF_TOKEN",
    "no_cuda": "Use device: cpu, under resources.",
}
"""Rows of peers_and_style D3, and what else TRL 1.16 and transformers 5 have dropped."""


@pytest.mark.parametrize("name", RENAMED_BY_TRL)
def test_an_argument_of_another_version_is_answered_with_its_replacement(name):
    step = "{kind: import_pairs, source: a/b}\n  dpo: {kind: dpo, model: x/y, pairs: $pairs, learning_rate: 1e-6, "
    for option in (f"{name}: 1}}", f"trl: {{{name}: 1}}}}"):
        with pytest.raises(UserError) as caught:
            recipe_from_text(f"name: old\nsteps:\n  pairs: {step}{option}\n")
        (problem,) = caught.value.problems
        assert RENAMED_BY_TRL[name].rstrip(".") in f"{problem.why} {problem.fix}"
        assert name in f"{problem.what} {problem.why}"


def test_an_argument_that_trl_does_not_have_is_refused_before_the_model_is_loaded(tiny, unloadable, tmp_path):
    settings = DPOSettings(**PLAIN, trl={"activation_ofloading": True})
    with pytest.raises(UserError, match=r"not an argument of DPOConfig.*Did you mean activation_offloading"):
        train(unloadable, tiny.pairs(4), tmp_path / "out", settings)


def test_options_that_do_not_go_together_are_said_by_the_name_of_the_step():
    dpo = "{kind: dpo, model: x/y, pairs: $pairs, learning_rate: 1e-6, loss: exo_pair}"
    with pytest.raises(UserError) as caught:
        recipe_from_text(f"name: odd\nsteps:\n  pairs: {{kind: import_pairs, source: a/b}}\n  dpo: {dpo}\n")
    expected = "recipe.yaml:4  dpo: exo_pair needs label_smoothing above 0; its paper uses 1e-3."
    assert str(caught.value) == expected


@pytest.fixture
def unloadable(student, tmp_path):
    """A model whose weights no library can read: whoever loads them gets an error of another kind."""
    folder = shutil.copytree(student, tmp_path / "unloadable")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    return folder


RECIPE = """\
name: bad
seed: 0
steps:
  good:       {{kind: import_pairs, source: {folder}/good.jsonl}}
  same:       {{kind: import_pairs, source: {folder}/same.jsonl, filters: {{identical: false}}}}
  no_prompt:  {{kind: import_pairs, source: {folder}/no_prompt.jsonl}}
  equal:      {{kind: dpo, model: {student}, pairs: $same, {plain}}}
  no_pad:     {{kind: reward, model: {folder}/no_pad, pairs: $good, {plain}}}
  pad_is_eos: {{kind: reward, model: {folder}/pad_is_eos, pairs: $good, {plain}}}
  other_base: {{kind: dpo, model: {folder}/adapter, pairs: $good, {plain}}}
  processes:  {{kind: dpo, model: {student}, pairs: $good, {plain}, resources: {{processes: 2}}}}
  sharded:    {{kind: dpo, model: {student}, pairs: $good, {plain}, launch: zero3, adapter: {{use_dora: true}}}}
  foreign:    {{kind: dpo, model: {student}, pairs: $good, {plain}, beta: 0.3}}
"""

REFUSED = {
    "no_prompt": "no_prompt made no pair. Counts: ",
    "equal": "In all 4 pairs the chosen response equals the rejected one. Such pairs carry no preference. "
    "Check which two sets of responses were paired.",
    "no_pad": "The tokenizer has no token for padding. A reward model's score is read at the last token that is no "
    "padding: an EOS would be passed over. Set pad_token to a special token of its vocabulary that no chat contains.",
    "pad_is_eos": "The tokenizer has no token for padding but '</s>', which is its EOS.",
    "other_base": "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight has the shape [32, 2]; there it must "
    "have [16, 2]. Give the base that it was made for in its adapter_config.json (base_model_name_or_path).",
    "processes": "2 processes are asked for, and launch is single. Set launch: ddp, zero2, zero3 or fsdp2, or leave "
    "processes out.",
    "sharded": "adapter.use_dora cannot be combined with launch: zero3. DoRA needs the norm of every whole weight "
    "matrix. Use ddp or zero2, or LoRA without use_dora.",
    "foreign": "belongs to another training. Different: start, start_files, settings. Give another output folder, or "
    "remove this one.",
}


@pytest.fixture
def bad(tiny, student, unloadable, tmp_path):
    """A recipe of steps that cannot work, and all that it names."""
    good = tiny.pairs(4)
    same = [{**row, "rejected": row["chosen"]} for row in good]
    no_prompt = [{"chosen": row["chosen"], "rejected": row["rejected"]} for row in good]
    for name, rows in {"good": good, "same": same, "no_prompt": no_prompt}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, pad in {"no_pad": None, "pad_is_eos": "</s>"}.items():
        folder = shutil.copytree(unloadable, tmp_path / name)
        tiny.tokenizer(pad_token=pad).save_pretrained(folder)
        for file in folder.glob("tokenizer*.json"):
            file.write_text(file.read_text().replace("<pad>", "<fill>"))
    adapter = train(student, good, tmp_path / "first", DPOSettings(**PLAIN, adapter=Lora(r=2))).adapter_dir
    narrow = shutil.copytree(unloadable, tmp_path / "narrow")
    config = json.loads((narrow / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps(config | {"hidden_size": 16, "head_dim": 8}))
    shutil.copytree(adapter, tmp_path / "adapter")
    of_adapter = tmp_path / "adapter" / "adapter_config.json"
    of_adapter.write_text(json.dumps(json.loads(of_adapter.read_text()) | {"base_model_name_or_path": str(narrow)}))
    plain = ", ".join(f"{name}: {value}" for name, value in PLAIN.items())
    path = tmp_path / "bad.yaml"
    path.write_text(RECIPE.format(folder=tmp_path, student=unloadable, plain=plain))
    return path


class Killed(Exception):
    pass


def kill(step, total, note):
    if step == 1:
        raise Killed


@pytest.mark.slow
def test_a_recipe_of_impossible_trainings_says_all_that_is_wrong_in_one_panel(bad, tiny, student, tmp_path):
    root = tmp_path / "runs"
    foreign = load_recipe(bad).plan(root)["foreign"]
    folder = Store(root).partial("dpo", foreign.key)
    saving = TrainResources(save_every=1)
    with pytest.raises(Killed):
        train(student, tiny.pairs(4), folder, DPOSettings(**PLAIN, beta=0.2), resources=saving, progress=kill)
    command = [sys.executable, "-m", "w2s_align.cli", "run", str(bad), "--runs-dir", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    panel = " ".join(line.strip("\u2502 ") for line in done.stderr.splitlines())
    panel = " ".join(panel.split())
    for step, words in REFUSED.items():
        said = panel.partition(f"step {step} ")[2]
        assert words in said, f"{step}: {said[:400]}"
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((root / "artifacts").glob("dpo/*/artifact.json"))
