"""Training a lab model: the data, the folder, and a kill at any moment."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lab_solutions import write_solution
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from w2s_align.errors import UserError
from w2s_align.lab import LabModel, LabResources, build_tokenizer, train_lab_model
from w2s_align.lab.train import IGNORED, _batch

SMALL = {"slip": 0.5, "layers": 1, "width": 32, "steps": 20, "batch_size": 8, "seed": 1}
PROGRAM = """
import sys
from w2s_align.lab import LabResources, train_lab_model
train_lab_model(sys.argv[1], resources=LabResources(threads=1, checkpoint_seconds=0),
                slip=0.5, layers=1, width=32, steps=int(sys.argv[2]), batch_size=8, seed=1)
"""


def test_training_text_is_the_chat_template_of_the_solution() -> None:
    tokenizer = build_tokenizer()
    tokens, targets, slip_entropy = _batch(LabModel(slip=1.0, batch_size=3, seed=4), step=0)
    for row, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        question, response = tokenizer.decode(row).split("<|end|><|assistant|>")
        chat = [{"role": "user", "content": question.removeprefix("<|user|>")}]
        solution = response.split("<|end|>")[0].split("<|pad|>")[0]
        chat.append({"role": "assistant", "content": solution})
        whole = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
        assert row[: len(whole) - 1] == whole[:-1]
        learnt = [token for token in target if token != IGNORED]
        assert tokenizer.decode(learnt) == solution + "<|end|>"
        assert "+1=" not in solution  # slip 1: no carry is ever added
        assert solution.upper() == write_solution("lab/addition", chat[0]["content"], (True, True, True))
    assert slip_entropy == 0.0  # an author who always forgets surprises nobody


def test_model_folder_is_an_ordinary_one(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    trained = train_lab_model(tmp_path, progress=lambda *row: seen.append(row), **SMALL)
    model = AutoModelForCausalLM.from_pretrained(trained.model)
    tokenizer = AutoTokenizer.from_pretrained(trained.model)
    assert model.dtype == torch.float32
    assert (model.config.eos_token_id, model.config.pad_token_id) == (1, 0)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (1, 0)
    chat = [{"role": "user", "content": "3847+5296"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).shape[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "model", "settings.json"]
    assert not [path for path in trained.model.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    assert seen[-1][:2] == (20, 20)

    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["learning_rate"] < 1e-4
    assert trained.examples == 160
    assert trained.loss == pytest.approx(sum(row["loss"] for row in rows) / 20)

    # Called again, it trains nothing and says the same.
    before = (trained.model / "model.safetensors").stat().st_mtime_ns
    assert train_lab_model(tmp_path, **SMALL) == trained
    assert (trained.model / "model.safetensors").stat().st_mtime_ns == before


def test_another_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train_lab_model(tmp_path, **SMALL | {"steps": 1})
    with pytest.raises(UserError, match="other settings"):
        train_lab_model(tmp_path, **SMALL | {"steps": 2})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"width": 100}, "multiple of neither"), ({"slip": 1.5}, "less than or equal to 1"), ({"layer": 2}, "layer")],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        train_lab_model(tmp_path, **settings)


def test_killed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    steps = 60
    whole = train_lab_model(tmp_path / "whole", resources=LabResources(threads=1), **SMALL | {"steps": steps})
    killed = tmp_path / "killed"
    stopped_at = [_run_and_kill(killed, steps, after=wanted) for wanted in (10, 30)]
    assert 0 < stopped_at[0] < stopped_at[1] < steps
    again = train_lab_model(killed, resources=LabResources(threads=1), **SMALL | {"steps": steps})
    assert _digest(again.model / "model.safetensors") == _digest(whole.model / "model.safetensors")
    assert (killed / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def _run_and_kill(folder: Path, steps: int, after: int) -> int:
    """Train in a process of its own, SIGKILL it when ``after`` steps are in its metrics, and return how many were."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(steps)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while _lines(folder) < after:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return _lines(folder)


def _lines(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_carry_can_have_a_slip_of_its_own() -> None:
    tokenizer = build_tokenizer()
    tokens, _, slip_entropy = _batch(LabModel(slip=[0.0, 1.0, 0.5], batch_size=64, seed=0), step=0)
    texts = [tokenizer.decode(row).split("<|assistant|>")[1].upper().split("\n")[:4] for row in tokens.tolist()]
    due = [[line[7] == "1" for line in text[:3]] for text in texts]  # U7+6+0=13: what comes before the digit
    added = [[line[5] == "1" for line in text[1:]] for text in texts]
    assert all(d[0] == a[0] for d, a in zip(due, added, strict=True))
    assert not any(a[1] for a in added)
    thousands = [a[2] for d, a in zip(due, added, strict=True) if d[2]]
    assert 0 < sum(thousands) < len(thousands)
    assert slip_entropy == pytest.approx(len(thousands) * np.log(2))
