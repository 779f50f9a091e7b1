"""vLLM's engine process (on a GPU, vLLM runs in one): end it with this process, and notice when it dies."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from typing import Any


def child_processes() -> list[int]:
    """Return the ids of all processes that this one has started, directly or indirectly."""
    import psutil

    return [process.pid for process in psutil.Process().children(recursive=True)]


def kill_with_this_process(pids: Sequence[int]) -> subprocess.Popen[bytes] | None:
    """Start a shell that waits for the end of this process, however it ends, and then kills the given ones.

    vLLM's engine process does not notice that its parent was killed (vllm 0.32), and would hold the GPU's memory
    forever. The shell's input is a pipe that only this process holds open.

    Returns:
        The shell; None when there is nothing to kill.
    """
    if not pids:
        return None
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -9 "$@" 2>/dev/null', "sh", *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def report_dead_engine(client: Any, closed: threading.Event) -> None:
    """Wait for the death of an engine process, and raise it where outputs are waited for; runs in a thread.

    vLLM notices that its engine process was killed, but its caller waits forever for an output (vllm 0.32,
    ``SyncMPClient.get_output``).

    Args:
        client: vLLM's client of the engine process.
        closed: Set when the engine is closed.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    while not closed.wait(1.0):
        if client.resources.engine_dead:
            client.outputs_queue.put_nowait(EngineDeadError())
            return
