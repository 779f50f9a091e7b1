"""Arguments for TRL's configuration classes: what all trainers share, and what the user adds by TRL's own names."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
from typing import Any

from w2s_align.errors import UserError
from w2s_align.training.job import Job
from w2s_align.training.launch import on_cpu
from w2s_align.training.models import lora_config


def common_arguments(job: Job) -> dict[str, Any]:
    """Return the arguments that all of TRL's configuration classes share."""
    settings, resources = job.settings, job.resources
    by_steps = resources.save_every is not None
    cpu, kind = on_cpu(resources), job.layout.kind
    return {
        "output_dir": str(job.checkpoints),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": job.micro_batch_size,
        "per_device_eval_batch_size": job.micro_batch_size,
        "gradient_accumulation_steps": job.accumulation,
        "eval_strategy": "steps" if job.held_out else "no",
        "eval_steps": job.evaluate_every if job.held_out else None,
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
        "gradient_checkpointing": job.recompute,
        "model_init_kwargs": load_arguments(job),
        "seed": job.seed,
        # accelerate knows DeepSpeed on a CPU only when it is not told that it is one, but which backend to talk over.
        "use_cpu": cpu and kind != "deepspeed",
        "ddp_backend": "gloo" if cpu and job.layout.processes > 1 else None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would replace a NaN by the mean of the steps before
        "save_strategy": "steps" if by_steps else "no",
        "save_steps": resources.save_every or 500,
        "save_total_limit": resources.keep_checkpoints,
        "dataloader_num_workers": resources.dataloader_num_workers,
        "dataloader_pin_memory": not cpu,
        "dataset_num_proc": resources.dataset_num_proc,
        "report_to": resources.report_to or "none",
        "run_name": f"{job.method}-{job.out.name}",
        "disable_tqdm": True,
        "do_train": True,
    }


def build_config(config_class: Any, job: Job, leave_out: tuple[str, ...] = (), **arguments: Any) -> Any:
    """Make one of TRL's configuration objects.

    Args:
        config_class: ``DPOConfig``, ``SFTConfig``, ...
        job: The training.
        leave_out: Shared arguments that this class does not know.
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
            close = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"{name} is not an argument of {config_class.__name__}.",
                fix=f"Did you mean {close[0]}?" if close else "Remove it from trl.",
            )
    for name in leave_out:
        del ours[name]
    config = config_class(**ours, **job.settings.trl)
    if job.layout.kind == "fsdp" and on_cpu(job.resources):
        from accelerate.utils import DistributedType

        # accelerate shards over accelerators only, though torch shards over gloo as well: call the processes so.
        config.distributed_state.distributed_type = DistributedType.MULTI_GPU
    return config


def load_arguments(job: Job) -> dict[str, Any]:
    """Return how a trainer loads the start model.

    Weights that are trained are float32 (bfloat16 cannot hold updates at small learning rates: delta_learning 8.5).
    The frozen base under an adapter may be as coarse as the arithmetic, or in 4 bits.
    """
    adapter = job.settings.adapter
    frozen = adapter is not None and job.dtype == "bfloat16"
    arguments: dict[str, Any] = {"dtype": "bfloat16" if frozen else "float32"}
    if job.resources.attn_implementation:
        arguments["attn_implementation"] = job.resources.attn_implementation
    if adapter is not None and adapter.load_in_4bit:
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=job.dtype,
        )
        if on_cpu(job.resources):
            _keep_gradients_of_four_bits()
        # A quantised base cannot move between devices, so that it is loaded where it stays.
        device = "cpu" if on_cpu(job.resources) else int(os.environ.get("LOCAL_RANK", "0"))
        arguments["device_map"] = {"": device}
    return arguments


def _keep_gradients_of_four_bits() -> None:
    """Let layers in 4 bits on a CPU stay as they are when they are evaluated.

    On processors with AVX512-BF16 bitsandbytes 0.50 packs a layer at its first evaluation (here: of the reference) for
    a kernel without a backward pass, and keeps it so: all later gradients through it would be zero, without an error.
    The layers ask this function when they are made.
    """
    layers: Any = importlib.import_module("bitsandbytes.nn.modules")
    layers.has_avx512bf16 = lambda: False


def trainer_arguments(job: Job, callbacks: list[Any]) -> dict[str, Any]:
    """Return what every trainer of TRL is made of besides its configuration and its rows."""
    from transformers import AutoTokenizer

    # The trainer changes its tokenizer (pad token); the one that is saved stays as it was.
    tokenizer = AutoTokenizer.from_pretrained(job.start.path)
    adapter = job.settings.adapter
    return {
        "model": job.start.path,
        "processing_class": tokenizer,
        "peft_config": lora_config(adapter, job.start.task) if adapter else None,
        "callbacks": callbacks,
    }


def pad_id(tokenizer: Any) -> int:
    """Return the token that fills up batches; attention masks and labels go by length, so that it may equal EOS."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
