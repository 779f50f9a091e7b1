"""A generation that machines share through a folder, here several processes: killed, watched, put together."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.runs import Run
from w2s_align.runs.status import now

FAST_ENGINE = Path(__file__).parents[1] / "support" / "fast_engine"
RECIPE = """\
name: shared
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 60}
  model: {kind: stand_in_model, like: Qwen/Qwen2.5-0.5B-Instruct}
  answers: {kind: generate, model: $model, prompts: $prompts, sampling: {temperature: 1, max_tokens: 16, n: 2},
            engine: {name: transformers}}
  scores: {kind: score, responses: $answers}
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "w2s_align.cli", *arguments, "--runs-dir", "runs"]
    env = {**os.environ, "PYTHONPATH": str(FAST_ENGINE)}
    return subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def w2s(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    return said


def answers(folder: Path) -> str:
    artifact = Run.open(folder / "runs" / "runs" / "shared" / "latest").artifact("answers")
    return hashlib.sha256((artifact.path / "data" / "responses-00000.parquet").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one process has made everything."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "shared.yaml").write_text(RECIPE)
    w2s(folder, "run", "shared.yaml")
    return folder


@pytest.mark.slow
def test_two_processes_one_of_them_killed_and_each_watched(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text(RECIPE)
    w2s(tmp_path, "run", "shared.yaml", "--only", "prompts", "--only", "model")
    store, key = Store(tmp_path / "runs"), Run.open(alone / "runs/runs/shared/latest").artifact("answers").key
    assert now(store, "generate", key).state == "waiting"
    first = start(tmp_path, "run", "shared.yaml", "--only", "answers", "--shard", "1/2")
    journal = store.partial("generate", key) / "parts" / "1-of-2" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b'{"row"') < 5:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = now(store, "generate", key)
    assert (found.state, found.hosts) == ("running", (os.uname().nodename,))
    assert found.note.startswith("0 of 2 shards finished")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    while now(store, "generate", key).state == "running":  # until its worker is gone as well
        assert time.monotonic() < deadline
        time.sleep(0.05)
    said = w2s(tmp_path, "show", "shared")
    assert "not finished; nothing of it runs" in said
    assert "stopped" in said and "0 of 2 shards finished" in said.replace("\n", " ")
    assert str(journal.with_name("log.txt")) in said

    both = [start(tmp_path, "run", "shared.yaml", "--only", "answers", "--shard", shard) for shard in ("2/2", "1/2")]
    said = "".join(process.communicate(timeout=240)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert answers(tmp_path) == answers(alone)
    assert now(store, "generate", key).state == "done"
    assert (store.path("generate", key) / "parts" / "1-of-2" / "log.txt").is_file()
    assert not (store.path("generate", key) / "status.json").exists()
    assert "done" in w2s(tmp_path, "run", "shared.yaml")
    assert Run.open(tmp_path / "runs" / "runs" / "shared" / "latest").state["status"] == "done"


def test_a_shard_of_what_has_none(alone: Path) -> None:
    for arguments, message in (
        (["--only", "scores", "--shard", "1/2"], "scores is a score step, which cannot be split into shards."),
        (["--only", "answers", "--shard", "3/2"], "no such shard"),
        (["--shard", "1/2"], "--shard is for a single step."),
        (["--only", "answers", "--shard", "one"], "--shard one is not a shard."),
    ):
        process = start(alone, "run", "shared.yaml", *arguments)
        assert message in process.communicate(timeout=60)[0]
        assert process.returncode == 2


def test_what_failed_says_so_to_whoever_looks(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": ""}\n')
    (tmp_path / "broken.yaml").write_text("name: broken\nsteps:\n  bad: {kind: prompts, source: p.jsonl}\n")
    process = start(tmp_path, "run", "broken.yaml")
    process.communicate(timeout=60)
    said = w2s(tmp_path, "show", "broken")
    assert "failed" in said and "1 empty prompt" in " ".join(said.split())


def test_processes_that_end_at_the_same_time_leave_a_finished_run(tmp_path: Path) -> None:
    """Two leaves of a recipe, each made by a process that knows nothing of the other."""
    text = "name: leaves\nsteps:\n"
    for name in ("a", "b"):
        text += f"  {name}: {{kind: prompts, source: lab/addition, limit: 5, seed: {ord(name)}}}\n"
    (tmp_path / "leaves.yaml").write_text(text)
    both = [start(tmp_path, "run", "leaves.yaml", "--only", name) for name in ("a", "b")]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in both] == [(None, 0), (None, 0)]
    runs = list((tmp_path / "runs" / "runs" / "leaves").glob("2*"))
    assert len(runs) == 1
    state = json.loads((runs[0] / "run.json").read_text())
    assert state["status"] == "done"
    assert sorted(path.name for path in (runs[0] / "steps").iterdir()) == ["a", "b"]
