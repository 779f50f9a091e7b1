"""What a step is doing right now, for whoever looks into the folder of the runs, from any machine.

<artifact>.partial/status.json                    host, process, since when, progress; and what ended the last try
<artifact>.partial/parts/2-of-4/status.json       the same of one machine's shard (shards.py)

Written by the process that makes the artifact, gone when it is made. Whether that process still lives is not in the
file but in its lock, which the system frees (store.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.files import write_json
from w2s_align.shards import shards_begun

FILE = "status.json"
WRITE_EVERY = 2.0
"""Seconds between two times that progress is written."""
TAIL = 4096
"""Bytes of a log in which its last line is looked for."""


class Status:
    """The status of a step that this process is at.

    Args:
        folder: Where the step writes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._values: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        self._written = 0.0

    def progress(self, done: int, total: int, note: str) -> None:
        """Write how far the step is, now and then; what cannot be written is no reason to stop the step."""
        if time.monotonic() - self._written >= WRITE_EVERY:
            with contextlib.suppress(OSError):
                self._write(done=done, total=total, note=note)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the file while the step works; after an error it stays and says what went wrong."""
        self._write()
        try:
            yield
        except Exception as error:
            problem = error.problems[0].what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # on a full disk
                self._write(error=problem)
            raise
        self._path.unlink(missing_ok=True)

    def _write(self, **values: Any) -> None:
        self._values |= values
        self._written = time.monotonic()
        write_json(self._path, self._values)


@dataclass(frozen=True)
class Now:
    """What became of an artifact up to now.

    Attributes:
        state: ``done``; ``running``: a process holds it; ``failed``; ``stopped``: its process was killed, and the next
            one resumes; ``waiting``: nobody has started.
        done: Progress, in units of the step.
        total: Progress, in units of the step; 0 when it is not known.
        note: Progress in words, or what went wrong.
        hosts: Machines that are, or were, at it.
        since: When the first of them began, seconds since 1970.
        log: Its log, where there is one.
    """

    state: Literal["done", "running", "failed", "stopped", "waiting"]
    done: int = 0
    total: int = 0
    note: str = ""
    hosts: tuple[str, ...] = ()
    since: float | None = None
    log: Path | None = None

    @property
    def last_line(self) -> str:
        """The last line of the log."""
        if self.log is None or not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL))
            lines = re.split(r"[\r\n]+", file.read().decode("utf-8", "replace").strip())
        return lines[-1].strip()


def now(store: Store, kind: str, key: str) -> Now:
    """Return what a step is doing, as far as its files and locks tell."""
    if store.find(kind, key) is not None:
        return Now("done")
    folder = store.partial(kind, key)
    if not folder.exists():
        return Now("waiting")
    if (folder / FILE).exists() or store.is_held(kind, key):
        return _read(folder, store.is_held(kind, key))
    finished = shards_begun(folder)
    shards = {path: _read(path, store.is_held(kind, f"{key}-{path.name}")) for path in finished}
    if not shards:
        return Now("stopped")
    begun = [shard for shard in shards.values() if shard.hosts]
    order = ("failed", "running", "stopped")
    states = [shard.state for shard in begun]
    state: Any = next((s for s in order if s in states), "stopped")
    of = max(int(path.name.rpartition("-")[2]) for path in shards)
    notes = [shard.note for shard in begun if shard.state == state and shard.note]
    latest = max(begun, key=lambda shard: shard.since or 0, default=None)
    return Now(
        state,
        sum(shard.done for shard in begun),
        sum(shard.total for shard in begun),
        ", ".join([f"{sum(finished.values())} of {of} shards finished", *notes[:1]]),
        tuple(dict.fromkeys(host for shard in begun for host in shard.hosts)),
        min((shard.since for shard in begun if shard.since), default=None),
        latest.log if latest else None,
    )


def _read(folder: Path, held: bool) -> Now:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return Now("running" if held else "stopped", log=folder / "log.txt")
    state: Any = "running" if held else "failed" if "error" in found else "stopped"
    return Now(
        state,
        found.get("done", 0),
        found.get("total", 0),
        found["error"] if state == "failed" else found.get("note", "") if state == "running" else "",
        (found["host"],),
        found["since"],
        folder / "log.txt",
    )
