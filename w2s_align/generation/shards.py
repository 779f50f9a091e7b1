"""One generation on several machines that share a folder: each generates a shard, in any order, at any time.

Reads and writes ``<folder>/parts/<number>-of-<count>/`` (see :mod:`w2s_align.shards`), beside the job's own journal:
``journal.jsonl`` and, when it is done, ``finished``. A shard needs no other shard. When all are finished,
:func:`~.generate.generate` collects them and writes the rows that one machine would have written.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from w2s_align.generation.data_parallel import collect_processes
from w2s_align.generation.job import Job
from w2s_align.generation.journal import Journal, finished_rows
from w2s_align.generation.stats import Stats
from w2s_align.shards import FINISHED, PARTS, shard_folder


def shard_rows(job: Job, folder: Path, number: int, count: int) -> list[int]:
    """Return the rows of one shard, without those that any other journal in the folder has already.

    The prompts are dealt to the shards in turn, so that long and short ones are spread.

    Args:
        job: The job.
        folder: The job's folder.
        number: Number of the shard, from 1.
        count: Number of all shards.
    """
    n = job.sampling.n
    finished = bytearray(job.rows)
    own = shard_folder(folder, number, count)
    for path in [folder / "journal.jsonl", *(folder / PARTS).glob("*/journal.jsonl")]:
        if path.exists() and path.parent != own:
            for row in finished_rows(path, job.rows):
                finished[row] = 1
    prompts = range(number - 1, job.prompts.count, count)
    return [row for prompt in prompts for row in range(prompt * n, (prompt + 1) * n) if not finished[row]]


def collect_shards(folder: Path, journal: Journal, stats: Stats) -> None:
    """Move the responses of all shards into the journal, finished or not; logs of the shards stay in their folders.

    Args:
        folder: The job's folder.
        journal: Where the responses go.
        stats: Where times, and what happened to prompts, are noted.

    Raises:
        UserError: A shard is still being generated, or the files belong to another job.
    """
    for path in sorted((folder / PARTS).glob("*/journal.jsonl")):
        _add_times(stats, stats.copy_journal(path))
        collect_processes(path.parent, journal, stats)
        journal.sync(now=True)
        path.unlink()
        (path.parent / FINISHED).unlink(missing_ok=True)


def _add_times(stats: Stats, notes: dict[str, dict[str, Any]]) -> None:
    """Add the times of a shard. Shards run side by side: the longest time counts, but device times are summed."""
    for key in ("engine", "clock"):
        if key in notes:
            before, own = stats.last(key), notes[key]
            times: dict[str, Any] = {}
            for name, value in own.items():
                if name.endswith("device_seconds"):
                    times[name] = before.get(name, 0.0) + value
                elif name.endswith("seconds"):
                    times[name] = max(before.get(name, 0.0), value)
            if key == "clock":
                times["retries"] = dict(Counter(before.get("retries", {})) + Counter(own["retries"]))
            stats.note(key, **{**own, **times})
