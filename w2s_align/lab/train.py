"""Trains a lab model from scratch on a CPU and writes it as an ordinary model folder. Imports torch: import it late.

    out/settings.json        what is being trained; another training may not use the same folder
    out/metrics.jsonl        one line per step
    out/checkpoint.safetensors   weights, optimizer state and step, every few seconds, while training goes on
    out/model/               the result: config, safetensors, tokenizer, chat template, generation config

Killed at any moment and called again, the training resumes from its checkpoint and ends in the same weights, bit for
bit, if the number of threads is the same: the data of a step depends on the seed and the step alone.

A loop of its own instead of a trainer: a step takes 20 ms, and a general trainer adds as much around each; its
checkpoints also contain pickles.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from w2s_align.errors import UserError
from w2s_align.lab.settings import HEAD_WIDTHS, LabModel, LabResources
from w2s_align.lab.tasks import DIGITS, find_task
from w2s_align.lab.tokenizer import ASSISTANT, END, FIRST_BYTE, MAX_LENGTH, PAD, USER, VOCABULARY, build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

IGNORED = -100
"""Target that the loss leaves out, as in PyTorch and transformers."""
WARMUP_STEPS = 50
"""Steps of linear warm-up, so that AdamW's moments are known before the rate is high."""
INITIAL_STD = 0.08
"""Standard deviation of the initial weights. Measured on 2 layers of width 64: with the usual 0.02 the digits are not
found after 800 steps (loss 0.09 against a floor of 0.02), with 0.08 they are after 400."""
REPORTED_STEPS = 50
"""The final loss is the mean over so many last steps."""


@dataclass(frozen=True)
class LabTraining:
    """Summary of a finished training.

    Attributes:
        model: The model folder.
        steps: Optimizer steps.
        examples: Number of solutions seen, each once.
        tokens: Tokens of these, prompts included.
        loss: Mean loss per response token over the last 50 steps, in nats; None without a step, like ``floor``.
        floor: The lowest possible ``loss``: that of a model that knows all but its author's random choices.
    """

    model: Path
    steps: int
    examples: int
    tokens: int
    loss: float | None
    floor: float | None


def train_lab_model(
    out: str | Path,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    resources: LabResources | None = None,
    **settings: Any,
) -> LabTraining:
    """Train a lab model, resume its training, or return at once when it is finished.

    Args:
        out: Folder to write to; it is created.
        progress: Called with steps done, steps in all, and a note, about once a second.
        resources: Threads and the time between checkpoints.
        **settings: The fields of :class:`~w2s_align.lab.settings.LabModel`.

    Raises:
        UserError: ``out`` holds another training, or the loss is not finite.
        pydantic.ValidationError: A setting that is unknown or out of range.
    """
    options, resources = LabModel(**settings), resources or LabResources()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, options)
    if not (folder / "model").exists():
        with _threads(resources.threads):
            _train(folder, options, resources, progress)
    return _summary(folder, options)


def _train(
    folder: Path,
    options: LabModel,
    resources: LabResources,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    model = _new_model(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    done = _restore(folder, model, optimizer)
    lines: list[str] = []
    saved = reported = time.monotonic()
    for step in range(done, options.steps):
        rate = _learning_rate(step, options)
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens, targets, slip_entropy = _batch(options, step)
        loss = _loss(model, tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        value, counted = loss.item(), int((targets != IGNORED).sum())
        if not math.isfinite(value):
            raise UserError(
                f"The lab model's loss is {value} at step {step + 1}.", fix="Lower learning_rate or change the seed."
            )
        row = {
            "step": step + 1,
            "loss": value,
            "floor": (slip_entropy + options.batch_size * DIGITS * math.log(2.0)) / counted,
            "learning_rate": rate,
            "grad_norm": norm.item(),
            "tokens": int((tokens != PAD).sum()),
        }
        lines.append(json.dumps(row) + "\n")
        now, last = time.monotonic(), step + 1 == options.steps
        if last or now - saved >= resources.checkpoint_seconds:
            _checkpoint(folder, model, optimizer, step + 1, lines)
            lines, saved = [], time.monotonic()
        if progress and (last or now - reported >= 1.0):
            progress(step + 1, options.steps, f"loss {value:.3f}")
            reported = now
    _save(folder, model)


def _batch(options: LabModel, step: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return tokens and targets [batch, length] of one step, and the entropy of its author's slips in nats.

    ``targets[:, i]`` is the token after ``tokens[:, i]``; only tokens of the response, its end included, are targets.
    """
    task, n = find_task(options.task), options.batch_size
    rng = np.random.default_rng((options.seed, step))
    first, second = task.draw(n, rng, "train")
    forgets, small = rng.random((n, DIGITS - 1)) < np.array(options.slips), rng.random((n, DIGITS)) < 0.5
    solutions, due = task.solutions(first, second, forgets, small)
    questions = task.questions(first, second).astype(np.int64) + FIRST_BYTE
    special = {token: np.full((n, 1), token) for token in (USER, END, ASSISTANT)}
    prompt = np.concatenate([special[USER], questions, special[END], special[ASSISTANT]], axis=1)
    length = (solutions != 0).sum(axis=1)
    response = np.full((n, solutions.shape[1] + 1), PAD)
    response[:, :-1] = np.where(solutions != 0, solutions.astype(np.int64) + FIRST_BYTE, PAD)
    response[np.arange(n), length] = END
    tokens = torch.from_numpy(np.concatenate([prompt, response], axis=1))
    targets = tokens[:, 1:].clone()
    targets[:, : prompt.shape[1] - 1] = IGNORED
    targets[targets == PAD] = IGNORED
    slip_entropy = float((due * [_entropy(slip) for slip in options.slips]).sum())
    return tokens[:, :-1], targets, slip_entropy


def _loss(model: LlamaForCausalLM, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over the targets. Padding is on the right, so causal attention never sees it."""
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    counted = targets != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[counted]), targets[counted])


def _learning_rate(step: int, options: LabModel) -> float:
    warm = min(1.0, (step + 1) / min(WARMUP_STEPS, options.steps))
    return options.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * step / options.steps))


def _entropy(probability: float) -> float:
    """Return the entropy of a biased coin in nats: the loss at each carry that the author may forget."""
    return -sum(p * math.log(p) for p in (probability, 1.0 - probability) if p > 0.0)


def _new_model(options: LabModel) -> LlamaForCausalLM:
    head = next(head for head in HEAD_WIDTHS if options.width % head == 0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=options.width,
        intermediate_size=2 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // head,
        num_key_value_heads=options.width // head,
        head_dim=head,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=INITIAL_STD,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return LlamaForCausalLM(config).train()


def _claim(folder: Path, options: LabModel) -> None:
    """Record what is trained here, or refuse a folder that holds another training."""
    path, text = folder / "settings.json", json.dumps(options.model_dump(), indent=2) + "\n"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(path)
    elif path.read_text() != text:
        raise UserError(
            f"{folder} holds a lab model with other settings.",
            why="Resuming it would mix two trainings.",
            fix="Give another folder, or delete this one.",
        )


def _checkpoint(
    folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, step: int, lines: list[str]
) -> None:
    """Append the metrics, then replace the checkpoint: a resume can cut surplus lines, not restore missing ones."""
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.writelines(lines)
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach()
        tensors |= {f"{key}.{name}": value for key, value in optimizer.state[parameter].items()}
    partial = folder / "checkpoint.partial"
    save_file(tensors, partial, metadata={"step": str(step)})
    partial.replace(folder / "checkpoint.safetensors")


def _restore(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint, if there is one, cut the metrics to it, and return the steps done."""
    path, metrics, step = folder / "checkpoint.safetensors", folder / "metrics.jsonl", 0
    if path.exists():
        with safe_open(path, framework="pt") as tensors:
            step = int(tensors.metadata()["step"])
            for name, parameter in model.named_parameters():
                parameter.data.copy_(tensors.get_tensor(f"weight.{name}"))
                optimizer.state[parameter] = {
                    key: tensors.get_tensor(f"{key}.{name}").clone() for key in ("step", "exp_avg", "exp_avg_sq")
                }
    if metrics.exists():
        kept = metrics.read_text().splitlines(keepends=True)[:step]
        partial = folder / "metrics.partial"
        partial.write_text("".join(kept))
        partial.replace(metrics)
    return step


def _save(folder: Path, model: LlamaForCausalLM) -> None:
    """Write the model folder under another name, rename it, and only then drop the checkpoint."""
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD)
    model.save_pretrained(partial)
    build_tokenizer().save_pretrained(partial)
    partial.rename(folder / "model")
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # there is none without a step


def _summary(folder: Path, options: LabModel) -> LabTraining:
    metrics = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    last = rows[-REPORTED_STEPS:]
    return LabTraining(
        model=folder / "model",
        steps=options.steps,
        examples=options.steps * options.batch_size,
        tokens=sum(row["tokens"] for row in rows),
        loss=sum(row["loss"] for row in last) / len(last) if last else None,
        floor=sum(row["floor"] for row in last) / len(last) if last else None,
    )


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Use that many threads, then restore the number: in a notebook, other code follows."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
