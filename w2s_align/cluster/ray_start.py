"""Start a command once on each machine of a placement group, as srun does: ``python -m ... GROUP COMMAND...``.

Used by a training on several machines of a Ray cluster (processes.py, STARTER). It runs on the first machine;
NODE_RANK is 0 there and 1, 2, ... on the others. The first exit code that is not 0 ends all of them, and is its own.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from w2s_align.processes import die_with_parent

POLL = 0.3
"""Seconds between two looks at the machines."""
KEPT_LINES = 200
"""Lines of output that are kept of each other machine, to be shown when it fails."""
OWN = (
    "RAY_",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "PATH",
    "LD_LIBRARY_PATH",
)
"""Beginnings of variables that each machine keeps as they are there."""


def main() -> int:
    """Start the command, wait for its end on all machines."""
    die_with_parent()
    import ray
    from ray.util import get_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from w2s_align.cluster.ray_nodes import NAMESPACE

    name, command = sys.argv[1], sys.argv[2:]
    ray.init(address=os.environ["RAY_ADDRESS"], namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    group = get_placement_group(name)
    tasks = []
    for rank, bundle in enumerate(group.bundle_specs):
        if rank:
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            options = {"num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0), "max_retries": 0}
            start = ray.remote(_start_there).options(scheduling_strategy=place, **options)
            tasks.append(start.remote(command, rank, dict(os.environ)))
    own = subprocess.Popen(command, env={**os.environ, "NODE_RANK": "0"})
    try:
        return _wait(own, tasks)
    finally:
        if own.poll() is None:
            own.kill()
        own.wait()
        for task in tasks:
            with contextlib.suppress(Exception):
                ray.cancel(task, force=True)


def _wait(own: subprocess.Popen[bytes], tasks: list[Any]) -> int:
    import ray

    tasks = list(tasks)
    while tasks or own.poll() is None:
        done, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=POLL) if tasks else ([], [])
        for task in done:
            code, said = ray.get(task)
            if code:
                print(said, file=sys.stderr, flush=True)
                return int(code)
        if own.poll():
            return int(own.returncode)
        if not tasks:
            time.sleep(POLL)
    return int(own.returncode)


def _start_there(command: Sequence[str], rank: int, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run the command on the machine of this Ray task; return its exit code and its last lines."""
    there = {name: value for name, value in os.environ.items() if name.startswith(OWN)}
    given = {name: value for name, value in environment.items() if not name.startswith(OWN)}
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        there["CUDA_VISIBLE_DEVICES"] = ""  # a training that was told to stay on the CPU
    process = subprocess.Popen(
        list(command),
        env={**given, **there, "NODE_RANK": str(rank)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    last = collections.deque(process.stdout, maxlen=KEPT_LINES)
    return process.wait(), "".join(last)


if __name__ == "__main__":
    sys.exit(main())
