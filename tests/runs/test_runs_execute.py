"""Runs: cached steps stay cached, failures stop what depends on them, and a kill at any moment loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import wait_until

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine
from w2s_align.recipe.schema import Resources
from w2s_align.runs import Run, recipe_from_text
from w2s_align.runs.local import claim
from w2s_align.runs.outcome import Event

LAB = """\
name: kill
seed: 0
steps:
  model: {kind: lab_model, layers: 1, width: 32, steps: 60, batch_size: 8, resources: {checkpoint_seconds: 0}}
  prompts: {kind: prompts, source: lab/addition, limit: 24}
  answers: {kind: generate, model: $model, prompts: $prompts, sampling: {temperature: 1, max_tokens: 16, n: 2},
            engine: {name: transformers}, resources: {cpus: 1, batch_size: 4}}
  scores: {kind: score, responses: $answers}
"""


@pytest.mark.parametrize(
    ("asked", "machine", "given"),
    [
        (Resources(), Machine(2, ()), (2, 0)),
        (Resources(cpus=1), Machine(2, ()), (1, 0)),
        (Resources(cpus=8, gpus=1), Machine(2, ()), (2, 0)),
        (Resources(gpus=1), Machine(64, tuple("01234567")), (8, 1)),
        (Resources(), Machine(64, tuple("01234567")), (64, 8)),
        (Resources(gpus=0), Machine(64, tuple("01234567")), (64, 0)),
    ],
)
def test_a_step_gets_what_it_asks_for_as_far_as_it_is_there(
    asked: Resources, machine: Machine, given: tuple[int, int]
) -> None:
    assert claim(asked, machine) == given


def content(run: Run) -> dict[str, str]:
    """Digest of everything but logs and dates in the artifacts of a run."""
    found = {}
    for name in run.names():
        artifact = run.artifact(name)
        for path in sorted(artifact.path.rglob("*")):
            if path.suffix in (".parquet", ".safetensors"):
                found[f"{name}/{path.relative_to(artifact.path)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_second_run_does_nothing_and_a_change_reruns_what_depends_on_it(tmp_path: Path) -> None:
    events: list[Event] = []
    recipe_from_text(LAB).run(tmp_path, on_event=events.append)
    assert {e.name for e in events if e.kind == "done"} == {"model", "prompts", "answers", "scores"}
    events.clear()
    run = recipe_from_text(LAB).run(tmp_path, on_event=events.append)
    assert {e.kind for e in events} == {"cached"}
    assert run.table("scores").num_rows == 48
    events.clear()
    again = recipe_from_text(LAB.replace("n: 2", "n: 1")).run(tmp_path, on_event=events.append)
    assert {e.name for e in events if e.kind == "done"} == {"answers", "scores"}
    assert again.path != run.path
    assert again.table("scores").num_rows == 24


def test_a_failed_step_skips_its_readers_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": ""}\n')
    text = LAB + f"  empty: {{kind: prompts, source: {file}}}\n"
    text += "  more: {kind: generate, model: $model, prompts: $empty, sampling: {temperature: 0, max_tokens: 4}}\n"
    events: list[Event] = []
    with pytest.raises(UserError, match="1 empty prompt"):
        recipe_from_text(text).run(tmp_path / "runs", on_event=events.append)
    last = {e.name: e.kind for e in events}
    assert last == {
        "model": "done", "prompts": "done", "answers": "done", "scores": "done", "empty": "failed", "more": "skipped"
    }  # fmt: skip


@pytest.mark.slow
def test_killed_at_random_moments_the_same_command_ends_with_the_same_data(tmp_path: Path) -> None:
    undisturbed = content(recipe_from_text(LAB).run(tmp_path / "undisturbed"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(LAB)
    command = [sys.executable, "-m", "w2s_align.cli", "run", str(recipe), "--runs-dir", str(tmp_path / "killed")]
    draw = random.Random(0)
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Later attempts live longer, so that the work surely ends.
            code = process.wait(timeout=draw.uniform(0.5, 4) + 2 * attempt)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            no_half_artifacts(tmp_path / "killed")
            continue
        assert code == 0
        break
    assert kills >= 2
    assert content(Run.open(tmp_path / "killed" / "runs" / "kill" / "latest")) == undisturbed


def no_half_artifacts(root: Path) -> None:
    """Every folder that looks like an artifact is one: its manifest is whole."""
    for folder in (root / "artifacts").glob("*/*"):
        if not folder.name.endswith(".partial"):
            assert json.loads((folder / "artifact.json").read_text())["key"] == folder.name


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(LAB.replace("steps: 60", "steps: 100000"))
    command = [sys.executable, "-m", "w2s_align.cli", "run", str(recipe), "--runs-dir", str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = wait_until(lambda: workers_of(process.pid))
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def workers_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def test_a_twin_waits_for_the_artifact_of_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    order: list[str] = []
    holding = threading.Event()

    def hold() -> None:
        with store.lock("prompts", "key", waiting=lambda: None):
            holding.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    with store.lock("prompts", "key", waiting=lambda: order.append("waits")):
        order.append("second")
    thread.join()
    assert order == ["waits", "first", "second"]


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        recipe_from_text(LAB).run(blocked / "runs")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_clear_error_and_keeps_what_is_done(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no file system of our own")
    try:
        with pytest.raises(UserError, match="is full"):
            recipe_from_text(LAB).run(small / "runs")
        assert list((small / "runs" / "artifacts" / "prompts").glob("*/artifact.json"))
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        assert recipe_from_text(LAB).run(small / "runs").table("scores").num_rows == 48
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_artifact_is_named_with_the_way_out(tmp_path: Path, damage: str) -> None:
    text = LAB[: LAB.index("  model:")] + "  prompts: {kind: prompts, source: lab/addition, limit: 24}\n"
    run = recipe_from_text(text).run(tmp_path)
    file = run.artifact("prompts").path / "data" / "prompts.parquet"
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 100)
    with pytest.raises(UserError, match=r"is damaged.*prompts\.parquet (is missing|has 100 bytes).*Delete"):
        run.artifact("prompts")
    reader = (
        text + "  again: {kind: generate, model: none, prompts: $prompts, sampling: {temperature: 0, max_tokens: 4},\n"
    )
    reader += "    engine: {name: openai, api: chat}, resources: {base_url: 'http://127.0.0.1:9/v1'}}\n"
    with pytest.raises(UserError, match="is damaged"):
        recipe_from_text(reader).run(tmp_path)
