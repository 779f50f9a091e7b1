"""Processes that work for another one: they must not outlive it, and find it by environment variables.

Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "W2S_PARENT"
"""Environment variable in which a parent tells its process id to a child."""
STARTER = "W2S_STARTER"
"""Environment variable: a command that starts its arguments once on each of NNODES machines, with NODE_RANK set to 0,
1, ..., as srun does with SLURM_NODEID. It comes with MASTER_ADDR and MASTER_PORT, where the first one is reached."""


def die_with_parent() -> None:
    """End this process when its parent dies, however it dies, so that no orphan goes on writing.

    Linux is asked for a SIGKILL at that moment; elsewhere a thread looks every second. A parent that was gone before
    this call is noticed when it has told its process id (:data:`PARENT`).
    """
    parent = int(os.environ.pop(PARENT, os.getppid()))  # not for children of its own
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
