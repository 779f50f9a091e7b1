"""The Ray cluster of a launch: connecting to it, its machines, and whether each of them can do the work.

Reads the state of the cluster; asks each machine whether it sees the folder of the runs and has the same packages.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from w2s_align.artifacts.store import Store
from w2s_align.errors import Problem, UserError, missing_package
from w2s_align.files import installed_version
from w2s_align.machine import Machine
from w2s_align.ray_connection import connect
from w2s_align.runs.worker import VERSIONS

NAMESPACE = "w2s"
"""Ray finds named placement groups only within a namespace."""
PATIENCE = 120.0
"""Seconds in which every machine must answer at the beginning."""


def connect_cluster(address: str | None) -> bool:
    """Connect to a cluster.

    Args:
        address: As ``ray.init`` takes it. Default: the environment variable RAY_ADDRESS, else ``auto``.

    Returns:
        Whether the connection is the caller's to end.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    if find_spec("ray") is None:
        raise missing_package("ray", "ray", "w2s launch ray")
    return connect(
        address or os.environ.get("RAY_ADDRESS") or "auto",
        "Use --address (host:port of the head node; auto on one of its machines), or start one: ray start --head. "
        "If it asks for a token, set RAY_AUTH_MODE=token.",
        namespace=NAMESPACE,
    )


def _nodes() -> list[dict[str, Any]]:
    """Return the machines of the cluster that take tasks, as Ray describes them."""
    ray: Any = importlib.import_module("ray")
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def cluster_machines() -> list[Machine]:
    """Return what each machine of the cluster has.

    Raises:
        UserError: None of them takes tasks.
    """
    found = [node["Resources"] for node in _nodes()]
    if not found:
        raise UserError("The Ray cluster has no machine that accepts tasks.", fix="ray start --address=HEAD:6379")
    return [Machine(int(node["CPU"]), tuple(map(str, range(int(node.get("GPU", 0)))))) for node in found]


def check_machines(store: Store) -> None:
    """Ask every machine whether it sees the folder of the runs and has the same packages.

    Raises:
        UserError: With all machines that do not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    store.require_writable()
    probe = store.root / f".ray-{secrets.token_hex(6)}"
    probe.touch()
    try:
        asked = {}
        for node in _nodes():
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(_answer).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            asked[task.remote(str(probe))] = node["NodeManagerHostname"]
        ready, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        problems = [
            Problem(f"{asked[r]} does not respond.", fix="`ray status` shows what it is doing.") for r in silent
        ]
        for reference in ready:
            problems += _check_answer(reference, asked[reference], store.root)
    finally:
        probe.unlink(missing_ok=True)
    if problems:
        raise UserError.all(list(dict.fromkeys(problems)))


def _check_answer(reference: Any, host: str, root: Path) -> list[Problem]:
    import ray

    try:
        sees, versions = ray.get(reference)
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1]
        return [
            Problem(f"{host} cannot run w2s_align.", why, "Install it there with the same package versions as here.")
        ]
    if not sees:
        return [Problem(f"{host} does not see {root}.", fix="--runs-dir must be a folder that all machines share.")]
    own = _versions()
    others = [f"{name} {versions[name]} instead of {own[name]}" for name in own if versions[name] != own[name]]
    if others:
        return [
            Problem(
                f"{host} has {', '.join(others)}.",
                "Artifacts would differ.",
                "Install the same versions on all machines.",
            )
        ]
    return []


def _answer(probe: str) -> tuple[bool, dict[str, str | None]]:
    """Be asked, on some machine of the cluster: whether it sees a file, and its packages."""
    with contextlib.suppress(OSError):
        list(Path(probe).parent.iterdir())  # an NFS client asks the server again
    return Path(probe).exists(), _versions()


def _versions() -> dict[str, str | None]:
    return {name: installed_version(name) for name in VERSIONS}
