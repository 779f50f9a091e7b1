"""What every engine takes and gives: requests with token ids in, completions out, in any order.

A new engine is one new file with a class of this protocol and one line in ``opening.py``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from w2s_align.generation.reasoning import Thought
from w2s_align.generation.settings import EngineName, Sampling
from w2s_align.records import FinishReason, Message


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted.

    Attributes:
        row: Number of the answer within the job; unique among the requests of one :meth:`EngineRun.run`.
        token_ids: The rendered prompt; empty where a server renders it.
        seed: Seed of this very answer; None for greedy decoding.
        messages: The chat, for a server that renders it.
    """

    row: int
    token_ids: list[int]
    seed: int | None
    messages: Sequence[Message] = ()


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
        reasoning: The thinking part, where the engine itself has separated it.
        prompt_tokens: Length of the prompt as the engine counts it; None for that of ``request.token_ids``.
        thought: Whether there is a thought before the answer, and whether it has an end; see ``thinking.Splitter``.
        retries: Why it had to be asked for again, once for each time, e.g. ``("HTTP 429", "time-out")``.
    """

    request: Request
    text: str | None
    finish_reason: FinishReason
    completion_tokens: int
    logprob: float | None = None
    error: str | None = None
    reasoning: str | None = None
    prompt_tokens: int | None = None
    thought: Thought | None = None
    retries: tuple[str, ...] = ()


class EngineRun(Protocol):
    """An engine with its model loaded.

    Attributes:
        name: Which engine it is.
        dtype: Number format of the weights as loaded; ``unknown`` for a server.
        device: ``cpu``, ``cuda``, ...; for a server, its address and what it is.
        devices: How many GPUs are at work for it; 0 for a CPU or a server.
    """

    name: EngineName
    dtype: str
    device: str
    devices: int

    @property
    def context_length(self) -> int | None:
        """Longest prompt and answer together, in tokens; None when a server does not tell."""
        ...

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
