"""Several engines on one machine: the same rows as from one engine, whatever is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, EngineResources, Generation, Sampling, generate
from w2s_align.generation.data_parallel import device_environments
from w2s_align.generation.engines import engine_cache

FAST_ENGINE = Path(__file__).parents[1] / "support" / "fast_engine"
DRAWN = Sampling(temperature=1, max_tokens=60, n=2)
ENGINE = Engine(name="transformers")
PROMPTS = [*(f"{i}+{i}=" for i in range(60)), "a" * 200, "&"]  # one too long, one with an unknown character
ROWS = 122

SCRIPT = """
import sys
from pathlib import Path
from w2s_align.generation import *
prompts = [*(f"{i}+{i}=" for i in range(60)), "a" * 200, "&"]
generate(Path(sys.argv[1]), prompts, Sampling(temperature=1, max_tokens=60, n=2), out=Path(sys.argv[2]),
         engine=Engine(name="transformers"), resources=EngineResources(data_parallel_size=2))
"""


def ask(model: Path, out: Path | None, processes: int, seen: list[int] | None = None, **options: Any) -> Generation:
    return generate(
        model,
        PROMPTS,
        DRAWN,
        out=out,
        engine=ENGINE,
        resources=EngineResources(data_parallel_size=processes, batch_size=4),
        progress=lambda done, total, note: seen.append(done) if seen is not None else None,
        **options,
    )


def start(model: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(model), str(out)], stderr=subprocess.PIPE)


def finished(out: Path) -> set[int]:
    """Numbers of the answers in all journals of a job."""
    rows: set[int] = set()
    for path in (out / "journal.jsonl", *out.glob("processes/*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if line.startswith(b'{"row"') and line.endswith(b"\n"):
                rows.add(json.loads(line)["row"])
    return rows


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_one(model: Path, out: Path, draw: random.Random, parent: bool) -> None:
    """Start the generation, and kill the parent or a child once it has finished a few more rows."""
    process = start(model, out)
    target = len(finished(out)) + draw.randint(1, 12)
    deadline = time.monotonic() + 120
    while process.poll() is None and (len(finished(out)) < target or not children(process)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    own = children(process)
    if process.poll() is None and own:
        os.kill(process.pid if parent else draw.choice(own).pid, signal.SIGKILL)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode != 0, "it ended before it could be killed"
    assert parent or "was killed by signal 9" in errors
    _, alive = psutil.wait_procs(own, timeout=20)
    assert alive == [], "a process outlived its parent"


@pytest.fixture
def fast_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and those it starts use the fast engine."""
    spec = importlib.util.spec_from_file_location("fast_engine", FAST_ENGINE / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(engine_cache, "open_engine", module.open_fast_engine)
    monkeypatch.setenv("PYTHONPATH", str(FAST_ENGINE))


def test_two_processes_write_what_one_writes(
    tiny_model: Path, tmp_path: Path, transformers_engines: EngineCache
) -> None:
    """With the real engine."""
    one = ask(tiny_model, None, 1, engines=transformers_engines)
    seen: list[int] = []
    two = ask(tiny_model, tmp_path, 2, seen)
    assert two.table().equals(one.table())
    assert (two.rows, len(two.dropped["too_long"]), len(two.unknown_tokens)) == (ROWS, 1, 1)
    assert two.to_json()["first_prompt"] == one.first_prompt
    assert two.startup_seconds > 0
    assert two.seconds > 0
    assert seen[-1] == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "generation.json"]


@pytest.mark.usefixtures("fast_engine")
def test_three_kills_lose_and_repeat_nothing(tiny_model: Path, tmp_path: Path) -> None:
    draw, kept = random.Random(0), 0
    for kill in range(3):
        kill_one(tiny_model, tmp_path, draw, parent=kill % 2 == 0)
        assert len(finished(tmp_path)) > kept, "a new attempt began again"
        kept = len(finished(tmp_path))
    seen: list[int] = []
    result = ask(tiny_model, tmp_path, 2, seen)
    assert seen[0] >= kept
    assert result.table().equals(ask(tiny_model, None, 1).table())


@pytest.mark.usefixtures("fast_engine")
@pytest.mark.parametrize("name", ["processes", "shards"])  # the second in earlier versions
def test_what_killed_processes_left_is_taken_by_one_engine(tiny_model: Path, tmp_path: Path, name: str) -> None:
    kill_one(tiny_model, tmp_path, random.Random(0), parent=True)
    kept = len(finished(tmp_path))
    with (tmp_path / "processes" / "0.jsonl").open("ab") as file:
        file.write(b'{"row":100,"text":"torn')
    (tmp_path / "processes").rename(tmp_path / name)
    seen: list[int] = []
    result = ask(tiny_model, tmp_path, 1, seen)
    assert seen[0] >= kept
    assert result.table().equals(ask(tiny_model, None, 1).table())


@pytest.mark.slow
@pytest.mark.usefixtures("fast_engine")
def test_fifty_kills_lose_and_repeat_nothing(tiny_model: Path, tmp_path: Path) -> None:
    draw = random.Random(1)
    undisturbed = ask(tiny_model, None, 1).table()
    for turn in range(10):
        out = tmp_path / str(turn)
        for _ in range(5):
            kill_one(tiny_model, out, draw, parent=draw.random() < 0.4)
        assert ask(tiny_model, out, 2).table().equals(undisturbed)


@pytest.mark.usefixtures("fast_engine")
def test_a_refusal_of_a_process_is_the_users_error(tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine(name="transformers", too_long="error")
    resources = EngineResources(data_parallel_size=2)
    with pytest.raises(UserError, match=r"1 of 62 prompts have more than 127 tokens"):
        generate(tiny_model, PROMPTS, DRAWN, out=tmp_path, engine=engine, resources=resources)


def test_more_devices_than_there_are(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(UserError, match=rf"data_parallel_size {cores + 1} needs {cores + 1} CPU cores, but there"):
        ask(tiny_model, None, cores + 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    spread = EngineResources(data_parallel_size=2, tensor_parallel_size=2)
    assert device_environments(spread) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    with pytest.raises(UserError, match=r"data_parallel_size 3 needs 6 GPUs, but there are 4.*at most 2"):
        device_environments(EngineResources(data_parallel_size=3, tensor_parallel_size=2))


def test_a_model_spread_over_more_gpus_than_there_are(tiny_model: Path) -> None:
    resources = EngineResources(tensor_parallel_size=2)
    with pytest.raises(UserError, match=r"model needs 2 GPUs, but there is none.*tensor_parallel_size"):
        generate(tiny_model, PROMPTS, DRAWN, engine=Engine(name="vllm"), resources=resources)
    with pytest.raises(UserError, match=r"transformers engine does not support resources.tensor_parallel_size: 2"):
        generate(tiny_model, PROMPTS, DRAWN, engine=ENGINE, resources=resources)
