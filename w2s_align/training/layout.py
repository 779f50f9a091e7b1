"""Which processes train together: read from ``launch`` (a name, or the user's own accelerate YAML) and the machine.

launch.py starts them. No model is loaded here, and nothing is written.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from w2s_align.errors import UserError, did_you_mean, missing_package
from w2s_align.processes import STARTER
from w2s_align.training.resources import LAUNCHES, TrainResources

LAUNCHERS = Path(__file__).parent / "launchers"
"""Folder of the shipped accelerate configurations: one file for each name in ``LAUNCHES`` but ``single``."""


@dataclass(frozen=True)
class Layout:
    """The processes that train together.

    Attributes:
        name: What the recipe said: ``single``, ``zero2``, ..., a path; ``external`` when another launcher made them.
        config: The accelerate configuration, or None for one process.
        processes: Number of processes on all machines.
        machines: Number of machines.
        kind: ``single``, ``ddp``, ``deepspeed`` or ``fsdp``.
        stage: DeepSpeed's ZeRO stage; 0 without it.
    """

    name: str = "single"
    config: str | None = None
    processes: int = 1
    machines: int = 1
    kind: str = "single"
    stage: int = 0

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds the whole model."""
        return self.kind == "fsdp" or self.stage == 3

    @property
    def here(self) -> bool:
        """Whether the training runs in this process."""
        return self.config is None


def on_cpu(resources: TrainResources) -> bool:
    """Say whether a training uses the CPU: because it was told to, or because there is nothing else."""
    import torch

    return resources.device == "cpu" or not torch.cuda.is_available()


def check_launch(launch: str) -> tuple[str, int]:
    """Refuse a launch that is neither a name nor a usable accelerate configuration; imports nothing heavy.

    Returns:
        Its kind and ZeRO stage, as in :class:`Layout`.

    Raises:
        UserError: With the names that there are, or what the file lacks.
    """
    return ("single", 0) if launch == "single" else _kind(_read(launch), launch)


def find_layout(launch: str, resources: TrainResources) -> Layout:
    """Decide which processes train together.

    Args:
        launch: See :data:`~w2s_align.training.resources.LAUNCHES`, or the path of an accelerate YAML.
        resources: Number of processes and machines, where given.

    Raises:
        UserError: The name is unknown, a package is missing, or there are more processes than GPUs.
    """
    import torch

    if "LOCAL_RANK" in os.environ:  # torchrun, accelerate launch, or our own ranks have made the processes
        return _external()
    gpus = 0 if on_cpu(resources) else torch.cuda.device_count()
    if launch == "single":
        if (resources.processes or 1) > 1:
            raise UserError(
                f"{resources.processes} processes are asked for, and launch is single.",
                fix="Set launch: ddp, zero2, zero3 or fsdp2, or leave processes out.",
            )
        if gpus > 1:
            raise UserError(
                f"{gpus} GPUs are visible to a single process.",
                "One process trains on one GPU.",
                "Set launch: ddp (or zero2, zero3, fsdp2) to use all of them, or CUDA_VISIBLE_DEVICES to one.",
            )
        return Layout()
    config = _read(launch)
    kind, stage = _kind(config, launch)
    if kind == "deepspeed" and find_spec("deepspeed") is None:
        raise missing_package("deepspeed", "deepspeed", f"launch: {launch}")
    here = "NNODES" if STARTER in os.environ else "SLURM_JOB_NUM_NODES"  # Ray may itself be a Slurm job
    machines = resources.machines or int(os.environ.get(here, "1"))
    processes = resources.processes or max(1, gpus) * machines
    if gpus and processes > gpus * machines:
        raise UserError(
            f"{processes} processes are asked for, and there are {gpus * machines} GPUs.",
            "Each process needs a GPU of its own.",
            f"Set processes: {gpus * machines} or less, leave it out, or give the step more GPUs (resources.gpus).",
        )
    if processes % machines:
        raise UserError(
            f"{processes} processes cannot be shared by {machines} machines.", fix=f"Use a multiple of {machines}."
        )
    return Layout(launch, str(_path(launch)), processes, machines, kind, stage)


def _external() -> Layout:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    machines = max(1, processes // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
        return Layout("external", None, processes, machines, "deepspeed", stage)
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return Layout("external", None, processes, machines, "ddp")
    if os.environ.get(name := "FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true":
        raise _empty_weights("The launcher of this process", name)
    return Layout("external", None, processes, machines, "fsdp")


def _empty_weights(where: str, name: str) -> UserError:
    return UserError(
        f"{where} does not set {name} to false.",
        "All processes but the first would start with empty weights, and TRL would compute the reference with them.",
        f"Set it to false, as {LAUNCHERS / 'fsdp2.yaml'} does.",
    )


def _path(launch: str) -> Path:
    shipped = LAUNCHERS / f"{launch}.yaml"
    return shipped if launch in LAUNCHES else Path(launch).expanduser().absolute()


def _read(launch: str) -> dict[str, Any]:
    path = _path(launch)
    if not path.is_file():
        raise UserError(
            f"launch: {launch} is neither a name nor a file.",
            did_you_mean(launch, LAUNCHES),
            "Give one of the names, or the path of an accelerate YAML of your own.",
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(config, dict) or "distributed_type" not in config:
        raise UserError(
            f"{path} is not an accelerate configuration: it has no distributed_type.",
            fix=f"Start from a copy of {LAUNCHERS / 'zero2.yaml'}.",
        )
    return config


def _kind(config: dict[str, Any], launch: str) -> tuple[str, int]:
    """Return the kind and ZeRO stage of an accelerate configuration; refuse what would change the result."""
    kind = {"DEEPSPEED": "deepspeed", "FSDP": "fsdp", "MULTI_GPU": "ddp"}.get(str(config["distributed_type"]))
    if kind is None:
        raise UserError(
            f"launch: {launch} has the distributed_type {config['distributed_type']}.",
            fix="Use MULTI_GPU, DEEPSPEED or FSDP; for one process leave launch out.",
        )
    if kind == "fsdp" and (config.get("fsdp_config") or {}).get("fsdp_cpu_ram_efficient_loading", True):
        raise _empty_weights(str(_path(launch)), "fsdp_cpu_ram_efficient_loading")
    if kind != "deepspeed":
        return kind, 0
    deepspeed = dict(config.get("deepspeed_config") or {})
    if file := deepspeed.get("deepspeed_config_file"):
        inner = json.loads((_path(launch).parent / file).read_text(encoding="utf-8"))
        deepspeed = {**inner, "zero_stage": inner.get("zero_optimization", {}).get("stage", 0)}
    decided = ("gradient_accumulation_steps", "gradient_clipping", "optimizer", "scheduler", "train_batch_size")
    for name in (*decided, "train_micro_batch_size_per_gpu"):
        if deepspeed.get(name, "auto") != "auto":
            raise UserError(
                f"{_path(launch)} sets {name} to {deepspeed[name]}.",
                "That would change the training; a launch only says where it runs.",
                "Remove it, and use batch_size, max_grad_norm, learning_rate and the like in the recipe.",
            )
    return kind, int(deepspeed.get("zero_stage", 2))
