"""What a training may use of a machine, and what happens beside it. Nothing here is meant to change the result.

Nothing heavy is imported here, so that a recipe is checked in an instant.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from w2s_align.records import Settings

LAUNCHES = ("single", "ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2")
"""How the processes of a training share the work; each but the first is a file in ``launchers/``."""


class TrainResources(Settings):
    """What a training may use. Nothing here is meant to change the result: it is equal up to rounding."""

    processes: int | None = Field(None, gt=0)
    """Processes that train together, over all machines, when launch is not single: one for each GPU. Default: as
    many as there are GPUs, or one without any. It does not change the result: batch_size is shared among them."""
    machines: int | None = Field(None, gt=0)
    """Machines that train together. Default: those of the Slurm job that this runs in, else 1."""
    micro_batch_size: int | None = Field(None, gt=0)
    """Rows in one forward pass on one device; must divide the effective batch. By default as many as keep it
    near 4,096 tokens without padding, and below 16,384 tokens at the longest row with it. One mean is taken per
    micro batch and so depends on it slightly: the token mean of a likelihood term (sft in a DPO loss, the nll of cpo,
    simpo and orpo)."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations to save memory, for about 30% more time; auto: from a billion parameters on, and when
    optimize_for is memory."""
    optimize_for: Literal["speed", "memory"] = "speed"
    """memory: micro batches of one row and activations recomputed, where micro_batch_size and
    gradient_checkpointing do not say otherwise."""
    padding_free: bool = True
    """Compute micro batches without padding, a shared prompt once and logits for labels alone: in dpo and sft, with
    attention sdpa and the families of models that are tested. Where they are padded, the preflight says why."""
    precompute_ref_log_probs: bool = True
    """Compute the reference log-probabilities once, before training, and keep no second model in memory."""
    precompute_ref_batch_size: int | None = Field(None, gt=0)
    """Rows in a forward pass of that computation; micro_batch_size by default."""
    save_every: int | None = Field(None, gt=0)
    """Optimizer steps between checkpoints; by default one is made whenever save_minutes have passed."""
    save_minutes: float = Field(10.0, gt=0)
    """Minutes between checkpoints when save_every is not given."""
    keep_checkpoints: int = Field(2, ge=2)
    """Checkpoints kept during training; all are removed at its end. Two, because the newest may be half written."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that make batches; 0 is the training process itself."""
    dataset_num_proc: int | None = Field(None, gt=0)
    """Processes that tokenize pairs inside TRL."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator if there is one."""
    attn_implementation: str | None = None
    """Attention kernel by its name in transformers, e.g. sdpa or flash_attention_2."""
    cache_dir: str | None = None
    """Where reference log-probabilities are kept for later trainings over the same pairs and start model, whatever
    their beta, learning rate, loss or seed. Default: in recipes the folder of the runs, else none are kept."""
    report_to: list[str] = Field(default_factory=list)
    """Trackers that follow the training, as transformers calls them: trackio, wandb, tensorboard, ... The events of
    tensorboard go to tensorboard/ beside the model, or to TENSORBOARD_LOGGING_DIR; others have their own places."""
