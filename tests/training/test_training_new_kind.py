"""A kind of training is one file: one from a temporary folder is listed, planned, and trained by a recipe, for real.

It is none of TRL's: transformers' own trainer learns to tell good responses from bad ones, with a head of two labels.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from w2s_align.training import SFTSettings
from w2s_align.training.methods import method_of
from w2s_align.training.settings import TrainSettings

KIND = '''
"""good_or_bad: a classifier of responses."""

import pyarrow as pa

from w2s_align.training.arguments import build_config
from w2s_align.training.arrow_file import store_rows
from w2s_align.training.data import TOKENS
from w2s_align.training.formats import labeled_of
from w2s_align.training.method import Inputs, Method
from w2s_align.training.models import Head
from w2s_align.training.settings import TrainSettings


class GoodOrBadSettings(TrainSettings):
    """Loss: cross entropy of the label."""

    smoothing: float = 0.0
    """Share of the label that goes to the other one."""


def _prepare(rows, encoder, settings, folder, seed):
    schema = pa.schema([("input_ids", TOKENS), ("labels", pa.int64())])

    def convert(batch, table):
        parts = [part for row in batch for part in labeled_of(row, table.dropped)]
        answers = encoder.encode([part["prompt"] for part in parts], [part["completion"] for part in parts])
        return [
            {"input_ids": answer.ids, "labels": int(part["label"])}
            for part, (answer,) in zip(parts, answers, strict=True)
            if table.keep({"good" if part["label"] else "bad": answer})
        ]

    return store_rows(rows, schema, ("completion",), convert, encoder, settings, folder)


def _trainer(plan, callbacks):
    import torch
    from transformers import Trainer, TrainingArguments, set_seed

    def collate(rows):
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        return {
            "input_ids": torch.nn.utils.rnn.pad_sequence(ids, True, plan.start.tokenizer.pad_token_id),
            "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], True),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    set_seed(plan.seed)
    rows, held_out = plan.split()
    arguments = build_config(TrainingArguments, plan, label_smoothing_factor=plan.settings.smoothing)
    model = plan.start.load()
    return Trainer(model, arguments, collate, rows, held_out, callbacks=callbacks)


METHODS = (
    Method(
        name="good_or_bad",
        title="classification",
        summary="Tell good responses from bad ones.",
        settings=GoodOrBadSettings,
        prepare=_prepare,
        trainer=_trainer,
        inputs=Inputs("labeled", ("pairs",), "Pairs, which are taken apart."),
        head=Head("AutoModelForSequenceClassification", "SEQ_CLS", "text-classification", labels=2),
        sides=1,
        rows_per_input=2,
        logits="none",
        library="transformers",
    ),
)
'''
FOUND = "import w2s_align.training.methods as methods\nmethods.__path__.append({folder!r})\n"
RECIPE = """\
name: new
steps:
  pairs: {{kind: import_pairs, source: {pairs}}}
  told:  {{kind: good_or_bad, model: {student}, labeled: $pairs, learning_rate: 1e-2, batch_size: 8, max_steps: 2,
           warmup_steps: 0, smoothing: 0.1}}
"""


@pytest.fixture
def w2s(tmp_path):
    """Run the command with a further folder of methods."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "good_or_bad.py").write_text(KIND)
    path = tmp_path / "path"
    path.mkdir()
    (path / "sitecustomize.py").write_text(FOUND.format(folder=str(folder)))
    inherited = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), inherited]), "COLUMNS": "200"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "w2s_align.cli", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_kind_from_a_folder_is_listed_planned_and_trained(tiny, student, tmp_path, w2s):
    pairs, recipe = tmp_path / "pairs.jsonl", tmp_path / "recipe.yaml"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in tiny.pairs(12)))
    recipe.write_text(RECIPE.format(pairs=pairs, student=student))
    listed = w2s("steps", "good_or_bad", "--all")
    assert "Tell good responses from bad ones." in listed and "Pairs, which are taken apart." in listed
    assert "Share of the label that goes to the other one." in listed
    w2s("run", str(recipe), "--runs-dir", str(tmp_path / "runs"))
    (artifact,) = (tmp_path / "runs" / "artifacts" / "good_or_bad").glob("*/artifact.json")
    manifest = json.loads(artifact.read_text())
    assert manifest["counts"]["kept"] == 2 * manifest["counts"]["rows_in"] > 0
    assert manifest["result"]["steps"] == 2 and manifest["result"]["verified"]["logit_error"] < 1e-4
    with safe_open(artifact.parent / "model" / "model.safetensors", "pt") as weights:
        assert weights.get_slice("score.weight").get_shape() == [2, 32]
    card = (artifact.parent / "model" / "README.md").read_text()
    assert "classification (transformers " in card and "- trl" not in card
    planned = w2s("plan", str(recipe), "told.seed=1", "--runs-dir", str(tmp_path / "runs"), "--gpus", "1xH100")
    assert re.search(r"told +good_or_bad +to do +≤ 24 .* 2 ", planned)  # two rows for each pair, two steps


def test_settings_of_no_kind_are_refused():
    class Other(TrainSettings):
        """Settings that no file declares."""

    assert method_of(SFTSettings(learning_rate=1e-3)).name == "sft"
    with pytest.raises(TypeError, match="Other are not the settings of a kind of training"):
        method_of(Other(learning_rate=1e-3))


def test_every_kind_declares_settings_of_its_own():
    from w2s_align.training.methods import all_methods

    methods = all_methods()
    assert set(methods) >= {"sft", "dpo", "kto", "simpo", "cpo", "orpo", "reward"}
    assert len({method.settings for method in methods.values()}) == len(methods)
    files = {
        path.stem for path in (Path(__file__).parents[2] / "w2s_align" / "training" / "methods").glob("[a-z]*.py")
    }
    assert files == {method.settings.__module__.rpartition(".")[2] for method in methods.values()}
