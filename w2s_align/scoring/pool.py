"""A pool of worker processes in which no single item can hang or kill the job.

Runs a check, such as those of :mod:`w2s_align.scoring.scorers.library_checks`, over many items on several cores.
Every item has a time limit that is enforced from outside by killing the worker, because the libraries' own limits are
alarm signals that fail outside the main thread and inside C code
(https://github.com/huggingface/Math-Verify/issues/50). An item that hangs, exhausts its memory or crashes its worker
costs itself and nothing else: its worker is replaced and the other items go on.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 120.0
"""A worker imports its library before its first item; on a busy machine that can take long."""
CHUNK = 32
"""Most items sent to a worker at once: more would save no time, and leave cores idle at the end."""
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


class WorkerPool:
    """Worker processes for one check, started when first needed and reused from call to call.

    Args:
        check: ``module:function``; the function, called in the worker, returns the check of one item.
        timeout_s: Seconds that one item may take.
        processes: Number of workers; None for one per core.
        memory_gb: Address space of a worker in GiB.

    Use as a context manager: leaving it ends the workers.
    """

    def __init__(self, check: str, timeout_s: float, processes: int | None = None, memory_gb: float = 4.0) -> None:
        self.check = check
        self.timeout_s = timeout_s
        self.memory_gb = memory_gb
        self.processes = processes or len(os.sched_getaffinity(0))
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        """Start nothing yet: workers start with the first items."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def map(self, items: Sequence[Any], progress: Callable[[int], None] | None = None) -> list[dict[str, Any]]:
        """Check all items and return their answers in order.

        Args:
            items: JSON-serializable values, one per item.
            progress: Called with the number of items done so far.

        Returns:
            What the check returned for each item, or ``{"failed": reason}`` for an item that hung or crashed its
            worker.

        Raises:
            RuntimeError: A worker cannot start (its message says why).
        """
        answers: list[dict[str, Any] | None] = [None] * len(items)
        todo: deque[int] = deque(range(len(items)))
        # Small chunks spread a short list over all workers; long ones amortize the pipe.
        chunk = max(1, min(CHUNK, len(items) // (4 * self.processes)))
        wanted = min(self.processes, -(-len(items) // chunk))
        while len(self._workers) < wanted:
            self._workers.append(_Worker(self.check, self.timeout_s, self.memory_gb))
        selector = selectors.DefaultSelector()
        done = 0
        for worker in self._workers:
            selector.register(worker.stdout, selectors.EVENT_READ, worker)
            self._feed(worker, todo, chunk, items)
        try:
            while done < len(items):
                for key, _ in selector.select(timeout=0.1):
                    worker = key.data
                    for answer in worker.read():
                        answers[worker.pending.popleft()] = answer
                        done += 1
                    if not worker.closed and worker.ready and not worker.pending:
                        self._feed(worker, todo, chunk, items)
                for index, worker in enumerate(self._workers):
                    reason = worker.trouble()
                    if reason is None:
                        continue
                    if worker.pending:
                        answers[worker.pending.popleft()] = {"failed": reason}
                        done += 1
                        todo.extendleft(reversed(worker.pending))
                    selector.unregister(worker.stdout)
                    worker.kill()
                    self._workers[index] = replacement = _Worker(self.check, self.timeout_s, self.memory_gb)
                    selector.register(replacement.stdout, selectors.EVENT_READ, replacement)
                    self._feed(replacement, todo, chunk, items)
                if progress:
                    progress(done)
        except BaseException:
            self.__exit__()
            raise
        finally:
            selector.close()
        return [answer for answer in answers if answer is not None]

    def _feed(self, worker: _Worker, todo: deque[int], chunk: int, items: Sequence[Any]) -> None:
        indices = [todo.popleft() for _ in range(min(chunk, len(todo)))]
        if indices:
            worker.send(indices, [items[index] for index in indices])


class _Worker:
    """One worker process and the items it has not answered yet."""

    def __init__(self, check: str, timeout_s: float, memory_gb: float) -> None:
        path = os.pathsep.join(part for part in (_PACKAGE_PARENT, os.environ.get("PYTHONPATH", "")) if part)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "w2s_align.scoring.worker", check, str(memory_gb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # an interrupt in the terminal ends the parent, which then ends its workers
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        self.stdout, self.stdin = self.process.stdout, self.process.stdin
        os.set_blocking(self.stdout.fileno(), False)
        self.timeout_s = timeout_s
        self.pending: deque[int] = deque()
        self.deadline = time.monotonic() + START_TIMEOUT_S
        self.ready = self.closed = self.timed_out = False
        self._buffer = b""

    def send(self, indices: list[int], items: list[Any]) -> None:
        self.pending.extend(indices)
        if self.ready:
            self.deadline = time.monotonic() + self.timeout_s
        try:
            self.stdin.write(json.dumps(items).encode() + b"\n")
            self.stdin.flush()
        except BrokenPipeError:
            self.closed = True

    def read(self) -> list[dict[str, Any]]:
        """Return the answers that have arrived."""
        data = self.stdout.read()
        if data == b"":
            self.closed = True
        *lines, self._buffer = (self._buffer + (data or b"")).split(b"\n")
        answers = [json.loads(line) for line in lines]
        if answers and not self.ready:
            first = answers.pop(0)
            if "failed" in first:
                raise RuntimeError(first["failed"])
            self.ready = True
        if lines:
            self.deadline = time.monotonic() + self.timeout_s
        return answers

    def trouble(self) -> str | None:
        """Return why the worker must be replaced, or None."""
        if self.closed:
            code = self.process.wait()
            if not self.ready:
                raise RuntimeError(f"a scoring worker ended with exit code {code} before it was ready")
            return f"the checker crashed (exit code {code})"
        if self.pending and time.monotonic() > self.deadline:
            if not self.ready:
                raise RuntimeError(f"a scoring worker did not start within {START_TIMEOUT_S:.0f} s")
            return "time-out"
        return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()
        with suppress(BrokenPipeError):  # what was still to be written belongs to the worker that is gone
            self.stdin.close()
