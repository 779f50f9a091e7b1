"""Where machines that share a folder make one artifact together: each makes a shard, in any order, at any time.

    <folder>/parts/<number>-of-<count>/            what a shard writes
    <folder>/parts/<number>-of-<count>/finished    it is done

Whatever makes a shard writes the marker; whatever runs steps reads it. Imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

PARTS = "parts"
"""Folder of the shards; the name stays as it is, so that generations that were begun can be continued."""
FINISHED = "finished"
"""Marker file of a shard that is done."""


def shard_folder(folder: Path, number: int, count: int) -> Path:
    """Return where shard ``number`` (1 to ``count``) of the artifact in ``folder`` is made."""
    return folder / PARTS / f"{number}-of-{count}"


def shards_begun(folder: Path) -> dict[Path, bool]:
    """Return the folders of the shards that have been started, and whether each is finished."""
    return {path: (path / FINISHED).exists() for path in sorted((folder / PARTS).glob("*-of-*"))}


def all_finished(folder: Path, count: int) -> bool:
    """Return whether all ``count`` shards are done."""
    return all((shard_folder(folder, number, count) / FINISHED).exists() for number in range(1, count + 1))
