"""One generation in shards, as machines that share a folder make it: the same rows as from one machine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineResources, Generation, Sampling, generate, generate_shard
from w2s_align.generation.engines import engine_cache

FAST_ENGINE = Path(__file__).parents[1] / "support" / "fast_engine"
PROMPTS = [*(f"{i}+{i}=" for i in range(60)), "a" * 200, "&"]  # one too long, one with an unknown character
JOB: dict[str, Any] = {
    "sampling": Sampling(temperature=1, max_tokens=60, n=2),
    "engine": Engine(name="transformers"),
    "resources": EngineResources(batch_size=4),
}


@pytest.fixture(autouse=True)
def fast_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and those it starts use the fast engine."""
    spec = importlib.util.spec_from_file_location("fast_engine_of_shards", FAST_ENGINE / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(engine_cache, "open_engine", module.open_fast_engine)
    monkeypatch.setenv("PYTHONPATH", str(FAST_ENGINE))


def whole(model: Path, out: Path | None = None, **options: Any) -> Generation:
    return generate(model, PROMPTS, out=out, **{**JOB, **options})


def shard(model: Path, out: Path, number: int, count: int, **options: Any) -> bool:
    return generate_shard((number, count), model, PROMPTS, out=out, **{**JOB, **options})


def stopped(model: Path, out: Path, number: int, count: int, after: int) -> None:
    """Stop a shard once some responses are there."""

    def progress(done: int, total: int, note: str) -> None:
        if done >= after:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shard(model, out, number, count, progress=progress)


def rows(journal: Path) -> list[int]:
    return [entry["row"] for line in journal.read_text().splitlines() if "row" in (entry := json.loads(line))]


def test_shards_in_any_order_are_the_rows_of_one_generation(tiny_model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    note = {"progress": lambda done, total, note: seen.append((done, total))}
    assert [shard(tiny_model, tmp_path, number, 3, **note) for number in (3, 1, 2)] == [False, False, True]
    assert seen[-1] == (42, 42)  # 21 prompts, two answers to each
    result = whole(tiny_model, tmp_path)
    alone = whole(tiny_model)
    assert result.table().equals(alone.table())
    assert (result.rows, result.dropped, result.unknown_tokens) == (122, alone.dropped, alone.unknown_tokens)
    assert 0 < result.startup_seconds < result.startup_seconds + result.seconds
    assert not (tmp_path / "journal.jsonl").exists()
    assert shard(tiny_model, tmp_path, 1, 3), "it is all there already"


def test_a_shard_that_is_stopped_goes_on_and_another_count_repeats_nothing(tiny_model: Path, tmp_path: Path) -> None:
    stopped(tiny_model, tmp_path, 1, 2, after=4)
    begun = rows(tmp_path / "parts" / "1-of-2" / "journal.jsonl")
    assert 4 <= len(begun) < 60
    assert shard(tiny_model, tmp_path, 1, 2) is False
    once = rows(tmp_path / "parts" / "1-of-2" / "journal.jsonl")
    assert once[: len(begun)] == begun
    assert len(set(once)) == len(once) == 60  # of 31 prompts one is too long
    stopped(tiny_model, tmp_path, 2, 3, after=2)
    assert not set(once) & set(rows(tmp_path / "parts" / "2-of-3" / "journal.jsonl"))
    seen: list[int] = []
    result = whole(tiny_model, tmp_path, progress=lambda done, total, note: seen.append(done))
    assert seen[0] >= 62, "what the shards had was generated again"
    assert result.table().equals(whole(tiny_model).table())


@pytest.mark.slow
def test_each_shard_on_several_devices(tiny_model: Path, tmp_path: Path) -> None:
    two = {"resources": EngineResources(data_parallel_size=2, batch_size=4)}
    stopped_at = [shard(tiny_model, tmp_path, number, 2, **two) for number in (1, 2)]
    assert stopped_at == [False, True]
    assert whole(tiny_model, tmp_path).table().equals(whole(tiny_model).table())


def test_more_shards_than_prompts_and_shards_that_do_not_exist(tiny_model: Path, tmp_path: Path) -> None:
    few = {**JOB, "prompts": ["1+1="]}
    assert generate_shard((2, 2), tiny_model, **few, out=tmp_path) is False
    assert generate_shard((1, 2), tiny_model, **few, out=tmp_path) is True
    assert generate(tiny_model, **few, out=tmp_path).rows == 2
    with pytest.raises(UserError, match=r"Shard 3 of 2 does not exist"):
        generate_shard((3, 2), tiny_model, **few, out=tmp_path)
