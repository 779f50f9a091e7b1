"""What every engine takes and gives: requests with token ids in, completions out, in any order.

A new engine is one new file with a class of this protocol and one line in ``opening.py``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from w2s_align.generation.settings import EngineName, Sampling
from w2s_align.records import FinishReason


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted.

    Attributes:
        row: Number of the answer within the job; unique among the requests of one :meth:`EngineRun.run`.
        token_ids: The rendered prompt.
        seed: Seed of this very answer; None for greedy decoding.
    """

    row: int
    token_ids: list[int]
    seed: int | None


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer that was written.

    Attributes:
        request: What was asked.
        text: The answer without special tokens; None when there is none.
        finish_reason: See ``records.FinishReason``.
        completion_tokens: Length of the answer, end of turn included.
        logprob: Sum of the log-probabilities of its tokens in nats, when asked for.
        error: Why there is no answer.
    """

    request: Request
    text: str | None
    finish_reason: FinishReason
    completion_tokens: int
    logprob: float | None = None
    error: str | None = None


class EngineRun(Protocol):
    """An engine with its model loaded.

    Attributes:
        name: Which engine it is.
        context_length: Longest prompt and answer together, in tokens.
        dtype: Number format of the weights as loaded.
        device: ``cpu``, ``cuda``, ...
    """

    name: EngineName
    context_length: int
    dtype: str
    device: str

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Answer the requests.

        Requests are taken from ``requests`` as there is room, never all at once. Each step yields what was finished in
        it, often nothing, so that the caller can write to disk and report. Closing the iterator gives up what is
        unfinished.
        """
        ...

    def close(self) -> None:
        """Free the model's memory. The engine is of no use afterwards."""
        ...
