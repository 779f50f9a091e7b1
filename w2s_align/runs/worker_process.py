"""A process in which steps run (worker.py), as the process that started it sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from w2s_align.processes import PARENT
from w2s_align.runs.worker import WorkItem

PATIENCE = 10.0
"""Seconds that an idle process has to end by itself: it may have an engine to shut down."""


class WorkerProcess:
    """One worker process, and the node that it is making.

    Args:
        name: Name that steps share when one process may run them in turn, or None for a process of its own.
        cpus: Its cores.
        gpus: Its GPUs, as CUDA_VISIBLE_DEVICES takes them.
    """

    def __init__(self, name: str | None, cpus: int, gpus: tuple[str, ...]) -> None:
        self.name, self.cpus, self.gpus = name, cpus, gpus
        self.node: str | None = None
        self.started = 0.0
        self.buffer = b""
        self.popen = subprocess.Popen(
            [sys.executable, "-c", "from w2s_align.runs.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(cpus, gpus),
            start_new_session=True,  # a Ctrl-C reaches the parent alone, which then stops its workers in order
        )

    def send(self, node: str, item: WorkItem) -> None:
        """Let the process make an artifact.

        Args:
            node: Name of the node in the plan.
            item: What the process is told.
        """
        assert self.popen.stdin is not None
        self.node, self.started = node, time.monotonic()
        self.popen.stdin.write(item.to_line())
        self.popen.stdin.flush()

    def read(self) -> list[dict[str, Any]] | None:
        """Return the events that have come; None when the process has ended."""
        assert self.popen.stdout is not None
        chunk = os.read(self.popen.stdout.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Let the process end by itself; kill it when it does not."""
        assert self.popen.stdin is not None and self.popen.stdout is not None
        self.popen.stdin.close()
        try:
            self.popen.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
        self.popen.stdout.close()

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def _environment(cpus: int, gpus: tuple[str, ...]) -> dict[str, str]:
    threads = str(cpus)
    return (
        os.environ
        | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "RAYON_NUM_THREADS": threads,
            "POLARS_MAX_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",  # datasets' forks hang with it: https://github.com/huggingface/datasets/issues/5094
            "PYTHONUNBUFFERED": "1",
            PARENT: str(os.getpid()),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        }
    )
