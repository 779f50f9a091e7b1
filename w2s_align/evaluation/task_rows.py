"""The rows of a benchmark: from the hub, or from a mirror folder with the files of the hub under the same names.

    <data_dir>/openai/gsm8k/main/test-00000-of-00001.parquet

is what ``hf download openai/gsm8k --repo-type dataset --local-dir <data_dir>/openai/gsm8k`` writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from w2s_align.errors import UserError
from w2s_align.evaluation.task import TaskData

DATA_DIR = "W2S_DATA_DIR"
"""Environment variable that names the mirror folder where the recipe does not."""
ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
"""Endings of a mirror's files, in the order in which they are looked for."""


class Source(Protocol):
    """What has rows: a task, or a format of items."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    @property
    def data(self) -> TaskData:
        """Where its rows are."""


def mirror_folder(data_dir: str | None) -> Path | None:
    """Return the mirror folder that is used: the one given, or the one of the environment."""
    given = data_dir or os.environ.get(DATA_DIR)
    return Path(given).expanduser() if given else None


def mirror_files(task: Source, split: str, config: str | None, folder: Path) -> list[Path]:
    """Return the files of a split in a mirror folder, the first of the usual layouts that is there.

    Args:
        task: The task.
        split: Split of its dataset.
        config: Configuration of its dataset.
        folder: The mirror folder.

    Raises:
        UserError: There are none, with how to get them.
    """
    repo = task.data.repo or ""
    root = folder / repo
    named = task.data.files.get(split)
    patterns = [named] if named else []
    for place in ([f"{config}/", f"data/{config}/", f"{config}-"] if config else []) + ["data/", ""]:
        patterns += [f"{place}{split}-*.parquet", *(f"{place}{split}{ending}" for ending in ENDINGS)]
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found
    here = "is empty or not there" if not root.is_dir() or not any(root.iterdir()) else "has no such file"
    raise UserError(
        f"The task {task.name} finds no data: {root} {here} (split {split}{f', config {config}' if config else ''}).",
        fix=f"Get it where there is a network: {download_command(repo, folder)}",
    )


def download_command(repo: str, folder: Path | str) -> str:
    """Return the command that puts a dataset into a mirror folder."""
    return f"hf download {repo} --repo-type dataset --local-dir {Path(folder) / repo}"


def task_rows(task: Source, split: str, data_dir: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split; with several configurations each row says its own as ``config``.

    Args:
        task: The task.
        split: Split of its dataset.
        data_dir: Mirror folder; by default the one of the environment, else the hub.

    Raises:
        UserError: The data are not there, with how to get them.
    """
    for config in list[str | None](task.data.configs) or [task.data.config]:
        rows = _rows(task, split, config, data_dir)
        yield from ({**row, "config": config} for row in rows) if task.data.configs else rows


def _rows(task: Source, split: str, config: str | None, data_dir: str | None) -> Iterator[dict[str, Any]]:
    if task.data.source is not None:
        yield from _whole(Path(task.data.source).expanduser())
        return
    folder = mirror_folder(data_dir)
    if folder is not None:
        for path in mirror_files(task, split, config, folder):
            yield from _whole(path)
        return
    from w2s_align.interchange.readers import hub_dataset

    files = {split: task.data.files[split]} if split in task.data.files else None
    repo = task.data.repo or ""
    fix = (
        "On a machine without a network, give a mirror folder: data_dir: DATA (or --data-dir DATA), filled by "
        f"{download_command(repo, 'DATA')}."
    )
    yield from hub_dataset(repo, None if files else config, split, data_files=files, fix=fix)


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, all of which must be there: a benchmark with a hole is another benchmark."""
    from w2s_align.interchange.readers import Broken, file_rows

    for number, row in enumerate(file_rows(path)):
        if isinstance(row, Broken):
            raise UserError(f"{path}: row {number + 1} cannot be read: {row.reason}.", fix="Download the file again.")
        yield row
