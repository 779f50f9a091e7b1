"""Worked solutions of the lab's problems, as the author of the training data writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from w2s_align.lab import TASKS


def write_solution(task: str, problem: str, forgets: Sequence[bool] = (False, False, False)) -> str:
    """Write the worked solution of one problem, e.g. ``3847+5296``, with upper-case letters.

    Args:
        task: ``lab/addition`` or ``lab/subtraction``.
        problem: The problem.
        forgets: Whether the carry into the tens, the hundreds, the thousands is forgotten, where one is due.
    """
    first, second = (np.array([int(operand)]) for operand in re.split(r"[+-]", problem))
    small = np.zeros((1, 4), dtype=bool)
    characters, _ = TASKS[task].solutions(first, second, np.array([forgets], dtype=bool), small)
    return bytes(characters[0]).rstrip(b"\0").decode("ascii")
