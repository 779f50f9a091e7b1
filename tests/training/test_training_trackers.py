"""Trackers that follow a training: what they see, where it goes, and that it changes nothing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from w2s_align.records import Prompt, to_table
from w2s_align.steps import CATALOGUE
from w2s_align.training import DPOSettings, QuickTask, TrainResources, train

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 3, "lr_scheduler_type": "constant", "warmup_steps": 0}
TOKEN = "hf_" + "y" * 20


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_every_metric_of_every_step_beside_the_model(tiny, student, tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    pq.write_table(to_table([Prompt.of("1+1=", answer="2")]), tmp_path / "quick.parquet")
    quick = QuickTask(prompts=str(tmp_path / "quick.parquet"), scorer="numeric", max_tokens=4)
    settings = DPOSettings(**PLAIN, loss="sigmoid_norm", beta=5, held_out=2, quick_task=quick, evaluate_every=1)
    resources = TrainResources(report_to=["tensorboard"])
    report = train(student, tiny.pairs(10), tmp_path / "out", settings, resources=resources)
    found = events.EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    found.Reload()
    rows = metrics(tmp_path / "out")
    for name in ("loss", "rewards/margins", "rewards_per_token/margins", "tokens", "grad_norm"):
        scalars = found.Scalars(f"train/{name}")
        assert [event.step for event in scalars] == [1, 2, 3]
        assert [event.value for event in scalars] == pytest.approx([row[name] for row in rows], rel=1e-5)
    assert [event.value for event in found.Scalars("eval/loss")] == pytest.approx(
        [row["loss"] for row in report.held_out if "loss" in row], rel=1e-5
    )
    accuracies = [row["accuracy"] for row in report.held_out]
    assert [event.value for event in found.Scalars("train/quick_task/accuracy")] == pytest.approx(accuracies[1:])
    assert not [
        file for file in (tmp_path / "out").rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()
    ]
    # Nothing of it reaches what is learned.
    plain = train(student, tiny.pairs(10), tmp_path / "plain", settings)
    assert not (tmp_path / "plain" / "tensorboard").exists()
    assert all(plain.metrics[end] == pytest.approx(report.metrics[end]) for end in ("first", "last"))


def test_a_folder_of_the_users_own_is_kept(tiny, student, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "all"))
    resources = TrainResources(report_to=["tensorboard"])
    train(student, tiny.pairs(4), tmp_path / "out", DPOSettings(**PLAIN), resources=resources)
    assert len(list((tmp_path / "all").glob("events.*"))) == 1
    assert not (tmp_path / "out" / "tensorboard").exists()


def test_a_tracker_is_no_part_of_the_key():
    def step(**resources):
        options = {"model": "$student", "pairs": "$pairs", "learning_rate": 1e-3, "resources": resources}
        return CATALOGUE["dpo"](kind="dpo", **options)

    assert step().content() == step(report_to=["tensorboard", "trackio"]).content()


SCRIPT = """
import json, sys
from w2s_align.training import DPOSettings, TrainResources, train
student, pairs, out, settings = json.loads(sys.argv[1])
train(student, pairs, out, DPOSettings(**settings), resources=TrainResources(report_to=["trackio"]))
"""


@pytest.mark.slow
def test_trackio_has_every_step_in_its_own_database_without_a_network(tiny, student, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    for name, value in {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    settings = DPOSettings(**PLAIN, loss="sigmoid_norm", beta=5).model_dump()
    arguments = json.dumps([str(student), tiny.pairs(8), str(tmp_path / "out"), settings])
    done = subprocess.run([sys.executable, "-c", SCRIPT, arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as opened:
        logged = [json.loads(row[0]) for row in opened.execute("select metrics from metrics order by step")]
    steps = [row for row in logged if "train/loss" in row]
    rows = metrics(tmp_path / "out")
    assert [row["train/loss"] for row in steps] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    assert "train/rewards_per_token/margins" in steps[0]
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in kept if TOKEN.encode() in file.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr
