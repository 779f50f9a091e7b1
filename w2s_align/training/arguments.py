"""Arguments for trainers: what all of them share, what TRL's add, and what the user adds by TRL's own names."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
from typing import Any

from w2s_align.errors import UserError
from w2s_align.training.adapters import adapter_on_base, lora_config
from w2s_align.training.layout import on_cpu
from w2s_align.training.plan import TrainingPlan


def common_arguments(plan: TrainingPlan) -> dict[str, Any]:
    """Return the arguments of ``transformers.TrainingArguments``, which every configuration class has."""
    settings, resources = plan.settings, plan.resources
    by_steps = resources.save_every is not None
    cpu, kind = on_cpu(resources), plan.layout.kind
    return {
        "output_dir": str(plan.checkpoints),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": plan.micro_batch_size,
        "per_device_eval_batch_size": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "eval_strategy": "steps" if plan.held_out else "no",
        "eval_steps": plan.evaluate_every if plan.held_out else None,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "lr_scheduler_kwargs": settings.scheduler_kwargs,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": plan.dtype == "bfloat16",
        "gradient_checkpointing": plan.recompute,
        "seed": plan.seed,
        # accelerate knows DeepSpeed on a CPU only when it is not told that it is one, but which backend to talk over.
        "use_cpu": cpu and kind != "deepspeed",
        "ddp_backend": "gloo" if cpu and plan.layout.processes > 1 else None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would replace a NaN by the mean of the steps before
        "save_strategy": "steps" if by_steps else "no",
        "save_steps": resources.save_every or 500,
        "save_total_limit": resources.keep_checkpoints,
        "dataloader_num_workers": resources.dataloader_num_workers,
        "dataloader_pin_memory": not cpu,
        "report_to": resources.report_to or "none",
        "run_name": f"{plan.method}-{plan.out.name}",
        "disable_tqdm": True,
        "do_train": True,
    }


def trl_arguments(plan: TrainingPlan) -> dict[str, Any]:
    """Return the arguments that TRL's configuration classes add; ``TrainingArguments`` itself has none of them."""
    return {
        "max_length": None,  # rows were dropped or cut before, and counted
        "model_init_kwargs": None if plan.start.adapter else load_arguments(plan),
        "dataset_num_proc": plan.resources.dataset_num_proc,
    }


def build_config(config_class: Any, plan: TrainingPlan, **arguments: Any) -> Any:
    """Make the configuration of a trainer.

    Args:
        config_class: ``DPOConfig``, ``SFTConfig``, ``TrainingArguments``, ...
        plan: The training.
        **arguments: What only this class knows.

    Raises:
        UserError: ``settings.trl`` names an argument that does not exist or that a setting decides.
    """
    known = {field.name for field in dataclasses.fields(config_class)}
    from_trl = {name: value for name, value in trl_arguments(plan).items() if name in known}
    ours = {**common_arguments(plan), **from_trl, **arguments}
    for name in plan.settings.trl:
        if name in ours:
            raise UserError(f"trl: {{{name}: ...}} is decided by another setting.", fix=f"Remove {name} from trl.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"{name} is not an argument of {config_class.__name__}.",
                fix=f"Did you mean {close[0]}?" if close else "Remove it from trl.",
            )
    config = config_class(**ours, **plan.settings.trl)
    if plan.layout.kind == "fsdp" and on_cpu(plan.resources):
        from accelerate.utils import DistributedType

        # accelerate shards over accelerators only, though torch shards over gloo as well: call the processes so.
        config.distributed_state.distributed_type = DistributedType.MULTI_GPU
    return config


def load_arguments(plan: TrainingPlan) -> dict[str, Any]:
    """Return how a trainer loads the start model.

    Weights that are trained are float32: bfloat16 cannot hold updates at small learning rates
    (docs/methods/delta_learning.md). The frozen base under an adapter may be as coarse as the arithmetic, or in 4
    bits.
    """
    adapter = plan.settings.adapter
    frozen = adapter is not None and plan.dtype == "bfloat16"
    arguments: dict[str, Any] = {"dtype": "bfloat16" if frozen else "float32"}
    if plan.resources.attn_implementation:
        arguments["attn_implementation"] = plan.resources.attn_implementation
    if adapter is not None and adapter.load_in_4bit:
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=plan.dtype,
        )
        if on_cpu(plan.resources):
            _keep_gradients_of_four_bits()
        # A quantized base cannot move between devices, so that it is loaded where it stays.
        device = "cpu" if on_cpu(plan.resources) else int(os.environ.get("LOCAL_RANK", "0"))
        arguments["device_map"] = {"": device}
    return arguments


def _keep_gradients_of_four_bits() -> None:
    """Let layers in 4 bits on a CPU stay as they are when they are evaluated.

    On processors with AVX512-BF16 bitsandbytes 0.50 packs a layer at its first evaluation (here: of the reference) for
    a kernel without a backward pass, and keeps it so: all later gradients through it would be zero, without an error.
    The layers ask this function when they are made. (bitsandbytes 0.50, docs/upstream.md)
    """
    layers: Any = importlib.import_module("bitsandbytes.nn.modules")
    layers.has_avx512bf16 = lambda: False


def trainer_arguments(plan: TrainingPlan, callbacks: list[Any]) -> dict[str, Any]:
    """Return what every trainer of TRL is made of besides its configuration and its rows.

    Args:
        plan: The training.
        callbacks: The callbacks that the loop wants to be called.
    """
    from transformers import AutoTokenizer

    # The trainer changes its tokenizer (pad token); the one that is saved stays as it was.
    tokenizer = AutoTokenizer.from_pretrained(plan.start.path, trust_remote_code=False)
    adapter = plan.settings.adapter
    goes_on = plan.start.adapter is not None
    return {
        "model": adapter_on_base(plan.start, load_arguments(plan)) if goes_on else plan.start.path,
        "processing_class": tokenizer,
        "peft_config": lora_config(adapter, plan.start.head) if adapter and not goes_on else None,
        "callbacks": callbacks,
    }


def pad_id(tokenizer: Any) -> int:
    """Return the token that fills up batches; attention masks and labels go by length, so that it may equal EOS."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
