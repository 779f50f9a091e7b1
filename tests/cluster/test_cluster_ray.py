"""Recipes on a real Ray cluster of two nodes on this machine; a driver that is killed; a training on both nodes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.runs import Run, load_recipe, recipe_from_text
from w2s_align.runs.status import now

FAST_ENGINE = Path(__file__).parents[1] / "support" / "fast_engine"
RECIPE = """\
name: rayed
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 100}
  model: {kind: stand_in_model, like: Qwen/Qwen2.5-0.5B-Instruct}
  answers: {kind: generate, model: $model, prompts: $prompts, sampling: {temperature: 1, max_tokens: 16, n: 2},
            engine: {name: transformers}, resources: {cpus: 1}}
  scores: {kind: score, responses: $answers, resources: {cpus: 1}}
"""
TRAINING = """\
name: trained
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 16}
  weak: {kind: stand_in_model, like: Qwen/Qwen2.5-1.5B-Instruct}
  weaker: {kind: stand_in_model, like: meta-llama/Llama-3.2-1B-Instruct}
  a: &generate
    kind: generate
    model: $weak
    prompts: $prompts
    sampling: {temperature: 0, max_tokens: 48}
    engine: {name: transformers}
  b: {<<: *generate, model: $weaker}
  pairs: {kind: pair, rule: model_order, chosen: $a, rejected: $b}
  tuned: {kind: dpo, model: $weak, pairs: $pairs, learning_rate: 1.0e-4, batch_size: 4, max_steps: 2, launch: ddp,
          resources: {cpus: 1, device: cpu, micro_batch_size: 1}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with two cores each, whose workers have the fast engine."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(FAST_ENGINE))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        made.add_node(num_cpus=2)
        yield made.address
        made.shutdown()


def launch(folder: Path, address: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "w2s_align.cli", "launch", "ray", *arguments, "--nodes", "2"]
    command += ["--address", address, "--runs-dir", "runs"]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def digest(run: Run, name: str) -> str:
    return hashlib.sha256((run.artifact(name).path / "data" / "responses-00000.parquet").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_killed_driver_goes_on_with_the_same_data(cluster: str, tmp_path: Path) -> None:
    recipe = tmp_path / "rayed.yaml"
    recipe.write_text(RECIPE)
    store = Store(tmp_path / "runs")
    key = load_recipe(recipe).plan(tmp_path / "runs")["answers"].key
    driver = launch(tmp_path, cluster, "rayed.yaml")
    journals = store.partial("generate", key) / "parts"
    deadline = time.monotonic() + 200
    while sum(path.read_bytes().count(b'{"row"') for path in journals.glob("*/journal.jsonl")) < 10:
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert now(store, "generate", key).state == "running"
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    while now(store, "generate", key).state == "running":  # its tasks end with it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = {path: path.read_bytes() for path in journals.glob("*/journal.jsonl")}
    assert kept and store.find("generate", key) is None

    driver = launch(tmp_path, cluster, "rayed.yaml")
    said = driver.communicate(timeout=240)[0]
    assert driver.returncode == 0, said
    assert f"on {os.uname().nodename}" in said and "artifacts were cached" in said
    run = Run.open(tmp_path / "runs" / "runs" / "rayed" / "latest")
    assert run.state["status"] == "done"
    assert sorted(path.parent.name for path in run.artifact("answers").path.glob("parts/*/log.txt")) == [
        "1-of-2",
        "2-of-2",
    ]
    alone = subprocess.run(
        [sys.executable, "-m", "w2s_align.cli", "run", "rayed.yaml", "--runs-dir", "alone"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FAST_ENGINE)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert alone.returncode == 0, alone.stderr
    assert digest(run, "answers") == digest(Run.open(tmp_path / "alone" / "runs" / "rayed" / "latest"), "answers")


def test_what_fails_and_what_does_not_fit_is_said_in_words(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": ""}\n')
    steps = "  bad: {kind: prompts, source: p.jsonl}\n  good: {kind: prompts, source: lab/addition, limit: 3}\n"
    (tmp_path / "bad.yaml").write_text(f"name: bad\nsteps:\n{steps}")
    driver = launch(tmp_path, cluster, "bad.yaml")
    said = " ".join(driver.communicate(timeout=120)[0].split())
    assert driver.returncode == 2
    assert "1 empty prompt" in said and "good done" in said and "bad failed" in said
    large = TRAINING.replace("max_steps: 2, launch: ddp,", "max_steps: 2, launch: ddp, seed: 1,")
    (tmp_path / "large.yaml").write_text(
        large.replace("resources: {cpus: 1, device", "resources: {machines: 3, device")
    )
    driver = launch(tmp_path, cluster, "large.yaml")
    said = " ".join(driver.communicate(timeout=120)[0].replace("│", " ").split())
    assert driver.returncode == 2
    assert "tuned needs 3 machines with 2 cores and 0 GPUs each; 2 fit" in said


def test_no_cluster_is_one_answer(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "rayed.yaml").write_text(RECIPE)
    driver = launch(tmp_path, "127.0.0.1:1", "rayed.yaml")
    said = driver.communicate(timeout=60)[0]
    assert driver.returncode == 2
    assert "There is no Ray cluster at 127.0.0.1:1." in said and "ray start --head" in said


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from one node needs root")
def test_a_node_that_does_not_see_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node in a mount namespace of its own, in which the folder of the runs is another, empty one."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    (tmp_path / "rayed.yaml").write_text(RECIPE)
    (tmp_path / "runs").mkdir()
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray = Path(sys.executable).with_name("ray")
    start = f"{ray} start --address={made.address} --num-cpus=1 --block"
    hidden = f"mount -t tmpfs tmpfs {tmp_path / 'runs'} && exec {start}"
    node = subprocess.Popen(["unshare", "-m", "bash", "-c", hidden], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert node.stdout is not None
        for line in node.stdout:
            if b"Ray runtime started" in line:
                break
        else:
            pytest.skip("this machine starts no process in a namespace of its own")
        driver = launch(tmp_path, made.address, "rayed.yaml")
        said = " ".join(driver.communicate(timeout=200)[0].replace("│", " ").split())
        assert driver.returncode == 2
        assert f"{os.uname().nodename} does not see" in said
        assert "Give --runs-dir a folder that all machines share." in said
    finally:
        node.terminate()
        node.wait(timeout=60)
        made.shutdown()


@pytest.mark.slow
def test_a_training_on_two_nodes_is_the_training_on_one(cluster: str, tmp_path: Path) -> None:
    import json

    (tmp_path / "trained.yaml").write_text(TRAINING)
    driver = launch(tmp_path, cluster, "trained.yaml")
    said = driver.communicate(timeout=500)[0]
    assert driver.returncode == 0, said
    tuned = Run.open(tmp_path / "runs" / "runs" / "trained" / "latest").artifact("tuned")
    assert tuned.manifest["result"]["batch"]["processes"] == 2
    alone = recipe_from_text(TRAINING.replace("launch: ddp", "launch: single"))
    assert alone.plan(tmp_path / "runs")["tuned"].key == tuned.key  # a launch is no part of a key
    both = [tuned, alone.run(tmp_path / "alone").artifact("tuned")]
    losses = [[json.loads(line)["loss"] for line in (a.path / "metrics.jsonl").read_text().splitlines()] for a in both]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
