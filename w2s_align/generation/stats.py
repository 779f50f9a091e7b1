"""Running statistics of a generation: what happened to which prompt, how long it took, and what was retried.

They are kept as notes in the journal, so that they survive a restart.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeAlias

from w2s_align.generation.engines.base import Completion
from w2s_align.generation.journal import Journal

PROGRESS_SECONDS = 0.5
"""Time between two calls of ``progress``: smooth for a person, and nothing next to the work."""
CLOCK_SECONDS = 1.0
"""Time between two notes of the time spent: what a kill may leave out."""
SILENCE_SECONDS = 15.0
"""After this long without a response, the progress line says so: long responses take seconds, a hang lasts."""
COPIED_AT_ONCE = 2_000
"""Rows in memory while one journal is copied into another."""

PromptEvent: TypeAlias = Literal["dropped", "cut", "unknown_tokens"]
PROMPT_EVENTS: tuple[PromptEvent, ...] = ("dropped", "cut", "unknown_tokens")
"""What can happen to a prompt: it is too long and dropped, or shortened; its characters are not in the vocabulary."""
Progress: TypeAlias = Callable[[int, int, str], None]
"""``progress(done, total, note)``: finished and requested responses, and a few words such as the tokens per second."""


def part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Return what reports one of several generations as a part of all of them, as large as the others.

    Args:
        progress: Where the whole is reported.
        number: Which part it is, from 0.
        parts: How many there are.
    """
    if progress is None:
        return None

    def report(done: int, total: int, note: str = "") -> None:
        progress(number * total + done, parts * total, note)

    return report


class Stats:
    """Notes of a job, those of earlier attempts included.

    Args:
        journal: Where they are kept.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._prompts: dict[PromptEvent, dict[str, None]] = {event: {} for event in PROMPT_EVENTS}
        for key in journal.notes:
            event, _, prompt_id = key.partition("/")
            if event in PROMPT_EVENTS:
                self._prompts[event][prompt_id] = None

    def note(self, key: str, **values: Any) -> None:
        """Keep the latest state of something."""
        self._journal.note(key, **values)

    def last(self, key: str) -> dict[str, Any]:
        """Return the latest note of a key; empty when there is none."""
        return self._journal.notes.get(key, {})

    def note_prompt(self, event: PromptEvent, prompt_id: str, tokens: int) -> None:
        """Note, once, that something happened to a prompt.

        Args:
            event: What happened.
            prompt_id: Id of the prompt.
            tokens: Its length in tokens.
        """
        if prompt_id not in self._prompts[event]:
            self._prompts[event][prompt_id] = None
            self._journal.note(f"{event}/{prompt_id}", tokens=tokens)

    def prompts(self, event: PromptEvent) -> list[str]:
        """Return the ids of the prompts to which something happened, in the order in which it was noted."""
        return list(self._prompts[event])

    def count(self, event: PromptEvent) -> int:
        """Return the number of prompts to which something happened."""
        return len(self._prompts[event])

    def is_dropped(self, prompt_id: str) -> bool:
        """Return whether a prompt was dropped."""
        return prompt_id in self._prompts["dropped"]

    def take_note(self, entry: dict[str, Any]) -> None:
        """Copy from another journal's note what happened to a prompt; all other notes are ignored."""
        event, _, prompt_id = str(entry.get("note")).partition("/")
        for known in PROMPT_EVENTS:
            if event == known:
                self.note_prompt(known, prompt_id, entry["tokens"])

    def copy_journal(self, path: Path) -> dict[str, dict[str, Any]]:
        """Copy the responses of another journal of the same job, and what happened to its prompts.

        Returns:
            All notes of the other journal.

        Raises:
            UserError: A process still writes it, or it belongs to another job.
        """
        own = self._journal
        with closing(Journal(path, own.job, own.rows, required=own.required)) as other:
            missing = ((entry.pop("row"), entry) for entry in other.entries() if not own.has(entry["row"]))
            while some := list(itertools.islice(missing, COPIED_AT_ONCE)):
                own.append(some)
            for key, values in other.notes.items():
                self.take_note({"note": key, **values})
            return other.notes


class Clock:
    """Counts time, tokens and retries while responses arrive, forces the journal to disk, and reports progress.

    Args:
        journal: Where the responses go.
        stats: Where the time is noted.
        n: Responses per prompt.
        devices: GPUs in use; 0 for a CPU or a server.
        progress: See :data:`Progress`.
    """

    def __init__(self, journal: Journal, stats: Stats, n: int, devices: int, progress: Progress | None) -> None:
        self._journal = journal
        self._stats = stats
        self._n = n
        self._devices = devices
        self._progress = progress
        before = stats.last("clock")
        self._seconds = float(before.get("seconds", 0.0))
        self._device_seconds = float(before.get("device_seconds", 0.0))
        self._retries = Counter[str](before.get("retries", {}))
        self._unknown_finish = Counter[str](before.get("unknown_finish", {}))
        self._start = self._reported = self._noted = self._last_response = time.monotonic()
        self._tokens = self._failed = 0
        self._done_before = journal.done

    def tick(self, completions: Sequence[Completion]) -> None:
        """Count the completions of one engine step, and the time."""
        for completion in completions:
            self._tokens += completion.completion_tokens
            self._failed += completion.error is not None
            self._retries.update(completion.retries)
            if completion.unknown_finish is not None:
                self._unknown_finish[completion.unknown_finish] += 1
        now = time.monotonic()
        if completions:
            self._last_response = now
        if now - self._noted >= CLOCK_SECONDS:
            self._noted = now
            self._note(now)
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            self._report(now)

    def stop(self) -> None:
        """Note and report the final state."""
        now = time.monotonic()
        self._note(now)
        self._report(now)

    def _note(self, now: float) -> None:
        worked = now - self._start
        self._stats.note(
            "clock",
            seconds=round(self._seconds + worked, 3),
            device_seconds=round(self._device_seconds + self._devices * worked, 3),
            retries=dict(self._retries),
            **({"unknown_finish": dict(self._unknown_finish)} if self._unknown_finish else {}),
        )
        self._journal.sync()

    def _report(self, now: float) -> None:
        if self._progress is None:
            return
        worked = max(now - self._start, 1e-9)
        dropped = self._stats.count("dropped")
        total = self._journal.requested - dropped * self._n
        done = self._journal.done
        notes = [f"{self._tokens / worked:,.0f} tokens/s"]
        if self._done_before < done < total:
            notes.append(f"{_duration((total - done) * worked / (done - self._done_before))} left")
        counts = {"prompts dropped": dropped, "failed": self._failed, "retries": self._retries.total()}
        notes += [f"{count:,} {what}" for what, count in counts.items() if count]
        if now - self._last_response >= SILENCE_SECONDS:
            notes.append(f"no response for {_duration(now - self._last_response)}")
        self._progress(done, total, ", ".join(notes))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
