"""Waiting for another process without a fixed pause."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], patience: float = 120.0) -> Found:
    """Return what ``look`` returns as soon as it is true; fail the test when nobody can expect it any more."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"nothing came in {patience:.0f} s")
        time.sleep(0.1)
    return found
