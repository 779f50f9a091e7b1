"""vLLM's own options and processes: what it does not take is said in words, and nothing outlives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, EngineResources, Sampling, generate

GREEDY = Sampling(temperature=0, max_tokens=24)
PROMPTS = [f"{i}+{i}=" for i in range(8)]

SCRIPT = """
import sys
from pathlib import Path
from w2s_align.generation import *
if __name__ == "__main__":  # vLLM's engine process imports this again
    generate(Path(sys.argv[1]), [f"{i}+{i}=" for i in range(3000)], Sampling(temperature=1, max_tokens=60),
             out=Path(sys.argv[2]), engine=Engine(name="vllm"),
             resources=EngineResources(kv_cache_gib=0.25, max_num_seqs=16))
"""


def test_options_that_vllm_does_not_take_together(tiny_model: Path, vllm_engines: EngineCache) -> None:
    resources = EngineResources(kv_cache_gib=0.25, max_num_seqs=64, max_num_batched_tokens=32)
    with pytest.raises(UserError, match=r"vLLM does not accept these options.*max_num_batched_tokens.*under engine"):
        generate(tiny_model, PROMPTS, GREEDY, engine=Engine(name="vllm"), resources=resources, engines=vllm_engines)
    with pytest.raises(UserError, match=r"vLLM does not accept these options.*quantization"):
        engine = Engine(name="vllm", quantization="nothing")
        generate(tiny_model, PROMPTS, GREEDY, engine=engine, engines=vllm_engines)


def test_what_only_vllm_can_do_is_refused_elsewhere(tiny_model: Path) -> None:
    engine = Engine(name="transformers", kv_cache_dtype="fp8", quantization="fp8")
    with pytest.raises(
        UserError, match=r"does not support engine.quantization: fp8, engine.kv_cache_dtype: fp8.*vllm engine"
    ):
        generate(tiny_model, PROMPTS, GREEDY, engine=engine)


def test_reasoning_is_separated_and_counted(model_copy: Path, tmp_path: Path) -> None:
    """The tiny model's prefilled reasoning is cut off in every response but those with the closing tag 'a'."""
    columns = ["text", "reasoning", "finish_reason"]
    kept, separate = (
        generate(
            model_copy,
            PROMPTS,
            GREEDY,
            engine=Engine(name="transformers", prefill="9b", think_tags=("9b", "a"), thinking=thinking),
        )
        for thinking in ("keep", "separate")
    )
    whole = 0
    for one, other in zip(*(r.table().select(columns).to_pylist() for r in (kept, separate)), strict=True):
        assert one["text"].startswith("9b")
        assert one["reasoning"] is None
        reasoning, end, final = one["text"].removeprefix("9b").partition("a")
        assert (other["reasoning"], other["text"]) == (reasoning, final)
        whole += bool(end)
    assert 0 < whole < len(PROMPTS)
    assert kept.reasoning_counts == separate.reasoning_counts == {"whole": whole, "cut_off": len(PROMPTS) - whole}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "engine"])
def test_the_engine_process_ends_with_its_parent_and_its_death_is_survived(
    tiny_model: Path, tmp_path: Path, victim: str
) -> None:
    """With vLLM's engine in a process of its own, as on a GPU."""
    script = tmp_path / "generate.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    command = [sys.executable, str(script), str(tiny_model), str(out)]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    journal = out / "journal.jsonl"
    deadline = time.monotonic() + 240
    while not journal.exists() or journal.read_bytes().count(b'{"row"') < 100:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    (engine,) = (child for child in started if "EngineCore" in " ".join(child.cmdline()))
    os.kill(engine.pid if victim == "engine" else process.pid, signal.SIGKILL)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode != 0
    assert victim == "parent" or "vLLM's engine process has died" in errors
    _, alive = psutil.wait_procs([engine], timeout=20)
    assert alive == []
    kept = {json.loads(line)["row"] for line in journal.read_bytes().splitlines() if line.startswith(b'{"row"')}
    assert 100 <= len(kept) < 3000
    seen: list[int] = []
    result = generate(
        tiny_model,
        [f"{i}+{i}=" for i in range(3000)],
        Sampling(temperature=1, max_tokens=60),
        out=out,
        engine=Engine(name="vllm"),
        resources=EngineResources(kv_cache_gib=0.25, max_num_seqs=64),
        progress=lambda done, total, note: seen.append(done),
    )
    assert seen[0] >= len(kept)
    assert len(set(result.table()["prompt_id"].to_pylist())) == result.rows == 3000
