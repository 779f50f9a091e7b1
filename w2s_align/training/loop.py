"""One training from arguments to a verified model: what all kinds of training have in common.

Writes into the output folder: ``model/``, ``adapter/``, ``metrics.jsonl``, ``training.json`` (last); ``checkpoints/``,
``cache/``, ``launch/`` and ``trained/`` while it runs. TRL's trainers are called, never subclassed.

    train        decides everything, refuses what cannot work, and starts the training here or in several processes
    train_here   trains, in each of these processes
    _finish      merges, opens the saved model again, compares, describes: in the first process alone, which holds no
                 sharded model by then
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from w2s_align.errors import UserError
from w2s_align.training.checkpoints import last_checkpoint
from w2s_align.training.formats import Rows
from w2s_align.training.health import Health
from w2s_align.training.job import Job, is_main, plan
from w2s_align.training.launch import find_layout, launch_ranks
from w2s_align.training.methods.catalogue import Method, method_named
from w2s_align.training.models import (
    merge_adapter,
    merge_start,
    open_start,
    save_model,
)
from w2s_align.training.preflight import check_rules, preflight, write_out
from w2s_align.training.quick_eval import read_questions
from w2s_align.training.reference import weights_digest
from w2s_align.training.report import FILE, TrainingReport, ends_of_curve, write_json
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import TrainSettings
from w2s_align.training.tokens import ChatEncoder
from w2s_align.training.verify import probe_logits, verify_model

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a short note."""

LOGITS = "logits.safetensors"
"""What the trained model said about a few rows, which the saved one is held against."""

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes")


def train(
    method: Method,
    model: str | os.PathLike[str],
    rows: Rows,
    out: str | os.PathLike[str],
    settings: TrainSettings,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    launch: str = "single",
    progress: Progress | None = None,
) -> TrainingReport:
    """Train a model; called again with the same arguments, go on where a killed call stopped.

    Args:
        method: What kind of training it is.
        model: Start model: a folder, a hub id, or the folder of an adapter, which is merged into its base first.
        rows: What the method's ``prepare`` takes.
        out: Output folder, for this training alone.
        settings: What changes the result.
        seed: Seed of the order of rows, of dropout and of the adapter's initial values.
        resources: What does not change the result.
        launch: How many processes share the work: a name in :data:`~w2s_align.training.resources.LAUNCHES`, or the
            path of an accelerate YAML. It does not change the result either.
        progress: Called after each step.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    resources, folder = resources or TrainResources(), Path(out)
    layout = find_layout(launch, resources)
    check_rules(settings, resources, layout)
    with quiet():
        start = open_start(_materialised(model, folder), method.task)
        start = dataclasses.replace(start, source=str(model))
        encoder = ChatEncoder(start.tokenizer, start.stop_ids, settings.chat_template_kwargs, settings.template_check)
        data = method.prepare(rows, encoder, settings, folder / "cache", seed)
        job = plan(method.name, start, data, folder, settings, resources, seed, layout, method.sides)
        _claim(job)
        if (folder / FILE).exists():
            return TrainingReport.load(folder)
        if settings.quick_task:
            read_questions(job)  # refuses before any model is loaded
        if not (folder / "trained" / FILE).exists():
            last_checkpoint(job.checkpoints, layout.processes, layout.kind)  # refuses before any model is loaded
            if is_main():
                print(write_out(preflight(job, method.sides)), flush=True)
            if progress:
                progress(0, 0, "preparing" if layout.here else f"starting {layout.processes} processes")
            if layout.here:
                train_here(job, progress)
            else:
                launch_ranks(job, progress)
        return _finish(job, method) if is_main() else _await(folder)


def _materialised(model: str | os.PathLike[str], folder: Path) -> str:
    """Return a start model's path; an adapter is merged first, so that the reference is what training starts from."""
    adapter = Path(model)
    is_adapter = (adapter / "adapter_config.json").is_file() and not (adapter / "config.json").is_file()
    return str(merge_start(adapter, folder / "start") if is_adapter else model)


def train_here(job: Job, progress: Progress | None = None) -> None:
    """Train in this process, which may be one of several, and leave the model and what is known about it.

    Args:
        job: The training.
        progress: Called after each step.

    Raises:
        UserError: The training diverges, or its start is not its reference.
    """
    from safetensors.torch import save_file
    from transformers import PrinterCallback

    from w2s_align.training.callbacks import Recorder

    method = method_named(job.method)
    checkpoint, state = last_checkpoint(job.checkpoints, job.layout.processes, job.layout.kind)
    recorder = Recorder(job, method.health(job), state, progress)
    with quiet():
        trainer = method.trainer(job, [recorder])
        trainer.remove_callback(PrinterCallback)  # it prints every row of metrics
        recorder.join(trainer)
        trainer.train_dataset = job.whole_batches(trainer.train_dataset)
        _train_adapter_in_float32(trainer.model)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        model = trainer.accelerator.unwrap_model(trainer.model)
        trained = probe_logits(model, job.data.probes)
        weights = _gathered(trainer, job)
        if not is_main():
            return
        save_model(model, job.start, job.out, job.save_dtype, weights)
        (job.out / "trained").mkdir(exist_ok=True)
        save_file({str(i): logits for i, logits in enumerate(trained)}, job.out / "trained" / LOGITS)
        write_json(
            job.out / "trained" / FILE,
            {
                "steps": trainer.state.global_step,
                "epochs": float(trainer.state.epoch or 0),
                "rows": recorder.rows,
                "held_out": recorder.held_out,
                "alarms": recorder.health.alarms,
                "notes": recorder.notes,
                "moved_share": recorder.moved_share,
                "seconds": recorder.seconds,
                "resumed_from": state["step"],
                "peak_memory": _peak_memory(),
            },
        )


def _train_adapter_in_float32(model: Any) -> None:
    """Undo TRL's cast of an adapter on a 4-bit base to bfloat16, in which small updates would be lost."""
    import torch

    for parameter in model.parameters():
        if (
            parameter.requires_grad
            and parameter.dtype == torch.bfloat16
            and getattr(model, "is_loaded_in_4bit", False)
        ):
            parameter.data = parameter.data.float()


def _gathered(trainer: Any, job: Job) -> dict[str, Any] | None:
    """Collect weights that the processes hold in parts; all of them must take part. None where nothing is in parts."""
    if not job.layout.shards_weights:
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.layout.stage == 3 and job.settings.adapter:
        # Only the adapter: gathering the base as well would cost its size in memory, and PEFT alone would save empty
        # matrices (peft#2892).
        import deepspeed

        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with deepspeed.zero.GatheredParameters(list(trained.values())):
            return {name: p.detach().cpu().clone() for name, p in trained.items()}
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def _finish(job: Job, method: Method) -> TrainingReport:
    """Merge, verify and describe what was trained."""
    from safetensors.torch import load_file

    if job.layout.name == "external" and job.layout.stage == 3:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # a model loaded from here on is whole
    begun = time.monotonic()
    done = json.loads((job.out / "trained" / FILE).read_text())
    logits = load_file(job.out / "trained" / LOGITS)
    adapter, merged_start = job.settings.adapter, job.start.path != job.start.source
    if adapter:
        merged = merge_adapter(job.start, job.out / "adapter")
        save_model(merged, job.start, job.out, job.save_dtype)
        del merged
    verified = verify_model(
        job.out / "model",
        job.start,
        job.save_dtype,
        job.data.probes,
        [logits[str(i)] for i in range(len(logits))],
        dtype=job.dtype,
        quantised=adapter is not None and adapter.load_in_4bit,
        seed=job.seed,
    )
    health = Health(alarms=done["alarms"])
    if not adapter:
        health.saved(done["steps"], verified["changed_share"], job.save_dtype)
    for alarm in health.alarms:
        print(f"alarm at step {alarm['step']}: {alarm['message']}", flush=True)
    notes = [*job.settings.advice(), *job.data.notes, *done["notes"]]
    if adapter is not None and adapter.load_in_4bit:
        notes.append(
            f"Merged into the full-precision base, logits moved by {verified['logit_error']:.2g} of the largest one: "
            "what the 4 bits cost."
        )
    report = TrainingReport(
        method=job.method,
        start=job.start.source,
        model_dir=str(job.out / "model"),
        adapter_dir=str(job.out / "adapter") if adapter and not merged_start else None,
        settings=job.settings.model_dump(mode="json", exclude={"quick_task": {"prompts"}}),  # a path; see digests
        seed=job.seed,
        steps=done["steps"],
        epochs=done["epochs"],
        rows=job.rows,
        batch={
            "batch_size": job.settings.batch_size,
            "processes": job.layout.processes,
            "micro_batch_size": job.micro_batch_size,
            "accumulation": job.accumulation,
        },
        launch=job.layout.name,
        preflight=preflight(job, method.sides),
        digests=_digests(job),
        counts={**job.data.counts, "held_out": job.held_out, "repeated": job.repeated},
        lengths=job.data.lengths,
        preview=job.data.preview,
        metrics=ends_of_curve(done["rows"]),
        held_out=done["held_out"],
        alarms=health.alarms,
        notes=notes,
        verified={**verified, "moved_in_first_update": done["moved_share"]},
        dtype=job.dtype,
        save_dtype=job.save_dtype,
        tokens=int(sum(row.get("tokens", 0) for row in done["rows"])),
        seconds=done["seconds"] + time.monotonic() - begun,
        resumed_from=done["resumed_from"],
        peak_memory=done["peak_memory"],
        versions={name: found for name in VERSIONS if (found := _version(name))},
    )
    from w2s_align.training.card import write_card

    write_card(report)
    report.save(job.out)
    # An adapter on top of a merged one fits no base that anybody has: it is kept merged alone.
    for left in ("checkpoints", "cache", "trained", "start", *(["adapter"] if merged_start else [])):
        shutil.rmtree(job.out / left, ignore_errors=True)
    return report


def _digests(job: Job) -> dict[str, str]:
    """Return what names the content of all that the weights were made of."""
    found = {"data": job.data.tokens_digest, "start": weights_digest(job.start.path)}
    return found | ({"quick_task": read_questions(job).digest} if job.settings.quick_task else {})


def _await(folder: Path) -> TrainingReport:
    """Wait in the other processes of a foreign launcher until the first one has finished."""
    while not (folder / FILE).exists():
        time.sleep(0.5)
    return TrainingReport.load(folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and usage pings of the libraries for a while, and give them back as they were."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import transformers
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    level, datasets_level = transformers_logging.get_verbosity(), datasets_logging.get_verbosity()
    tqdm = os.environ.get("TQDM_DISABLE")
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    datasets_logging.set_verbosity_error()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if before[0]:
            transformers_logging.enable_progress_bar()
        if before[1]:
            datasets.enable_progress_bars()
        transformers.logging.set_verbosity(level)
        datasets_logging.set_verbosity(datasets_level)
        os.environ.pop("TQDM_DISABLE")
        if tqdm is not None:
            os.environ["TQDM_DISABLE"] = tqdm


def _claim(job: Job) -> None:
    """Write down which training the folder belongs to, or refuse it when it belongs to another one."""
    file = job.out / "request.json"
    identity = json.loads(json.dumps(job.identity()))
    if not file.exists():
        write_json(file, identity)
        return
    found = json.loads(file.read_text())
    if found != identity:
        different = [name for name in identity if found.get(name) != identity[name]]
        raise UserError(
            f"{job.out} belongs to another training.",
            f"Different: {', '.join(different)}.",
            "Give another output folder, or remove this one.",
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _peak_memory() -> int | None:
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
