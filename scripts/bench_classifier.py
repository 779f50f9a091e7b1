"""Speed of a classifier here against transformers' Trainer called plainly, and of labeling, on a lab model.

Same model (width 96, 2 layers, random weights), items, batch and number of steps, in one process, in turns:

    plain     transformers.Trainer on gold labels, with its own loss
    w2s       train with ClassifierSettings on gold labels: recording, checks and saving included
    labels    label_items on 10,000 items

Prints seconds on the clock and of the processor; on a machine that others use the latter count. "Steps" is what is
spent in Trainer.train, which both call: what grows with the items. The rest is once for each training: w2s encodes
rows into a file, and opens the saved model again to compare it with the trained one.

    python scripts/bench_classifier.py [--items 4000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, RATE = 32, 5e-4
LABELED = 10_000


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds on the clock and of the processor, and what the work returned."""
    clock, processor = time.monotonic(), time.process_time()
    found = work()
    return time.monotonic() - clock, time.process_time() - processor, found


def plain(model: Path, items: list[Any], out: Path) -> None:
    """Train as transformers' documentation shows it."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

    from w2s_align.lab import build_tokenizer
    from w2s_align.scoring.items import ItemReader

    tokenizer = build_tokenizer()
    ids = ItemReader().ids(tokenizer, [item.messages for item in items])
    rows = [{"input_ids": row, "labels": int(item.answer)} for row, item in zip(ids, items, strict=True)]
    arguments = TrainingArguments(
        str(out), learning_rate=RATE, per_device_train_batch_size=BATCH, num_train_epochs=1, adam_beta2=0.95,
        lr_scheduler_type="cosine", use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, seed=0,
        logging_steps=1,
    )  # fmt: skip
    opened = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, trust_remote_code=False)
    trainer = Trainer(opened, arguments, DataCollatorWithPadding(tokenizer), Dataset.from_list(rows))
    trainer.train()
    trainer.save_model(str(out / "model"))


def ours(model: Path, items: list[Any], out: Path) -> str:
    """Train here, and return the model's folder."""
    from w2s_align.training import ClassifierSettings, TrainResources, train

    rows = [{"prompt": item.messages, "label": item.answer} for item in items]
    settings = ClassifierSettings(
        learning_rate=RATE, batch_size=BATCH, num_train_epochs=1, lr_scheduler_type="cosine", warmup_steps=0
    )
    return train(str(model), rows, out, settings, resources=TrainResources(device="cpu")).model_dir


def time_steps() -> list[float]:
    """Let every Trainer.train add its seconds of the processor to the list that is returned."""
    from transformers import Trainer

    spent: list[float] = []
    train = Trainer.train

    def timed_train(self: Any, *arguments: Any, **options: Any) -> Any:
        processor = time.process_time()
        found = train(self, *arguments, **options)
        spent.append(time.process_time() - processor)
        return found

    Trainer.train = timed_train  # type: ignore[method-assign]
    return spent


def main() -> None:
    """Measure in turns, and print the shortest of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from w2s_align.lab import carry_items, train_lab_model
    from w2s_align.records import to_table
    from w2s_align.scoring.labels import label_items

    with tempfile.TemporaryDirectory(prefix="bench-classifier-") as name:
        folder = Path(name)
        model = train_lab_model(folder / "lab", width=96, steps=0).model
        items = carry_items(arguments.items, 0, "train")
        spent = time_steps()
        found: dict[str, list[tuple[float, float]]] = {"plain": [], "w2s": []}
        in_steps: dict[str, list[float]] = {"plain": [], "w2s": []}
        trained = ""
        for number in range(arguments.rounds + 1):  # the first round loads what both need
            for mode, work in (("plain", plain), ("w2s", ours)):
                out = folder / f"{mode}-{number}"
                clock, processor, result = timed(lambda work=work, out=out: work(model, items, out))  # type: ignore[misc]
                trained = result or trained
                if number:
                    found[mode].append((clock, processor))
                    in_steps[mode].append(spent[-1])
        tests = to_table(carry_items(LABELED, 0, "test"))
        clock, processor, _ = timed(lambda: label_items(trained, tests, name="m"))
    best = {mode: min(processor for _, processor in rows) for mode, rows in found.items()}
    steps = -(-arguments.items // BATCH)
    for mode, rows in found.items():
        fastest, step = min(clock for clock, _ in rows), 1000 * min(in_steps[mode]) / steps
        print(f"{mode:6} {fastest:7.1f} s, {best[mode]:7.1f} s of the processor, {step:.1f} ms of it a step")
    ratio = min(in_steps["plain"]) / min(in_steps["w2s"])
    print(f"plain / w2s, by the processor: {ratio:.2f} in the steps, {best['plain'] / best['w2s']:.2f} as a whole")
    print(f"labels of {LABELED:,} items: {clock:.1f} s, {processor:.1f} s of the processor")


if __name__ == "__main__":
    main()
