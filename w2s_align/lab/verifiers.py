"""Verifiers of the lab's tasks, of known quality: authors who solve a problem again and compare the final answers.

A verifier forgets each due carry with a probability of its own. So it fails where a problem is hard, as real verifiers
do, and finds a wrong answer right when it makes the same mistake: verifiers err together, more than a label model
assumes. On top of that it may say yes without looking, say the opposite of what it found, or copy another verifier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from w2s_align.lab.settings import CARRIES, Probability
from w2s_align.lab.tasks import final_line, find_task, operands_of
from w2s_align.records import Prompt, Settings


class Verifier(Settings):
    """A verifier of the lab's tasks."""

    slip: Probability = 0.0
    """Probability that it forgets a carry (or borrow) that is due, each time that it solves the problem."""
    lazy: Probability = 0.0
    """Probability that it says yes without looking."""
    noise: Probability = 0.0
    """Probability that it says the opposite of what it found."""
    tries: int = Field(1, ge=1, le=100)
    """How often it solves the problem; its value is the share of the tries that agree with the answer."""
    draws: Annotated[int, Field(ge=0)] = 0
    """Number of its random draws: two verifiers with the same number and options say the same."""
    copies: int | None = Field(None, ge=0)
    """Number of the draws of another verifier, which it copies on some of the responses."""
    copied: Probability = 0.8
    """Share of the responses on which it copies."""

    def judge(
        self, task: str, prompts: Sequence[Prompt], texts: Sequence[str], places: Sequence[str]
    ) -> list[float | None]:
        """Return a value from 0 to 1 for each response; None where the prompt is no problem of the task.

        Args:
            task: ``lab/addition`` or ``lab/subtraction``.
            prompts: The problem of each response.
            texts: The responses.
            places: What tells each response from all others: draws depend on it and on the options.

        Raises:
            UserError: There is no such task.
        """
        found = find_task(task)
        operands = [operands_of(found, prompt) for prompt in prompts]
        known = [i for i, pair in enumerate(operands) if pair is not None]
        values: list[float | None] = [None] * len(texts)
        if not known:
            return values
        drawn = np.stack([self._draw(places[i]) for i in known])  # responses x tries x (carries, lazy, noise)
        pairs = np.repeat(np.array([operands[i] for i in known], dtype=np.int64), self.tries, axis=0)
        forgets = (drawn[:, :, :CARRIES] < self.slip).reshape(-1, CARRIES)
        lines = np.array(found.final_lines(pairs[:, 0], pairs[:, 1], forgets)).reshape(len(known), self.tries)
        says = lines == np.array([final_line(texts[i]) for i in known])[:, None]
        says |= drawn[:, :, CARRIES] < self.lazy
        says ^= drawn[:, :, CARRIES + 1] < self.noise
        for i, share in zip(known, says.mean(axis=1).tolist(), strict=True):
            values[i] = share
        return values

    def _draw(self, place: str) -> np.ndarray:
        draws = self.draws
        if self.copies is not None and _generator(f"copy {place}", draws).random() < self.copied:
            draws = self.copies
        return _generator(place, draws).random((self.tries, CARRIES + 2))


def _generator(place: str, draws: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{draws} {place}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
