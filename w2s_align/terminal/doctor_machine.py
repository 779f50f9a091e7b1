"""What `w2s doctor` says of the machine: cores, memory, GPUs and their driver, compilers, disk, locks.

Reads /proc, /sys and what nvidia-smi says; starts nothing on a GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from w2s_align.files import installed_version
from w2s_align.machine import this_machine

Level = Literal["ok", "note", "problem"]
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``, ``note`` (works, but you may want to know) or ``problem``.
        what: What was looked at, and what was found.
        fix: What to do about it.
    """

    level: Level
    what: str
    fix: str = ""


def examine_machine(runs_dir: Path) -> list[Finding]:
    """Return what there is to say about the machine itself."""
    return [_memory(), *_gpus(), *_shared_memory(Path("/dev/shm")), _disk(runs_dir), *_locks(runs_dir)]


def _memory() -> Finding:
    cpus = this_machine().cpus
    whole, free, container = memory_gib()
    where = " that this container may use" if container else ""
    said = f"{cpus} CPU cores, {whole:.0f} GiB of memory{where}, {free:.0f} GiB of it free"
    if free < 4:
        return Finding("problem", said, "The quickstart takes about 4 GiB: end other programs first.")
    return Finding("ok", said)


def memory_gib() -> tuple[float, float, bool]:
    """Return the memory that there is, what programs can still get of it, and whether a container limits both."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    free = whole
    if (lines := _text("/proc/meminfo")) is not None:  # Linux counts caches as free here; other systems do not say
        found = re.search(r"MemAvailable:\s*(\d+)", lines)
        free = int(found[1]) * 1024 / GIB if found else whole
    limit = _number("/sys/fs/cgroup/memory.max") or _number("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    used = _number("/sys/fs/cgroup/memory.current") or _number("/sys/fs/cgroup/memory/memory.usage_in_bytes")
    if limit is None or limit / GIB >= whole:
        return whole, free, False
    return limit / GIB, max(0.0, min(free, (limit - (used or 0)) / GIB)), True


def _gpus() -> list[Finding]:
    if shutil.which("nvidia-smi") is not None:
        query = "--query-gpu=name,memory.total,memory.used,driver_version"
        listing = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=False
        )
        if listing.returncode:
            said = (listing.stdout + listing.stderr).strip().splitlines() or ["it says nothing"]
            fix = "After an update of the driver a restart of the machine helps; else install the driver again."
            return [Finding("problem", f"nvidia-smi fails: {said[0]}", fix)]
        if this_machine().gpus:
            return [*map(_gpu, listing.stdout.splitlines()), *_cuda(), *_compilers()]
        if listing.stdout.strip():
            fix = "unset CUDA_VISIBLE_DEVICES, or give it the numbers of GPUs."
            return [Finding("note", "CUDA_VISIBLE_DEVICES hides all GPUs of this machine", fix)]
    return [Finding("note", "no GPU: lab recipes and small models run, billions of parameters do not")]


def _gpu(line: str) -> Finding:
    name, total, used, driver = (part.strip() for part in line.split(","))
    said = f"GPU: {name}, {total}, driver {driver}"
    share = float(used.split()[0]) / max(float(total.split()[0]), 1.0)
    if share > 0.1:
        fix = "nvidia-smi lists the programs; vLLM needs resources.gpu_memory_utilization of it to be free."
        return Finding("note", f"{said}; {used} of it in use by other programs", fix)
    return Finding("ok", said)


def _cuda() -> list[Finding]:
    """Say whether torch is a build for GPUs, and whether the driver is new enough for it."""
    torch = installed_version("torch") or ""
    if "+cpu" in torch:
        fix = "pip uninstall -y torch && pip install 'w2s-align[cuda]'"
        return [Finding("problem", f"torch {torch} is a build for the CPU: the GPUs are not used", fix)]
    said = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    driver = re.search(r"CUDA Version: (\d+)\.(\d+)", said)
    built = installed_version("nvidia-cuda-runtime") or installed_version("nvidia-cuda-runtime-cu12")
    if driver is None or built is None:
        return []
    if int(built.split(".")[0]) > int(driver[1]):
        return [
            Finding(
                "problem",
                f"torch {torch} is built for CUDA {built}, the driver knows CUDA up to {driver[1]}.{driver[2]}",
                "Update the NVIDIA driver, or install a torch built for its CUDA version.",
            )
        ]
    return [Finding("ok", f"the driver (CUDA {driver[1]}.{driver[2]}) fits torch {torch} (CUDA {built})")]


def _compilers() -> list[Finding]:
    """Say what compiles on a GPU machine: Triton, which vLLM uses, its launchers; DeepSpeed its own optimiser."""
    findings = []
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if shutil.which(os.environ.get("CC", "gcc")) is None and shutil.which("clang") is None:
        fix = "apt-get install build-essential, or load your cluster's module of gcc."
        findings.append(Finding("problem", "no C compiler: vLLM's kernels (Triton) need one when they start", fix))
    elif not headers.exists():
        fix = "apt-get install python3-dev, or an environment whose Python brings its headers (uv, conda)."
        findings.append(Finding("problem", f"{headers} is not there: vLLM's kernels (Triton) need it", fix))
    else:
        findings.append(Finding("ok", "a C compiler and Python's headers, which vLLM's kernels need"))
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    if installed_version("deepspeed") and shutil.which("nvcc") is None and not Path(home, "bin", "nvcc").exists():
        fix = "Install the CUDA toolkit of torch's CUDA version and set CUDA_HOME, or use launch: zero3."
        findings.append(Finding("note", "no nvcc: DeepSpeed compiles with it for launch: zero3_offload", fix))
    return findings


def _shared_memory(folder: Path) -> list[Finding]:
    """Say whether processes have room to exchange data: containers have 64 MiB unless they are told otherwise."""
    if not folder.is_dir():
        return []
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / GIB:.1f} GiB free in {folder}"
    if usage.free >= GIB:
        return [Finding("ok", said)]
    level: Level = "problem" if this_machine().gpus else "note"
    fix = "docker run --shm-size=16g (or --ipc=host); Kubernetes: an emptyDir of medium Memory at /dev/shm."
    return [Finding(level, f"{said}: several GPUs (NCCL) and Ray exchange data there", fix)]


def _disk(runs_dir: Path) -> Finding:
    folder = _existing(runs_dir)
    free = shutil.disk_usage(folder).free / GIB
    if not os.access(folder, os.W_OK):
        return Finding("problem", f"{folder} cannot be written", "Give a folder of your own with --runs-dir.")
    if free < 5:
        return Finding("problem", f"{free:.1f} GiB free for {runs_dir}", "Free some space, or use --runs-dir.")
    return Finding("ok", f"{free:.0f} GiB free for {runs_dir}")


def _locks(runs_dir: Path) -> list[Finding]:
    """Say whether machines that share the folder of the runs see each other's locks (store.py)."""
    folder = str(_existing(runs_dir).resolve())
    mounts = [line.split() for line in (_text("/proc/mounts") or "").splitlines()]
    over = [m for m in mounts if len(m) > 3 and (f"{folder}/").startswith(m[1].rstrip("/") + "/")]
    if not over:
        return []
    _, point, kind, options, *_ = max(over, key=lambda m: len(m[1]))
    given = set(options.split(","))
    if kind not in ("nfs", "nfs4", "lustre"):
        return []
    alone = given & {"nolock", "local_lock=all", "local_lock=flock", "localflock", "noflock"}
    if alone or (kind == "lustre" and "flock" not in given):
        how = f"mounted with {', '.join(sorted(alone))}" if alone else "mounted without flock"
        fix = "Let it be mounted with locks (Lustre: flock; NFS: without nolock), or use one machine only."
        return [Finding("problem", f"{point} ({kind}) is {how}: machines do not see each other's locks", fix)]
    return [Finding("ok", f"{point} ({kind}) passes locks on between machines")]


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.isdecimal() else None
