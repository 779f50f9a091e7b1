"""Model cards: what a training writes, what the report adds, and the push of both to a hub on the loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import huggingface_hub
import pytest
from fake_hub import FakeHub
from huggingface_hub import ModelCard

from w2s_align.errors import UserError
from w2s_align.runs import Run, recipe_from_text
from w2s_align.training import DPOSettings, train
from w2s_align.training.models import weights_digest

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 1, "lr_scheduler_type": "constant", "warmup_steps": 0}
TOKEN = "hf_" + "x" * 20
RECIPE = """\
name: card
seed: 0
steps:
  pairs:    {{kind: import_pairs, source: {folder}/pairs.jsonl}}
  problems: {{kind: prompts, source: {folder}/problems.jsonl}}
  dpo:      {{kind: dpo, model: {student}, pairs: $pairs, learning_rate: 1e-2, batch_size: 4, max_steps: 1,
             warmup_steps: 0, seeds: [1, 2]}}
  scores:
    kind: evaluate
    prompts: $problems
    arms: {{before: {student}, dpo: $dpo}}
    roles: {{before: student, dpo: treatment}}
    baseline: before
    scorer: numeric
    sampling: {{greedy: {{temperature: 0, max_tokens: 4}}}}
    engine: {{name: transformers}}
  report: {{kind: report, of: $scores, push_to_hub: {{me/student: $dpo@2}}}}
"""


@pytest.fixture
def hub():
    with FakeHub(TOKEN) as opened:
        yield opened


@pytest.fixture
def recipe(tiny, student, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tiny.pairs(12)))
    problems = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    return RECIPE.format(folder=tmp_path, student=student)


def test_a_training_names_its_data_and_its_start_by_their_digests(tiny, student, tmp_path):
    report = train(student, tiny.pairs(4), tmp_path / "a", DPOSettings(**PLAIN))
    again = train(student, tiny.pairs(4), tmp_path / "b", DPOSettings(**PLAIN, beta=0.5))
    other = train(student, tiny.pairs(4, seed=1), tmp_path / "c", DPOSettings(**PLAIN))
    assert report.digests == again.digests != other.digests
    assert report.digests["start"] == other.digests["start"] == weights_digest(student)
    card = (tmp_path / "a" / "model" / "README.md").read_text()
    assert f"start have the SHA-256 `{report.digests['start']}`" in card
    assert re.search(rf"trained on: `{report.digests['data']}`", card)
    assert "| kept | 4 |" in card


@pytest.mark.slow
def test_a_model_is_pushed_with_its_recipe_data_arms_and_numbers(recipe, tmp_path, hub):
    (tmp_path / "recipe.yaml").write_text(recipe)
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "w2s_align.cli", "run", "recipe.yaml"]
    home = {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        command, env=os.environ | environment | home, capture_output=True, text=True, timeout=1200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    repository = hub.repositories["me/student"]
    assert repository["private"] is True
    run = Run.open(tmp_path / "w2s_runs" / "runs" / "card" / "latest")
    model = run.artifact("dpo@2")
    assert repository["files"]["model.safetensors"] == (model.model / "model.safetensors").read_bytes()
    assert {"config.json", "tokenizer.json", "README.md"} <= repository["files"].keys()
    text = repository["files"]["README.md"].decode()
    card = ModelCard(text)
    (result,) = card.data.eval_results
    assert (card.data.model_name, result.metric_args["problems"]) == ("dpo@2", 4)
    assert "interval" in result.metric_name
    assert "| before | untouched student |" in text and "| **dpo** | tuned student |" in text
    assert model.manifest["result"]["digests"]["data"] in text
    assert f"| dpo@2 | dpo | 12 |  | `{model.key}` |" in text
    assert f"| pairs | import\\_pairs | 12 |  | `{run.artifact('pairs').key}` |" in text
    assert text.endswith(f"## Recipe\n\n```yaml\n{recipe}```\n")
    beside = run.path / "models" / "dpo@2"  # the same card, beside the same weights
    assert (beside / "README.md").read_text() == text
    assert (beside / "model.safetensors").read_bytes() == repository["files"]["model.safetensors"]
    assert {path.name for path in beside.iterdir()} == {path.name for path in model.model.iterdir()}
    assert "models/dpo@{1,2}" in done.stdout + done.stderr and "report.html" in done.stdout + done.stderr
    assert run.artifact("report").manifest["result"]["pushed"] == {
        "me/student": f"{hub.endpoint}/datasets/me/student/commit/{repository['commits'][-1]}"
    }
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in kept if TOKEN.encode() in file.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr


def test_what_cannot_be_pushed_is_refused_before_anything_runs(recipe, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="Cannot push to me/student without a token"):
        recipe_from_text(recipe)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    recipe_from_text(recipe)
    with pytest.raises(UserError, match=r"one model for each of the seeds 1, 2\..*Choose one: \$dpo@1"):
        recipe_from_text(recipe.replace("$dpo@2}", "$dpo}"))
    with pytest.raises(UserError, match=r"dpo.resources.push_to_hub is not an option .*Use push_to_hub of the report"):
        recipe_from_text(recipe.replace("seeds: [1, 2]", "resources: {push_to_hub: me/x}"))
