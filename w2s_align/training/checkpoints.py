"""Checkpoints of a training: which one to go on from, and whose they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError

DONE = "complete.json"
"""Marks a checkpoint as whole; a kill may leave one half written."""


def last_checkpoint(folder: Path, processes: int, kind: str = "single") -> tuple[Path | None, dict[str, Any]]:
    """Find the newest whole checkpoint; half-written ones are removed.

    Args:
        folder: Folder of checkpoints.
        processes: Number of processes of this run.
        kind: How they share the work: ``single``, ``ddp``, ``deepspeed`` or ``fsdp``.

    Returns:
        The checkpoint, or None, and what was known at it: ``step``, metric ``rows``, ``alarms``, ...

    Raises:
        UserError: It was made by another number or kind of processes, which optimizer shards do not survive.
    """
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        if (path / DONE).exists():
            whole.append((int(path.name.rsplit("-", 1)[1]), path))
        else:
            shutil.rmtree(path, ignore_errors=True)
    if not whole:
        return None, {"step": 0, "rows": [], "held_out": [], "alarms": [], "moved_share": None, "seconds": 0.0}
    newest = max(whole)[1]
    state = json.loads((newest / DONE).read_text())
    made_by = f"{state['world_size']} processes ({state.get('kind', 'single')})"
    if (state["world_size"], state.get("kind", "single")) != (processes, kind):
        raise UserError(
            f"{newest} was made by {made_by}; there are {processes} ({kind}) now.",
            "Optimizer and random states belong to the processes that made them.",
            f"Go on with {made_by}, or remove {folder} to start again.",
        )
    return newest, state
