"""The running account of a generation: what happened to which prompt, how long it took, and what failed on the way.

It is kept as notes in the journal, so that a restart goes on with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from w2s_align.generation.engines.base import Completion
from w2s_align.generation.journal import Journal

PROGRESS_SECONDS = 0.5
CLOCK_SECONDS = 1.0
SILENCE_SECONDS = 15.0

PromptEvent: TypeAlias = Literal["dropped", "cut", "unknown_tokens"]
PROMPT_EVENTS: tuple[PromptEvent, ...] = ("dropped", "cut", "unknown_tokens")
Progress: TypeAlias = Callable[[int, int, str], None]
"""``progress(done, total, note)``: answers finished, answers wanted, and a few words such as the tokens per second."""


class Account:
    """Notes of a job, those of earlier attempts included."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._prompts: dict[PromptEvent, dict[str, None]] = {event: {} for event in PROMPT_EVENTS}
        for key in journal.notes:
            event, _, prompt_id = key.partition("/")
            if event in PROMPT_EVENTS:
                self._prompts[event][prompt_id] = None

    def note(self, key: str, **values: Any) -> None:
        """Keep something that is only of interest in its latest state."""
        self._journal.note(key, **values)

    def last(self, key: str) -> dict[str, Any]:
        """Return the latest note of a key; empty when there is none."""
        return self._journal.notes.get(key, {})

    def prompt(self, event: PromptEvent, prompt_id: str, tokens: int) -> None:
        """Keep, once, that something happened to a prompt of ``tokens`` tokens."""
        if prompt_id not in self._prompts[event]:
            self._prompts[event][prompt_id] = None
            self._journal.note(f"{event}/{prompt_id}", tokens=tokens)

    def prompts(self, event: PromptEvent) -> list[str]:
        """Return the ids of the prompts that something happened to, in the order in which it was noted."""
        return list(self._prompts[event])

    def count(self, event: PromptEvent) -> int:
        """Return to how many prompts something happened."""
        return len(self._prompts[event])

    def is_dropped(self, prompt_id: str) -> bool:
        """Return whether a prompt is left out."""
        return prompt_id in self._prompts["dropped"]


class Clock:
    """Counts time, tokens and retries while answers come in, forces the journal to disk, and reports progress.

    Args:
        journal: Where the answers go.
        account: Where the time goes.
        answers: Answers wanted if no prompt is dropped.
        n: Answers per prompt.
        devices: Devices (GPUs) that are at work; 0 for a CPU or a server.
        progress: See :data:`Progress`.
    """

    def __init__(
        self, journal: Journal, account: Account, answers: int, n: int, devices: int, progress: Progress | None
    ) -> None:
        self._journal = journal
        self._account = account
        self._answers = answers
        self._n = n
        self._devices = devices
        self._progress = progress
        before = account.last("clock")
        self._seconds = float(before.get("seconds", 0.0))
        self._device_seconds = float(before.get("device_seconds", 0.0))
        self._retries = Counter[str](before.get("retries", {}))
        self._start = self._reported = self._noted = self._answered = time.monotonic()
        self._tokens = self._failed = 0
        self._done_before = journal.done

    def tick(self, completions: Sequence[Completion]) -> None:
        """Take account of answers that have come, and of the time."""
        for done in completions:
            self._tokens += done.completion_tokens
            self._failed += done.error is not None
            self._retries.update(done.retries)
        now = time.monotonic()
        if completions:
            self._answered = now
        if now - self._noted >= CLOCK_SECONDS:
            self._noted = now
            self._note(now)
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            self._report(now)

    def stop(self) -> None:
        """Take account of the end."""
        now = time.monotonic()
        self._note(now)
        self._report(now)

    def _note(self, now: float) -> None:
        worked = now - self._start
        self._account.note(
            "clock",
            seconds=round(self._seconds + worked, 3),
            device_seconds=round(self._device_seconds + self._devices * worked, 3),
            retries=dict(self._retries),
        )
        self._journal.sync()

    def _report(self, now: float) -> None:
        if self._progress is None:
            return
        worked = max(now - self._start, 1e-9)
        dropped = self._account.count("dropped")
        total = self._answers - dropped * self._n
        done = self._journal.done
        notes = [f"{self._tokens / worked:,.0f} tokens/s"]
        if self._done_before < done < total:
            notes.append(f"{_duration((total - done) * worked / (done - self._done_before))} left")
        counts = {"prompts dropped": dropped, "failed": self._failed, "retries": self._retries.total()}
        notes += [f"{count:,} {what}" for what, count in counts.items() if count]
        if now - self._answered >= SILENCE_SECONDS:
            notes.append(f"no answer for {_duration(now - self._answered)}")
        self._progress(done, total, ", ".join(notes))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
