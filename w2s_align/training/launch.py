"""Several processes that train together: which, how many, how they are started, and what becomes of their errors.

Reads ``launch`` (a name, or the user's own accelerate YAML) and what the machine and the environment offer. Writes
``<out>/launch/``: the job, one log per process, progress and errors; it is removed when all went well. The processes
are started by accelerate's own launcher (on several machines by srun, or STARTER, around it) and live in ranks.py.
No model is loaded here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from w2s_align.errors import UserError, did_you_mean, missing_package
from w2s_align.processes import STARTER
from w2s_align.training.resources import LAUNCHES, TrainResources

if TYPE_CHECKING:
    from w2s_align.training.job import Job

LAUNCHERS = Path(__file__).parent / "launchers"
TAIL = 15
"""Lines of a failed process's log that reach the user."""
POLL = 0.3
"""Seconds between two looks at the processes' progress."""


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
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(config, dict) or "distributed_type" not in config:
        raise UserError(
            f"{path} is no accelerate configuration: it has no distributed_type.",
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


def launch_ranks(job: Job, progress: Callable[[int, int, str], None] | None) -> None:
    """Start the processes of a job, pass their progress on, and wait for their end.

    All of them end when this process ends, however it ends.

    Raises:
        UserError: What a process refused, or what the first one that failed said last.
    """
    folder = (job.out / "launch").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job.save(folder / "job.json")
    seen: Any = None
    command = _command(job, folder)
    with (folder / "launcher.log").open("wb") as log:
        process = subprocess.Popen(command, env=_environment(job), stdout=log, stderr=log)
        try:
            while process.poll() is None:
                time.sleep(POLL)
                seen = _pass_on(folder / "progress.json", seen, progress)
        finally:
            _end(process)
    if process.returncode:
        raise _failure(folder, job.layout.processes, process.returncode)
    _pass_on(folder / "progress.json", seen, progress)
    shutil.rmtree(folder)


def _command(job: Job, folder: Path) -> list[str]:
    layout = job.layout
    config = yaml.safe_load(Path(layout.config or "").read_text(encoding="utf-8"))
    deepspeed = config.get("deepspeed_config") or {}
    if "deepspeed_config_file" in deepspeed:  # accelerate would look for it in the current folder
        deepspeed["deepspeed_config_file"] = str(Path(layout.config or "").parent / deepspeed["deepspeed_config_file"])
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = {
        "config_file": str(folder / "accelerate.yaml"),
        "num_processes": layout.processes,
        "num_machines": layout.machines,
        "mixed_precision": "bf16" if job.dtype == "bfloat16" else "no",
        "main_process_port": 0,  # a free one, so that two trainings on a machine do not meet
    }
    prefix: list[str] = []
    if layout.machines > 1:
        prefix, arguments["main_process_ip"], arguments["main_process_port"] = _starter(layout.machines)
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    rank = [str(Path(__file__).with_name("ranks.py"))] if _copied(job) else ["-m", "w2s_align.training.ranks"]
    return [*prefix, sys.executable, "-m", "w2s_align.training.ranks", "launch", *options, *rank, str(folder)]


def _starter(machines: int) -> tuple[list[str], str, int]:
    """Return the command that starts another one on every machine, and where the first machine is reached."""
    if STARTER in os.environ:
        return shlex.split(os.environ[STARTER]), os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if shutil.which("srun") is None:
        raise UserError(
            f"{machines} machines are asked for, and there is no srun to start processes on them.",
            "This is no job of Slurm.",
            "Launch the recipe on a cluster (w2s launch slurm, w2s launch ray), or call train_dpo(...) from a script "
            "of your own under torchrun or accelerate launch on every machine.",
        )
    port = 20_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10_000
    srun = ["srun", f"--nodes={machines}", f"--ntasks={machines}", "--ntasks-per-node=1"]
    return srun, socket.gethostname(), port


def _environment(job: Job) -> dict[str, str]:
    share = job.layout.processes // job.layout.machines
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    environment = {"OMP_NUM_THREADS": str(max(1, threads // share)), "TOKENIZERS_PARALLELISM": "false"}
    if on_cpu(job.resources):
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    if _copied(job):
        environment |= {"PET_START_METHOD": "fork", "PET_RUN_PATH": "1"}  # --start-method, --run-path of torchrun
    return os.environ | environment


def _copied(job: Job) -> bool:
    """Say whether the ranks are copies of the launcher, which imports the libraries once for all of them.

    Imports are most of a short training on few cores. The driver of a GPU would not survive the copying.
    """
    return sys.platform == "linux" and on_cpu(job.resources)


def _pass_on(file: Path, seen: Any, progress: Callable[[int, int, str], None] | None) -> Any:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return seen
    if progress and found != seen:
        progress(*found)
    return found


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(folder: Path, processes: int, code: int) -> UserError:
    """Return one error for what went wrong in the process that failed first."""
    found = sorted((json.loads(f.read_text()) for f in folder.glob("error-*.json")), key=lambda e: float(e["time"]))
    if found and "problems" in found[0]:
        return UserError.from_json(found[0]["problems"])
    if found:
        rank, cause = found[0]["rank"], found[0]["cause"]
    else:  # killed: then the launcher is the one who knows
        said = (folder / "launcher.log").read_text(errors="replace")
        first = said[said.rfind("Root Cause") :]
        ranks, codes = re.findall(r"rank\s*: (\d+)", first), re.findall(r"exitcode\s*: (-?\d+)", first)
        rank, code = int(ranks[0]) if ranks else 0, int(codes[0]) if codes else code
        cause = f"it ended with exit code {code}"
    log = folder / f"rank-{rank}.log"
    source = log if log.is_file() and log.stat().st_size else folder / "launcher.log"
    tail = "\n".join(source.read_text(errors="replace").splitlines()[-TAIL:])
    memory = code == -9 or "out of memory" in cause.lower()
    fix = "Lower micro_batch_size, or share the weights among more processes (zero2, zero3)." if memory else ""
    return UserError(
        f"Process {rank} of {processes} failed: {cause}.",
        f"Its last lines:\n{tail}\n",
        f"{fix} The whole log: {source}. Run again to go on from the last checkpoint.".strip(),
    )
