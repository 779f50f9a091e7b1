"""Replicas on a real Ray cluster of this machine: two actors, one of them killed in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, EngineResources, Generation, Sampling, generate

FAST_ENGINE = Path(__file__).parents[1] / "support" / "fast_engine"
DRAWN = Sampling(temperature=1, max_tokens=60, n=2)
PROMPTS = [*(f"{i}+{i}=" for i in range(60)), "a" * 200]
RAY = Engine(name="ray")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose workers use the fast engine."""
    monkeypatch.setenv("PYTHONPATH", str(FAST_ENGINE))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def ask(model: Path, replicas: int, out: Path | None = None, **options: Any) -> Generation:
    resources = EngineResources(replicas=replicas, kv_cache_gib=0.25, max_num_seqs=16)
    return generate(model, PROMPTS, DRAWN, out=out, engine=RAY, resources=resources, **options)


def replicas() -> list[psutil.Process]:
    """The actors' processes, which Ray names after their class."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.is_running() and "Replica" in " ".join(process.cmdline())]


def test_a_replica_that_is_killed_is_replaced_and_each_row_is_there_once(
    cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    killed: list[int] = []
    rows: list[int] = []

    def progress(done: int, total: int, note: str) -> None:
        rows.append(done)
        if done >= 10 and not killed:
            killed.append(replicas()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with EngineCache() as engines:
        result = ask(tiny_model, 2, tmp_path / "killed", engines=engines, progress=progress)
        pids = {process.pid for process in replicas()}
        again = ask(tiny_model, 2, engines=engines)
        assert {process.pid for process in replicas()} == pids, "the engines were started again"
        with pytest.raises(ZeroDivisionError):
            ask(tiny_model, 2, engines=engines, progress=lambda done, total, note: print(1 / 0))
        after = ask(tiny_model, 2, engines=engines)
        assert after.table().equals(again.table()), "replicas that were ended were asked again"
    assert killed
    assert killed[0] not in pids
    assert len(pids) == 2
    assert rows == sorted(rows)
    assert (result.rows, result.finish_reasons["stop"], len(result.dropped["too_long"])) == (120, 120, 1)
    table = result.table()
    assert len(set(zip(*(table[name].to_pylist() for name in ("prompt_id", "sample")), strict=True))) == 120
    assert table.equals(again.table())
    assert all(
        text.endswith(f" {seed}") for text, seed in zip(*(table[c].to_pylist() for c in ("text", "seed")), strict=True)
    )
    with pytest.raises(UserError, match=r"9 replicas with 1 CPU each do not fit into the Ray cluster.*room for 2"):
        ask(tiny_model, 9)
    with pytest.raises(UserError, match=r"Each replica needs 2 GPUs, but the Ray cluster has none"):
        generate(tiny_model, PROMPTS, DRAWN, engine=RAY, resources=EngineResources(tensor_parallel_size=2))
    assert cluster.is_initialized(), "a cluster that was there before is left alone"


def test_a_cluster_that_is_not_there(tiny_model: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"There is no Ray cluster at 127.0.0.1:1.*ray_address"):
        generate(tiny_model, PROMPTS, DRAWN, engine=RAY, resources=EngineResources(ray_address="127.0.0.1:1"))


def test_ray_that_is_not_installed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    with pytest.raises(UserError, match=r"the ray engine needs the package ray.*w2s-align\[ray\]"):
        generate(tiny_model, PROMPTS, DRAWN, engine=RAY)


@pytest.mark.slow
def test_two_replicas_of_vllm_write_what_one_engine_writes(tiny_model: Path) -> None:
    """On a cluster that the engine starts for itself."""
    pytest.importorskip("ray")
    resources = EngineResources(kv_cache_gib=0.25, max_num_seqs=16)
    one = generate(tiny_model, PROMPTS, DRAWN, engine=Engine(name="vllm"), resources=resources)
    two = ask(tiny_model, 2)
    assert two.table().equals(one.table())
    assert replicas() == []
