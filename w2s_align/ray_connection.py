"""Connecting to a Ray cluster, for the engine that runs on one and for recipes that are launched on one.

Imports Ray only when it connects.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from w2s_align.errors import UserError


def connect(address: str | None, fix: str, **options: Any) -> bool:
    """Connect to a cluster, or start one on this machine.

    Args:
        address: As ``ray.init`` takes it; by default that of the environment variable RAY_ADDRESS.
        fix: What a user can do when there is no such cluster.
        **options: More for ``ray.init``.

    Returns:
        Whether the connection is the caller's to end.

    Raises:
        UserError: There is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at {address}." if address else "Ray could not start a cluster on this machine.",
            why=str(error).strip().splitlines()[0],
            fix=fix,
        ) from error
    return True


def _knock(address: str | None) -> None:
    """Fail at once when nothing listens at host:port: Ray itself goes on trying for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
