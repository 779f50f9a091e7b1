"""One of several processes that train together. Started by launch.py, never by hand.

Reads ``<folder>/plan.json``; writes ``rank-<n>.log`` (all it prints), ``progress.json`` (the first rank), and
``error-<n>.json`` when it fails. It dies with the process that started it, so that no rank trains on alone.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError
from w2s_align.files import write_json
from w2s_align.processes import STARTER, die_with_parent

IMPORTED = (
    "datasets",
    "peft",
    "transformers.trainer",
    "trl",
    "w2s_align.training.callbacks",
    "w2s_align.training.loop",
)
"""What takes long to import; a launcher whose copies are the ranks does it for all of them."""


def main() -> None:
    """Be accelerate's launcher (``launch ...``), or one of the ranks that it starts (``FOLDER``)."""
    die_with_parent()
    if sys.argv[1] == "launch":
        _launch(sys.argv[2:])
    else:
        _rank(Path(sys.argv[1]))


def _launch(arguments: list[str]) -> None:
    from accelerate.commands.launch import launch_command, launch_command_parser

    if "--main_process_ip" in arguments:
        rank = os.environ["NODE_RANK" if STARTER in os.environ else "SLURM_NODEID"]
        arguments = ["--machine_rank", rank, *arguments]
    if os.environ.get("PET_START_METHOD") == "fork":
        for name in IMPORTED:
            importlib.import_module(name)
    launch_command(launch_command_parser().parse_args(arguments))


def _rank(folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a copy of the launcher has its handler, which no collective hears
    rank = int(os.environ["RANK"])
    with (folder / f"rank-{rank}.log").open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    failed: dict[str, Any]
    try:
        from w2s_align.training.loop import train_here
        from w2s_align.training.methods import all_methods
        from w2s_align.training.plan import TrainingPlan

        _compile_nothing()

        def progress(done: int, total: int, note: str) -> None:
            write_json(folder / "progress.json", [done, total, note], sync=False)

        train_here(TrainingPlan.load(folder / "plan.json", all_methods()), progress if rank == 0 else None)
    except UserError as error:
        failed = {"problems": error.to_json()}
    except BaseException as error:
        traceback.print_exc()
        failed = {"cause": traceback.format_exception_only(error)[0].strip().splitlines()[0]}
    else:
        _leave_group()
        return
    write_json(folder / f"error-{rank}.json", {"rank": rank, "time": time.time(), **failed})
    sys.stderr.flush()
    os._exit(1)  # the others wait in a collective; a tidy end would wait for them


def _compile_nothing() -> None:
    """Keep DeepSpeed on a CPU from compiling collectives of its own: gloo has them, and there may be no compiler."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _leave_group() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
