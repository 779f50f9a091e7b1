"""One generation on several machines that share a folder: each makes a part of the answers, in any order, at any time.

Reads and writes ``<folder>/parts/<number>-of-<count>/``, beside the job's own journal: ``journal.jsonl`` and, when it
is done, ``finished``. A part needs no other part. When all are finished, :func:`~.generate.generate` takes their
answers and ends with the rows that one machine would have written.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from w2s_align.generation.data_parallel import collect_shards, copy_answers
from w2s_align.generation.engines import EngineCache
from w2s_align.generation.job import SHARDS, Job
from w2s_align.generation.journal import Journal, disk_errors, finished_rows
from w2s_align.generation.settings import EngineResources
from w2s_align.generation.stats import Account, Progress
from w2s_align.shards import FINISHED, PARTS, shard_folder


def make_part(
    job: Job,
    folder: Path,
    number: int,
    count: int,
    engines: EngineCache,
    resources: EngineResources,
    progress: Progress | None,
) -> None:
    """Make the answers of one part that nobody has made yet."""
    mine = shard_folder(folder, number, count)
    with closing(Journal(mine / "journal.jsonl", job.identity, job.answers, _rows(job, folder, number, count))) as own:
        job.complete(own, Account(own), engines, resources, progress)
    with disk_errors(mine):
        (mine / FINISHED).touch()


def collect_parts(folder: Path, job: Job, journal: Journal, account: Account) -> None:
    """Move the answers of all parts into the journal, finished or not; what the parts printed stays in their folders.

    Raises:
        UserError: A part is still at work, or the files are those of another job.
    """
    for path in sorted((folder / PARTS).glob("*/journal.jsonl")):
        _add_times(account, copy_answers(path, job, journal, account))
        if (path.parent / SHARDS).exists():
            collect_shards(path.parent, job, journal, account)
        journal.sync(now=True)
        path.unlink()
        (path.parent / FINISHED).unlink(missing_ok=True)


def _rows(job: Job, folder: Path, number: int, count: int) -> list[int]:
    """Deal the prompts to the parts in turn; leave out what an earlier attempt has in a journal other than this."""
    n = job.sampling.n
    finished = bytearray(job.answers)
    mine = shard_folder(folder, number, count)
    for path in [folder / "journal.jsonl", *(folder / PARTS).glob("*/journal.jsonl")]:
        if path.exists() and path.parent != mine:
            for row in finished_rows(path):
                finished[row] = 1
    prompts = range(number - 1, job.prompts.count, count)
    return [row for prompt in prompts for row in range(prompt * n, (prompt + 1) * n) if not finished[row]]


def _add_times(account: Account, notes: dict[str, dict[str, Any]]) -> None:
    """Add up what parts took: they worked side by side, so the longest counts, but of devices the sum."""
    for key in ("engine", "clock"):
        if key in notes:
            before, part = account.last(key), notes[key]
            times: dict[str, Any] = {}
            for name, value in part.items():
                if name.endswith("device_seconds"):
                    times[name] = before.get(name, 0.0) + value
                elif name.endswith("seconds"):
                    times[name] = max(before.get(name, 0.0), value)
            if key == "clock":
                times["retries"] = dict(Counter(before.get("retries", {})) + Counter(part["retries"]))
            account.note(key, **{**part, **times})
