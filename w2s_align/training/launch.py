"""Starts the processes that train together, passes their progress on, and turns their failures into one error.

Writes ``<out>/launch/``: the plan, one log per process, progress and errors; it is removed when all went well. The
processes are started by accelerate's own launcher (on several machines by srun, or STARTER, around it) and run
ranks.py. Which processes they are is decided in layout.py. No model is loaded here.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from w2s_align.errors import UserError
from w2s_align.processes import STARTER
from w2s_align.training.layout import on_cpu

if TYPE_CHECKING:
    from w2s_align.training.plan import TrainingPlan

TAIL = 15
"""Lines of a failed process's log that reach the user: a traceback's end, on one screen."""
POLL = 0.3
"""Seconds between two looks at the processes' progress: short against a step, and no load on the machine."""


def launch_ranks(plan: TrainingPlan, progress: Callable[[int, int, str], None] | None) -> None:
    """Start the processes of a plan, pass their progress on, and wait for their end.

    All of them end when this process ends, however it ends.

    Raises:
        UserError: What a process refused, or what the first one that failed said last.
    """
    folder = (plan.out / "launch").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan.save(folder / "plan.json")
    seen: Any = None
    command = _command(plan, folder)
    with (folder / "launcher.log").open("wb") as log:
        process = subprocess.Popen(command, env=_environment(plan), stdout=log, stderr=log)
        try:
            while process.poll() is None:
                time.sleep(POLL)
                seen = _report_progress(folder / "progress.json", seen, progress)
        finally:
            _end(process)
    if process.returncode:
        raise _failure(folder, plan.layout.processes, process.returncode)
    _report_progress(folder / "progress.json", seen, progress)
    shutil.rmtree(folder)


def _command(plan: TrainingPlan, folder: Path) -> list[str]:
    layout = plan.layout
    config = yaml.safe_load(Path(layout.config or "").read_text(encoding="utf-8"))
    deepspeed = config.get("deepspeed_config") or {}
    if "deepspeed_config_file" in deepspeed:  # accelerate would look for it in the current folder
        deepspeed["deepspeed_config_file"] = str(Path(layout.config or "").parent / deepspeed["deepspeed_config_file"])
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = {
        "config_file": str(folder / "accelerate.yaml"),
        "num_processes": layout.processes,
        "num_machines": layout.machines,
        "mixed_precision": "bf16" if plan.dtype == "bfloat16" else "no",
        "main_process_port": 0,  # a free one, so that two trainings on a machine do not meet
    }
    prefix: list[str] = []
    if layout.machines > 1:
        prefix, arguments["main_process_ip"], arguments["main_process_port"] = _starter(layout.machines)
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    rank = [str(Path(__file__).with_name("ranks.py"))] if _forked(plan) else ["-m", "w2s_align.training.ranks"]
    return [*prefix, sys.executable, "-m", "w2s_align.training.ranks", "launch", *options, *rank, str(folder)]


def _starter(machines: int) -> tuple[list[str], str, int]:
    """Return the command that starts another one on every machine, and where the first machine is reached."""
    if STARTER in os.environ:
        return shlex.split(os.environ[STARTER]), os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if shutil.which("srun") is None:
        raise UserError(
            f"{machines} machines are asked for, and there is no srun to start processes on them.",
            "Not running inside a Slurm job.",
            "Launch the recipe on a cluster (w2s launch slurm, w2s launch ray), or call train(...) from a script "
            "of your own under torchrun or accelerate launch on every machine.",
        )
    port = 20_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10_000
    srun = ["srun", f"--nodes={machines}", f"--ntasks={machines}", "--ntasks-per-node=1"]
    return srun, socket.gethostname(), port


def _environment(plan: TrainingPlan) -> dict[str, str]:
    share = plan.layout.processes // plan.layout.machines
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    environment = {"OMP_NUM_THREADS": str(max(1, threads // share)), "TOKENIZERS_PARALLELISM": "false"}
    if on_cpu(plan.resources):
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    if _forked(plan):
        environment |= {"PET_START_METHOD": "fork", "PET_RUN_PATH": "1"}  # --start-method, --run-path of torchrun
    return os.environ | environment


def _forked(plan: TrainingPlan) -> bool:
    """Say whether the ranks are copies of the launcher, which imports the libraries once for all of them.

    Imports are most of a short training on few cores. The driver of a GPU would not survive the copying.
    """
    return sys.platform == "linux" and on_cpu(plan.resources)


def _report_progress(file: Path, seen: Any, progress: Callable[[int, int, str], None] | None) -> Any:
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
