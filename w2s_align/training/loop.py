"""One training from arguments to a verified model: what DPO and SFT, and any later trainer of TRL, have in common.

Writes into the output folder: ``model/``, ``adapter/``, ``metrics.jsonl``, ``training.json`` (last); ``checkpoints/``
and ``cache/`` while it runs. TRL's trainers are called, never subclassed. A new kind of training is a new file beside
``dpo.py``: prepare its data, build its trainer, and call :func:`fit`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from w2s_align.errors import UserError
from w2s_align.training.data import TrainingData
from w2s_align.training.health import Health
from w2s_align.training.models import StartModel, probe_logits, save_model, verify_model
from w2s_align.training.report import FILE, TrainingReport, ends_of_curve, write_json
from w2s_align.training.settings import DPOSettings, TrainResources, TrainSettings

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a short note."""

PASS_TOKENS = 16_384
"""Padded tokens in one forward pass that the default micro batch stays below."""

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class Job:
    """Everything about a training that is decided before its trainer is made."""

    method: str
    start: StartModel
    data: TrainingData
    out: Path
    settings: TrainSettings
    resources: TrainResources
    seed: int
    processes: int
    micro_batch_size: int
    accumulation: int
    dtype: str

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.out / "checkpoints"

    @property
    def save_dtype(self) -> str:
        """Precision of the saved model, resolved."""
        wanted = self.settings.save_dtype
        return self.start.dtype if wanted == "auto" else wanted

    def identity(self) -> dict[str, Any]:
        """Return what makes this training this training; another one must not go on from its checkpoints."""
        start = Path(self.start.path)
        files = sorted((f.name, f.stat().st_size) for f in start.glob("*.safetensors")) if start.is_dir() else []
        return {
            "method": self.method,
            "start": self.start.path,
            "start_files": [list(file) for file in files],
            "data": self.data.digest,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "dtype": self.dtype,
        }


def plan(
    method: str,
    start: StartModel,
    data: TrainingData,
    out: Path,
    settings: TrainSettings,
    resources: TrainResources,
    seed: int,
    sides: int,
) -> Job:
    """Decide batch sizes and precision.

    Args:
        method: ``dpo``, ``sft``, ...
        start: The start model.
        data: The prepared rows.
        out: Output folder.
        settings: What changes the result.
        resources: What does not.
        seed: Seed of the training.
        sides: Sequences per row in a forward pass: 2 for pairs, 1 for chats.

    Raises:
        UserError: The effective batch cannot be made of equal micro batches, or a row exceeds the model's context.
    """
    if start.context is not None and data.longest > start.context:
        raise UserError(
            f"The longest row has {data.longest} tokens; the context of {start.path} is {start.context}.",
            "The model has never seen positions beyond its context.",
            f"Set max_length to {start.context} or less.",
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_process, rest = divmod(settings.batch_size, processes)
    if rest:
        raise UserError(
            f"batch_size {settings.batch_size} cannot be shared by {processes} processes.",
            fix=f"Use a multiple of {processes}.",
        )
    together = isinstance(settings, DPOSettings) and not settings.micro_batches_are_exact
    micro = resources.micro_batch_size
    if micro is None:
        fits = max(1, PASS_TOKENS // (sides * data.longest))
        micro = max(n for n in range(1, per_process + 1) if per_process % n == 0 and (n <= fits or together))
    if per_process % micro:
        divisors = [n for n in range(1, per_process + 1) if per_process % n == 0]
        raise UserError(
            f"batch_size {settings.batch_size} on {processes} processes cannot be made of micro batches of {micro}.",
            fix=f"Use a micro_batch_size of {', '.join(map(str, divisors))}.",
        )
    if together and micro != settings.batch_size:
        raise UserError(
            f"aot losses sort the pairs of one forward pass, so that micro batches of {micro} change the method.",
            fix=f"Set micro_batch_size to batch_size ({settings.batch_size}) and use one process.",
        )
    dtype = _resolve_dtype(settings.dtype, resources)
    return Job(method, start, data, out, settings, resources, seed, processes, micro, per_process // micro, dtype)


def check_devices(resources: TrainResources) -> None:
    """Refuse several visible GPUs in one process, which transformers would turn into DataParallel.

    Raises:
        UserError: More than one GPU is visible and no launcher made processes for them.
    """
    import torch

    launched = "LOCAL_RANK" in os.environ
    if resources.device == "auto" and torch.cuda.device_count() > 1 and not launched:
        raise UserError(
            f"{torch.cuda.device_count()} GPUs are visible to a single process.",
            "One process trains on one GPU.",
            "Set CUDA_VISIBLE_DEVICES to one GPU, or start one process per GPU with accelerate launch.",
        )


def common_arguments(job: Job) -> dict[str, Any]:
    """Return the arguments that all of TRL's configuration classes share."""
    import torch

    settings, resources = job.settings, job.resources
    by_steps = resources.save_every is not None
    recompute = resources.gradient_checkpointing
    arguments = {
        "output_dir": str(job.checkpoints),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": job.micro_batch_size,
        "gradient_accumulation_steps": job.accumulation,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "lr_scheduler_kwargs": settings.scheduler_kwargs,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": None,  # rows were dropped or cut before, and counted
        "bf16": job.dtype == "bfloat16",
        "gradient_checkpointing": job.start.parameters >= 1e9 if recompute == "auto" else recompute,
        "model_init_kwargs": _load_arguments(job),
        "seed": job.seed,
        "use_cpu": resources.device == "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would replace a NaN by the mean of the steps before
        "save_strategy": "steps" if by_steps else "no",
        "save_steps": resources.save_every or 500,
        "save_total_limit": resources.keep_checkpoints,
        "dataloader_num_workers": resources.dataloader_num_workers,
        "dataloader_pin_memory": torch.cuda.is_available() and resources.device != "cpu",
        "dataset_num_proc": resources.dataset_num_proc,
        "report_to": "none",
        "disable_tqdm": True,
        "do_train": True,
    }
    return arguments


def build_config(config_class: Any, job: Job, **arguments: Any) -> Any:
    """Make one of TRL's configuration objects.

    Args:
        config_class: ``DPOConfig``, ``SFTConfig``, ...
        job: The training.
        **arguments: What only this class knows.

    Raises:
        UserError: ``settings.trl`` names an argument that does not exist or that a setting decides.
    """
    ours = {**common_arguments(job), **arguments}
    known = {field.name for field in dataclasses.fields(config_class)}
    for name in job.settings.trl:
        if name in ours:
            raise UserError(f"trl: {{{name}: ...}} is decided by another setting.", fix=f"Remove {name} from trl.")
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"{name} is not an argument of {config_class.__name__}.",
                fix=f"Did you mean {close[0]}?" if close else "Remove it from trl.",
            )
    return config_class(**ours, **job.settings.trl)


def fit(
    job: Job, make_trainer: Callable[[list[Any]], Any], health: Health, progress: Progress | None = None
) -> TrainingReport:
    """Train, save, verify and describe; goes on from the last whole checkpoint.

    Args:
        job: The training.
        make_trainer: Makes TRL's trainer with the callbacks that it is given.
        health: Rules that every step is held against.
        progress: Called after each step.

    Raises:
        UserError: The folder holds another training, the training diverges, or it changed nothing.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    _claim(job)
    if (job.out / FILE).exists():
        return TrainingReport.load(job.out)
    from transformers import PrinterCallback

    from w2s_align.training.callbacks import Recorder

    checkpoint, state = last_checkpoint(job.checkpoints, job.processes)
    save_seconds = None if job.resources.save_every else 60 * job.resources.save_minutes
    recorder = Recorder(job.out, health, save_seconds, state, progress)
    with quiet():
        if progress:
            progress(state["step"], 0, "preparing")
        trainer = make_trainer([recorder])
        trainer.remove_callback(PrinterCallback)  # it prints every row of metrics
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        model = trainer.accelerator.unwrap_model(trainer.model)
        trained = probe_logits(model, job.data.probes)
        save_model(model, job.start, job.out, job.save_dtype)
        steps, epochs = trainer.state.global_step, float(trainer.state.epoch or 0)
        del trainer, model
        verified = verify_model(job.out / "model", job.start, job.save_dtype, job.data.probes, trained)
    verified["moved_in_first_update"] = recorder.moved_share
    report = TrainingReport(
        method=job.method,
        start=job.start.path,
        model_dir=str(job.out / "model"),
        adapter_dir=str(job.out / "adapter") if job.settings.adapter else None,
        settings=job.settings.model_dump(mode="json"),
        seed=job.seed,
        steps=steps,
        epochs=epochs,
        rows=job.data.rows,
        batch={
            "batch_size": job.settings.batch_size,
            "processes": job.processes,
            "micro_batch_size": job.micro_batch_size,
            "accumulation": job.accumulation,
        },
        counts=job.data.counts,
        lengths=job.data.lengths,
        preview=job.data.preview,
        metrics=ends_of_curve(recorder.rows),
        alarms=health.alarms,
        notes=[*job.settings.advice(), *job.data.notes],
        verified=verified,
        dtype=job.dtype,
        save_dtype=job.save_dtype,
        tokens=int(sum(row.get("tokens", 0) for row in recorder.rows)),
        seconds=recorder.seconds,
        resumed_from=state["step"],
        peak_memory=_peak_memory(),
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )
    from w2s_align.training.card import write_card

    write_card(report)
    report.save(job.out)
    shutil.rmtree(job.checkpoints, ignore_errors=True)
    shutil.rmtree(job.out / "cache", ignore_errors=True)
    return report


def last_checkpoint(folder: Path, processes: int) -> tuple[Path | None, dict[str, Any]]:
    """Find the newest whole checkpoint; half-written ones are removed.

    Args:
        folder: Folder of checkpoints.
        processes: Number of processes of this run.

    Returns:
        The checkpoint, or None, and what was known at it: ``step``, metric ``rows``, ``alarms``, ...

    Raises:
        UserError: It was made by another number of processes, which optimiser shards do not survive.
    """
    from w2s_align.training.callbacks import DONE

    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        if (path / DONE).exists():
            whole.append((int(path.name.rsplit("-", 1)[1]), path))
        else:
            shutil.rmtree(path)
    if not whole:
        return None, {"step": 0, "rows": [], "alarms": [], "moved_share": None, "seconds": 0.0}
    newest = max(whole)[1]
    state = json.loads((newest / DONE).read_text())
    if state["world_size"] != processes:
        raise UserError(
            f"{newest} was made by {state['world_size']} processes; there are {processes} now.",
            "Optimiser and random states belong to the processes that made them.",
            f"Go on with {state['world_size']} processes, or remove {folder} to start again.",
        )
    return newest, state


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


def _load_arguments(job: Job) -> dict[str, Any]:
    # Weights that are trained are float32 (bfloat16 cannot hold updates at small learning rates: delta_learning 8.5);
    # the frozen base under an adapter may be as coarse as the arithmetic.
    frozen = job.settings.adapter is not None and job.dtype == "bfloat16"
    arguments: dict[str, Any] = {"dtype": "bfloat16" if frozen else "float32"}
    if job.resources.attn_implementation:
        arguments["attn_implementation"] = job.resources.attn_implementation
    return arguments


def _resolve_dtype(wanted: str, resources: TrainResources) -> str:
    import torch

    if wanted != "auto":
        return wanted
    accelerated = resources.device == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if accelerated else "float32"


def _peak_memory() -> int | None:
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
