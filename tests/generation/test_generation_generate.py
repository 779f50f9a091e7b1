"""Generation as a whole, with real engines on a tiny model."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import (
    Engine,
    EngineCache,
    EngineResources,
    Generation,
    Sampling,
    generate,
    job,
    request_seed,
)
from w2s_align.generation.models import find_model
from w2s_align.records import Prompt, Response, to_table

PROMPTS = [f"{i}+{7 * i}=" for i in range(40)]
GREEDY = Sampling(temperature=0, max_tokens=40)
DRAWN = Sampling(temperature=1, max_tokens=40)
VLLM = Engine(name="vllm")
TRANSFORMERS = Engine(name="transformers")
# So few tokens at a time that prompts would be read in parts, which vLLM cannot do with seeds on a CPU.
RESOURCES = EngineResources(kv_cache_gib=0.25, max_num_seqs=64, max_num_batched_tokens=128, batch_size=16)


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def texts(result: Generation) -> dict[tuple[str, int], str]:
    rows = result.table().to_pylist()
    return {(row["prompt_id"], row["sample"]): row["text"] for row in rows}


@pytest.fixture(scope="module")
def greedy(tiny_model: Path, vllm_engines: EngineCache) -> Generation:
    return generate(tiny_model, PROMPTS, GREEDY, engine=VLLM, resources=RESOURCES, engines=vllm_engines)


@pytest.fixture(scope="module")
def drawn(tiny_model: Path, vllm_engines: EngineCache) -> Generation:
    return generate(tiny_model, PROMPTS, DRAWN, engine=VLLM, resources=RESOURCES, engines=vllm_engines)


def test_the_account_adds_up(greedy: Generation, tiny_model: Path) -> None:
    table = greedy.table()
    assert table.schema.equals(Response.SCHEMA)
    assert table["prompt_id"].to_pylist() == [Prompt.of(prompt).id for prompt in PROMPTS]
    reasons = table["finish_reason"].to_pylist()
    assert greedy.finish_reasons == {"stop": reasons.count("stop"), "length": reasons.count("length"), "error": 0}
    assert min(greedy.finish_reasons["stop"], greedy.finish_reasons["length"]) > 0
    assert greedy.completion_tokens == sum(table["completion_tokens"].to_pylist())
    assert greedy.prompt_tokens == sum(len(prompt) + 3 for prompt in PROMPTS)  # <s> <user> ... <assistant>
    lengths = zip(reasons, table["completion_tokens"].to_pylist(), strict=True)
    assert all((tokens == 40) if reason == "length" else (tokens <= 40) for reason, tokens in lengths)
    assert set(table["seed"].to_pylist()) == {None}
    assert greedy.engine["dtype"] == "float32"
    assert greedy.engine["max_model_len"] == 128
    assert greedy.stop_token_ids == {"3": "</s>"}
    assert greedy.first_prompt == {"text": "<s><user>0+0=<assistant>", "token_ids": [2, 4, 7, 17, 7, 18, 5]}
    assert greedy.model == str(tiny_model)
    json.dumps(greedy.to_json())


@pytest.mark.parametrize(
    "sampling", [GREEDY, GREEDY.model_copy(update={"stop": ["a", "9k"], "repetition_penalty": 1.3})]
)
def test_both_engines_write_the_same_greedy_text(
    tiny_model: Path, vllm_engines: EngineCache, transformers_engines: EngineCache, sampling: Sampling
) -> None:
    columns = ["prompt_id", "text", "finish_reason", "completion_tokens"]
    one, other = (
        generate(tiny_model, PROMPTS, sampling, engine=engine, resources=RESOURCES, engines=engines)
        for engine, engines in ((VLLM, vllm_engines), (TRANSFORMERS, transformers_engines))
    )
    assert one.table().select(columns).to_pylist() == other.table().select(columns).to_pylist()
    assert (one.engine["name"], other.engine["name"]) == ("vllm", "transformers")
    if sampling.stop:
        assert not any("a" in text or "9k" in text for text in texts(one).values())


def test_a_seed_belongs_to_prompt_and_sample_alone(
    drawn: Generation, tiny_model: Path, vllm_engines: EngineCache
) -> None:
    shuffled = random.Random(0).sample(PROMPTS, 40)
    parts = [
        generate(tiny_model, part, DRAWN, engine=VLLM, resources=RESOURCES, engines=vllm_engines)
        for part in (shuffled[:13], shuffled[13:])
    ]
    assert texts(parts[0]) | texts(parts[1]) == texts(drawn)
    first = drawn.table().slice(0, 1).to_pylist()[0]
    assert first["seed"] == request_seed(0, first["prompt_id"], 0)
    other = generate(tiny_model, PROMPTS, DRAWN, seed=1, engine=VLLM, resources=RESOURCES, engines=vllm_engines)
    assert texts(other).values() != texts(drawn).values()
    assert set(other.table()["seed"].to_pylist()).isdisjoint(drawn.table()["seed"].to_pylist())


def test_request_seeds_do_not_change_between_versions() -> None:
    assert request_seed(0, "2a68ead6c6d14c2b", 0) == 6619537428069360
    assert request_seed(0, "2a68ead6c6d14c2b", 1) == 6935580701880085


@pytest.mark.parametrize("engine", [VLLM, TRANSFORMERS], ids=["vllm", "transformers"])
def test_samples_of_a_prompt_differ_and_the_first_stays(
    drawn: Generation, tiny_model: Path, vllm_engines: EngineCache, transformers_engines: EngineCache, engine: Engine
) -> None:
    engines = vllm_engines if engine is VLLM else transformers_engines
    one = generate(tiny_model, PROMPTS[:8], DRAWN, engine=engine, resources=RESOURCES, engines=engines)
    three_each = DRAWN.model_copy(update={"n": 3})
    three = generate(tiny_model, PROMPTS[:8], three_each, engine=engine, resources=RESOURCES, engines=engines)
    assert three.rows == 24
    assert three.table()["sample"].to_pylist() == [0, 1, 2] * 8
    assert len(set(texts(three).values())) == 24
    assert {key: text for key, text in texts(three).items() if key[1] == 0} == texts(one)


def test_transformers_draws_do_not_depend_on_the_batch(tiny_model: Path, transformers_engines: EngineCache) -> None:
    sampling = DRAWN.model_copy(update={"top_p": 0.9, "top_k": 20, "min_p": 0.01, "presence_penalty": 0.5})
    whole = generate(
        tiny_model, PROMPTS, sampling, engine=TRANSFORMERS, resources=RESOURCES, engines=transformers_engines
    )
    alone = generate(
        tiny_model, PROMPTS[5:6], sampling, engine=TRANSFORMERS, resources=RESOURCES, engines=transformers_engines
    )
    assert texts(alone).items() <= texts(whole).items()


def test_gumbel_draws_follow_the_distribution() -> None:
    """Frequencies of 20,000 draws against softmax, with a bound of five standard errors."""
    import torch

    from w2s_align.generation.engines.base import Request
    from w2s_align.generation.engines.transformers import DrawPerRow

    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    requests = [Request(i, [0], request_seed(0, "p", i)) for i in range(20_000)]
    draw = DrawPerRow(Sampling(temperature=0.7, max_tokens=1, top_k=3), requests)
    drawn = draw(torch.zeros(20_000, 1, dtype=torch.long), logits.repeat(20_000, 1)).argmax(dim=-1)
    frequencies = torch.bincount(drawn, minlength=4) / 20_000
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0, -torch.inf]) / 0.7, dim=0)
    assert (frequencies - expected).abs().max() < 5 * 0.5 / 20_000**0.5
    assert frequencies[3] == 0


def test_a_killed_generation_goes_on(tiny_model: Path, vllm_engines: EngineCache, tmp_path: Path) -> None:
    """SIGKILL in the middle, then the same call: the same rows as undisturbed, and nothing finished is made again."""
    prompts = [f"{i}+{i}=" for i in range(1500)]
    script = f"""
from pathlib import Path
from w2s_align.generation import *
generate(Path({str(tiny_model)!r}), [f"{{i}}+{{i}}=" for i in range(1500)], Sampling(temperature=1, max_tokens=60),
         out=Path({str(tmp_path / "out")!r}), engine=Engine(name="vllm"),
         resources=EngineResources(kv_cache_gib=0.25, max_num_seqs=64))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b'"row"') >= 100):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lines = journal.read_bytes().count(b'"row"')
    assert lines < 1500
    with journal.open("ab") as file:
        file.write(b'{"row":1400,"text":"torn')

    sampling = Sampling(temperature=1, max_tokens=60)
    seen: list[int] = []
    resumed = generate(
        tiny_model,
        prompts,
        sampling,
        out=tmp_path / "out",
        engine=VLLM,
        resources=RESOURCES,
        engines=vllm_engines,
        progress=lambda done, total, note: seen.append(done),
    )
    undisturbed = generate(tiny_model, prompts, sampling, engine=VLLM, resources=RESOURCES, engines=vllm_engines)
    assert seen[0] >= lines
    assert resumed.table().equals(undisturbed.table())
    assert resumed.completion_tokens == undisturbed.completion_tokens
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "generation.json"]


def test_a_finished_folder_is_taken_as_it_is_or_refused(
    greedy: Generation, tiny_model: Path, vllm_engines: EngineCache, tmp_path: Path
) -> None:
    arguments = {"out": tmp_path / "out", "engine": VLLM, "resources": RESOURCES}
    first = generate(tiny_model, PROMPTS, GREEDY, engines=vllm_engines, **arguments)
    again = generate(tiny_model, PROMPTS, GREEDY, **arguments)  # starts no engine
    assert again.to_json() == first.to_json()
    assert again.table().equals(greedy.table())
    assert sum(batch.num_rows for batch in again.batches(7)) == 40
    with pytest.raises(UserError, match="finished answers of another generation"):
        generate(tiny_model, PROMPTS, GREEDY, seed=1, **arguments)


def test_a_kill_between_the_last_writes_needs_no_engine(
    greedy: Generation,
    tiny_model: Path,
    vllm_engines: EngineCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_json", killed)
    prompts = [*PROMPTS, "a" * 200]
    arguments = {"out": tmp_path / "out", "engine": VLLM}
    with pytest.raises(KeyboardInterrupt):
        generate(tiny_model, prompts, GREEDY, resources=RESOURCES, engines=vllm_engines, **arguments)
    assert (tmp_path / "out" / "journal.jsonl").exists()
    monkeypatch.undo()
    monkeypatch.setattr(EngineCache, "get", lambda *_: pytest.fail("an engine was asked for"))
    result = generate(tiny_model, prompts, GREEDY, **arguments)
    assert result.table().equals(greedy.table())
    assert len(result.dropped["too_long"]) == 1


def test_long_prompts_are_dropped_and_counted(tiny_model: Path, vllm_engines: EngineCache) -> None:
    prompts = ["1+1=", "a" * 200, "2+2=", "&"]
    result = generate(tiny_model, prompts, GREEDY, engine=VLLM, resources=RESOURCES, engines=vllm_engines)
    long, unknown = Prompt.of(prompts[1]).id, Prompt.of(prompts[3]).id
    assert (result.rows, result.dropped, result.cut) == (3, {"too_long": [long]}, [])
    assert result.unknown_tokens == [unknown]
    assert long not in result.table()["prompt_id"].to_pylist()


def test_long_prompts_are_cut_or_refused(tiny_model: Path, vllm_engines: EngineCache) -> None:
    prompts = ["1+1=", "a" * 200 + "b"]
    cut = generate(
        tiny_model,
        prompts,
        GREEDY,
        engine=Engine(name="vllm", too_long="cut_left"),
        resources=RESOURCES,
        engines=vllm_engines,
    )
    assert (cut.rows, cut.cut) == (2, [Prompt.of(prompts[1]).id])
    assert cut.table()["prompt_tokens"].to_pylist() == [7, 128 - 40]
    with pytest.raises(UserError, match=r"1 of 2 prompts have more than 127 tokens, e.g. \w{16} \(204 tokens\)"):
        generate(
            tiny_model,
            prompts,
            GREEDY,
            engine=Engine(name="vllm", too_long="error"),
            resources=RESOURCES,
            engines=vllm_engines,
        )


def test_a_generation_without_any_answer_is_refused_each_time(
    tiny_model: Path, vllm_engines: EngineCache, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"None of the 1 prompts fits.*128 tokens"):
            generate(
                tiny_model,
                ["a" * 200],
                GREEDY,
                out=tmp_path / "out",
                engine=VLLM,
                resources=RESOURCES,
                engines=vllm_engines,
            )


def test_an_answer_at_the_end_of_the_context_is_cut_and_said_so(
    tiny_model: Path, vllm_engines: EngineCache, transformers_engines: EngineCache
) -> None:
    prompts = ["a" * 120, "1+1="]  # 123 of 128 tokens
    results = [
        generate(tiny_model, prompts, GREEDY, engine=engine, resources=RESOURCES, engines=engines)
        for engine, engines in ((VLLM, vllm_engines), (TRANSFORMERS, transformers_engines))
    ]
    rows = [result.table().select(["text", "finish_reason", "completion_tokens"]).to_pylist() for result in results]
    assert rows[0] == rows[1]
    assert (rows[0][0]["finish_reason"], rows[0][0]["completion_tokens"]) == ("length", 5)


def test_prompts_given_twice_are_answered_once(tiny_model: Path, vllm_engines: EngineCache) -> None:
    prompts = to_table([Prompt.of("1+1="), Prompt.of("2+2="), Prompt.of("1+1=", answer="2")])
    result = generate(tiny_model, prompts, GREEDY, engine=VLLM, resources=RESOURCES, engines=vllm_engines)
    assert (result.prompts, result.rows, result.duplicated) == (2, 2, [Prompt.of("1+1=").id])


def test_nothing_is_taken_from_the_models_sampling_defaults(
    greedy: Generation, model_copy: Path, transformers_engines: EngineCache
) -> None:
    edit_json(
        model_copy / "generation_config.json", do_sample=True, temperature=5.0, repetition_penalty=3.0, max_length=9
    )
    for engine in (VLLM, TRANSFORMERS):
        result = generate(model_copy, PROMPTS, GREEDY, engine=engine, resources=RESOURCES)
        assert list(texts(result).values()) == list(texts(greedy).values())


def test_the_cache_keeps_an_engine_until_another_is_wanted(
    tiny_model: Path, other_model: Path, transformers_engines: EngineCache
) -> None:
    first = transformers_engines.get(find_model(tiny_model), TRANSFORMERS, RESOURCES)
    with_system = TRANSFORMERS.model_copy(update={"system_prompt": "a"})  # no option of loading
    assert transformers_engines.get(find_model(tiny_model), with_system, RESOURCES) is first
    second = transformers_engines.get(find_model(other_model), TRANSFORMERS, RESOURCES)
    assert second is not first
    assert transformers_engines.get(find_model(tiny_model), TRANSFORMERS, RESOURCES) is not first


def test_log_probabilities_agree_with_the_model(tiny_model: Path, transformers_engines: EngineCache) -> None:
    """Against a plain forward pass over prompt and answer."""
    import torch
    from transformers import AutoModelForCausalLM

    sampling = GREEDY.model_copy(update={"logprobs": True, "max_tokens": 1, "repetition_penalty": 2.0})
    result = generate(
        tiny_model, ["1+2="], sampling, engine=TRANSFORMERS, resources=RESOURCES, engines=transformers_engines
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        logprobs = model(torch.tensor([[2, 4, 8, 17, 9, 18, 5]])).logits[0, -1].log_softmax(-1)
    logprob = result.table()["logprob"][0].as_py()
    assert min(abs(logprob - value) for value in logprobs.tolist()) < 1e-5


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "There are no prompts"),
        (pa.table({"id": ["a"], "question": ["b"]}), "no column messages.*Its columns are: id, question"),
        (
            [Prompt.of([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])],
            "turn of the assistant",
        ),
    ],
)
def test_prompts_that_cannot_be_answered(tiny_model: Path, prompts: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(tiny_model, prompts, GREEDY, engine=TRANSFORMERS)


def test_too_little_memory_names_the_options(tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"not enough memory.*kv_cache_gib"):
        generate(tiny_model, PROMPTS, GREEDY, engine=VLLM, resources=EngineResources(kv_cache_gib=0.0001))


def test_an_engine_that_is_not_installed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find_spec(name))
    with pytest.raises(UserError, match=r"the vllm engine needs the package vllm.*pip install"):
        generate(tiny_model, PROMPTS, GREEDY, engine=VLLM)
    result = generate(tiny_model, PROMPTS[:2], GREEDY)
    assert result.engine["name"] == "transformers"
