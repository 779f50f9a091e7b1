"""The interface of every engine: requests with token ids in, completions out, in any order.

A new engine is one new file with a class of this protocol, its name in ``settings.EngineName`` and ``installed.py``,
and a branch of ``engine_cache.open_engine``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from w2s_align.generation.reasoning import ReasoningState
from w2s_align.generation.settings import EngineName, Sampling
from w2s_align.records import FinishReason, Message


@dataclass(frozen=True, slots=True)
class Request:
    """One response that is to be generated.

    Attributes:
        row: Number of the response within the job; unique among the requests of one :meth:`EngineRun.run`.
        token_ids: The rendered prompt; empty where a server renders it.
        seed: Seed of this response alone; None for greedy decoding.
        messages: The chat, for a server that renders it.
    """

    row: int
    token_ids: list[int]
    seed: int | None
    messages: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine made of one request.

    Attributes:
        request: The request.
        text: The text without special tokens; None when there is none.
        finish_reason: See ``records.FinishReason``.
        completion_tokens: Length in tokens, end of turn included.
        logprob: Sum of the log-probabilities of its tokens in nats, if ``Sampling.logprobs`` is set.
        error: Why there is no text.
        reasoning: The reasoning, where the engine itself has separated it.
        prompt_tokens: Length of the prompt as the engine counts it; None for that of ``request.token_ids``.
        reasoning_state: Whether the text begins with reasoning, and whether that has an end; see
            ``reasoning.Splitter``.
        retries: Why the request was repeated, once for each time, e.g. ``("HTTP 429", "time-out")``.
        unknown_finish: The server's finish reason, where it is none that we know.
    """

    request: Request
    text: str | None
    finish_reason: FinishReason
    completion_tokens: int
    logprob: float | None = None
    error: str | None = None
    reasoning: str | None = None
    prompt_tokens: int | None = None
    reasoning_state: ReasoningState | None = None
    retries: tuple[str, ...] = ()
    unknown_finish: str | None = None


class EngineRun(Protocol):
    """An engine with its model loaded.

    Attributes:
        name: Which engine it is.
        dtype: Number format of the weights as loaded; ``unknown`` for a server.
        device: ``cpu``, ``cuda``, ...; for a server, its address and what it is.
        devices: Number of GPUs in use; 0 for a CPU or a server.
    """

    name: EngineName
    dtype: str
    device: str
    devices: int

    @property
    def context_length(self) -> int | None:
        """Longest prompt and completion together, in tokens; None when a server does not tell."""
        ...

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Generate the completions.

        Requests are taken from ``requests`` as there is room, never all at once. Each step yields what was finished in
        it, often nothing, so that the caller can write to disk and report. Closing the iterator abandons what is
        unfinished.

        Args:
            requests: What to generate.
            sampling: How tokens are drawn.
            stop_token_ids: Tokens that end a completion.
        """
        ...

    def close(self) -> None:
        """Free the model's memory. The engine cannot be used afterwards."""
        ...
