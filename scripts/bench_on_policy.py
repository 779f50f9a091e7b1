"""Seconds per step of trainings on the student's own responses against the bare trainers of TRL, on lab-sized models.

Same random models, prompts, batch, response length and number of steps, in one process, in turns; the ratio is of the
processor's seconds in Trainer.train, which both call:

    distill         DistillationTrainer with a plain teacher, and `distill` with that teacher: TRL's own loss
    fused           the same with two contrasts' worth of frozen models: TRL with our fused teacher called plainly,
                    and `distill` with plausibility 0.1: our loss
    grpo            GRPOTrainer with a reward by length, and `grpo` with the scorer feature:chars

    python scripts/bench_on_policy.py [--steps 15] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, LENGTH, RATE, GROUP = 32, 48, 1e-4, 8


def make_models(folder: Path) -> dict[str, str]:
    """Write a student and two smaller models of one vocabulary, with random weights."""
    from w2s_align.lab import train_lab_model

    made = {}
    for name, width, seed in (("student", 96, 1), ("weak", 64, 2), ("weaker", 64, 3)):
        train_lab_model(folder / name, slip=0.5, width=width, steps=0, seed=seed)
        made[name] = str(folder / name / "model")
    return made


def bare(kind: str, models: dict[str, str], prompts: list[Any], out: Path, steps: int) -> None:
    """Train as TRL's documentation shows it."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer

    from w2s_align.training.fused_teacher import load_teacher
    from w2s_align.training.models import load_model

    shared = {
        **{
            "learning_rate": RATE,
            "max_steps": steps,
            "per_device_train_batch_size": BATCH,
            "use_cpu": True,
            "seed": 0,
        },
        **{"max_completion_length": LENGTH, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1},
        **{"lr_scheduler_type": "constant", "report_to": "none", "save_strategy": "no", "disable_tqdm": True},
        "adam_beta2": 0.95,
    }
    rows = Dataset.from_list([{"prompt": prompt.messages} for prompt in prompts])
    tokenizer = AutoTokenizer.from_pretrained(models["student"], trust_remote_code=False, padding_side="left")
    student = AutoModelForCausalLM.from_pretrained(models["student"], trust_remote_code=False)
    if kind == "grpo":
        arguments: Any = GRPOConfig(str(out), num_generations=GROUP, loss_type="grpo", **shared)
        trainer: Any = GRPOTrainer(
            student,
            reward_funcs=lambda completions, **_: [float(len(chat[0]["content"])) for chat in completions],
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
        )
    else:
        size = student.config.vocab_size
        anchor, contrasts = models["weak"], []
        if kind == "fused":
            anchor, contrasts = models["student"], [(1.0, models["weak"], models["weaker"])]
        teacher = load_teacher(anchor, contrasts, load_model, None, size)
        arguments = DistillationConfig(str(out), **shared)
        trainer = DistillationTrainer(
            student, teacher_model=teacher, args=arguments, train_dataset=rows, processing_class=tokenizer
        )
    trainer.train()


def ours(kind: str, models: dict[str, str], prompts: list[Any], out: Path, steps: int) -> None:
    """Train here."""
    from w2s_align.records import Prompt, to_table
    from w2s_align.training import TrainResources, train
    from w2s_align.training.methods.distill import DistillSettings
    from w2s_align.training.methods.grpo import GRPOSettings

    shared = {
        **{"learning_rate": RATE, "max_steps": steps, "batch_size": BATCH, "max_completion_length": LENGTH},
        **{"lr_scheduler_type": "constant", "warmup_steps": 0},
    }
    contrasts = [{"plus": models["weak"], "minus": models["weaker"]}]
    settings: Any = {
        "distill": lambda: DistillSettings(**shared, teacher=models["weak"]),
        "fused": lambda: DistillSettings(**shared, contrasts=contrasts),
        "grpo": lambda: GRPOSettings(**shared, num_generations=GROUP, reward="feature:chars"),
    }[kind]()
    resources = TrainResources(device="cpu", micro_batch_size=BATCH, gradient_checkpointing=False)
    train(models["student"], to_table(prompts, Prompt), out, settings, resources=resources)


def timed(work: Callable[[], None]) -> float:
    """Return the processor's seconds that Trainer.train takes while the work is done."""
    from transformers import Trainer

    spent: list[float] = []
    train = Trainer.train

    def timed_train(self: Any, *arguments: Any, **options: Any) -> Any:
        begun = time.process_time()
        found = train(self, *arguments, **options)
        spent.append(time.process_time() - begun)
        return found

    Trainer.train = timed_train
    try:
        work()
    finally:
        Trainer.train = train
    return sum(spent)


def main() -> None:
    """Time, and print the ratio of each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from w2s_align.records import Prompt

    prompts = [Prompt.of(f"{1000 + i}+{2000 + 7 * i}") for i in range(BATCH * 4)]
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder))
        for kind in ("distill", "fused", "grpo"):
            ratios = []
            for number in range(options.rounds + 1):  # the first one warms up
                place = Path(folder) / f"{kind}-{number}"
                theirs = timed(
                    lambda place=place, kind=kind: bare(kind, models, prompts, place / "bare", options.steps)
                )
                mine = timed(lambda place=place, kind=kind: ours(kind, models, prompts, place / "ours", options.steps))
                if number:
                    ratios.append(mine / theirs)
                    print(
                        f"{kind}: TRL {theirs / options.steps:.2f} s a step, here {mine / options.steps:.2f} s",
                        flush=True,
                    )
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{kind}: {statistics.median(ratios):.2f} times TRL's seconds ({spread})", flush=True)


if __name__ == "__main__":
    main()
