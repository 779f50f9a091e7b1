"""The names of lm-eval's tasks, looked up without loading them: before anything runs, a wrong one is refused.

lm-eval's own index parses some ten thousand files, which takes many seconds. The names stand in these files as text,
so that a known one is found at once; lm-eval is asked only about one that is not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from w2s_align.errors import UserError

_NAME = re.compile(
    rb"^\s*-?\s*[\"']?(?:task|group|tag)[\"']?:\s*[\"']?([\w.-]+)|^\s*-\s+[\"']?([\w.-]+)[\"']?\s*$", re.MULTILINE
)
"""A name after its key, or an entry of a list of names."""
NEAREST = 5
"""Names that are proposed."""


def check_lm_eval_task(task: str, include_path: str | None = None) -> None:
    """Refuse a task that lm-eval does not have; without lm-eval on this machine, nobody can tell.

    Args:
        task: Name of a task, group or tag.
        include_path: Folder with task files of the user's own.

    Raises:
        UserError: With the nearest names.
    """
    package = find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        return
    folders = [Path(package.submodule_search_locations[0]) / "tasks"]
    if include_path is not None:
        folders.insert(0, Path(include_path).expanduser())
    known: set[str] = set()
    for path in _files(folders, task):
        names = {(a or b).decode() for a, b in _NAME.findall(path.read_bytes())}
        if task in names:
            return
        known |= names
    from lm_eval.tasks import TaskManager

    if task in TaskManager(include_path=include_path).all_tasks:  # one that is named in another way
        return
    near = difflib.get_close_matches(task, sorted(known), n=NEAREST, cutoff=0.5)
    said = f"Nearest: {', '.join(near)}. " if near else ""
    raise UserError(f"lm-eval has no task {task}.", fix=f"{said}All of them: lm_eval ls tasks")


def _files(folders: list[Path], task: str) -> Iterator[Path]:
    """Yield the task files, those first whose folder or file is called like the task."""
    start = re.split(r"[_-]", task)[0].casefold()
    for folder in folders:
        likely = {path for near in folder.glob(f"{start}*") for path in [near, *near.rglob("*.yaml")]}
        yield from sorted(path for path in likely if path.suffix == ".yaml")
        yield from (path for path in sorted(folder.rglob("*.yaml")) if path not in likely)
