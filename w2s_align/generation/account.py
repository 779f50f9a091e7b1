"""The running account of a generation: what happened to which prompt, and how long it took.

It is kept as notes in the journal, so that a restart goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from w2s_align.generation.journal import Journal

PROGRESS_SECONDS = 0.5
CLOCK_SECONDS = 1.0

PromptEvent: TypeAlias = Literal["dropped", "cut", "unknown_tokens"]
Progress: TypeAlias = Callable[[int, int, str], None]
"""``progress(done, total, note)``: answers finished, answers wanted, and a few words such as the tokens per second."""


class Account:
    """Notes of a job, those of earlier attempts included.

    Attributes:
        prompts: Ids of prompts by what happened to them, in the order of the prompts.
        startup_seconds: Time spent starting engines, over all attempts.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last: dict[str, dict[str, Any]] = {"clock": {"seconds": 0.0}}
        self.prompts: dict[PromptEvent, list[str]] = {"dropped": [], "cut": [], "unknown_tokens": []}
        self._known: dict[PromptEvent, set[str]] = {"dropped": set(), "cut": set(), "unknown_tokens": set()}
        self.startup_seconds = 0.0
        for note in journal.notes:
            self._take(note)

    def note(self, event: str, **values: Any) -> None:
        """Keep that something happened."""
        self._journal.note(event=event, **values)
        self._take({"event": event, **values})

    def prompt(self, event: PromptEvent, prompt_id: str, tokens: int) -> None:
        """Keep, once, that something happened to a prompt of ``tokens`` tokens."""
        if prompt_id not in self._known[event]:
            self.note(event, prompt_id=prompt_id, tokens=tokens)

    def is_dropped(self, prompt_id: str) -> bool:
        """Return whether a prompt is left out."""
        return prompt_id in self._known["dropped"]

    def last(self, event: str) -> dict[str, Any]:
        """Return the latest note of an event."""
        return self._last[event]

    def _take(self, note: dict[str, Any]) -> None:
        event = note["event"]
        if event in self.prompts:
            self.prompts[event].append(note["prompt_id"])
            self._known[event].add(note["prompt_id"])
            return
        self._last[event] = note
        self.startup_seconds += note.get("startup_seconds", 0.0)


class Clock:
    """Counts time and tokens while answers come in, forces the journal to disk, and reports progress.

    Args:
        journal: Where the answers go.
        account: Where the time goes.
        answers: Answers wanted if no prompt is dropped.
        n: Answers per prompt.
        progress: See :data:`Progress`.
    """

    def __init__(self, journal: Journal, account: Account, answers: int, n: int, progress: Progress | None) -> None:
        self._journal = journal
        self._account = account
        self._answers = answers
        self._n = n
        self._progress = progress
        self._before = float(account.last("clock")["seconds"])
        self._start = self._reported = self._noted = time.monotonic()
        self._tokens = 0

    def tick(self, tokens: int) -> None:
        """Take account of ``tokens`` new answer tokens."""
        self._tokens += tokens
        now = time.monotonic()
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
        self._account.note("clock", seconds=round(self._before + now - self._start, 3))
        self._journal.sync()

    def _report(self, now: float) -> None:
        if self._progress is None:
            return
        dropped = len(self._account.prompts["dropped"])
        rate = self._tokens / max(now - self._start, 1e-9)
        note = f"{rate:,.0f} tokens/s" + (f", {dropped} prompts dropped" if dropped else "")
        self._progress(self._journal.done, self._answers - dropped * self._n, note)
