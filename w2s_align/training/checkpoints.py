"""Checkpoints of a training: which one to go on from, and whose they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError

BEST = "best.safetensors"
"""Trained weights of the best measurement, in the output folder."""
DONE = "complete.json"
"""Marks a checkpoint as whole; a kill may leave one half written."""


def keep_weights(out: Path, model: Any, step: int) -> None:
    """Write the trained weights of a model as those of the best measurement so far.

    Args:
        out: Output folder of the training.
        model: The model, whole in this process.
        step: After which step it was measured.
    """
    from safetensors.torch import save_file

    trained = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    partial = out / f"{BEST}.partial"
    save_file(trained, partial, metadata={"step": str(step)})
    partial.replace(out / BEST)


def put_back_weights(out: Path, model: Any, step: int) -> bool:
    """Load the weights of the best measurement; say whether they were there.

    Args:
        out: Output folder of the training.
        model: The model.
        step: The step of that measurement.
    """
    import torch
    from safetensors import safe_open

    file = out / BEST
    if not file.is_file():
        return False
    with safe_open(file, "pt") as opened:
        if (opened.metadata() or {}).get("step") != str(step):
            return False
        names = dict(model.named_parameters())
        with torch.no_grad():
            for name in opened.keys():  # noqa: SIM118 - not a dictionary; it cannot be iterated over
                names[name].copy_(opened.get_tensor(name))
    return True


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
