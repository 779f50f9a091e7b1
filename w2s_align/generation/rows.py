"""An answer on its way from an engine to the journal: its thought told apart, then its columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from w2s_align.generation.engines import Completion
from w2s_align.generation.reasoning import Splitter


def columns(done: Completion) -> dict[str, Any]:
    """Return an answer as the journal keeps it."""
    return {
        "text": done.text,
        "reasoning": done.reasoning,
        "finish_reason": done.finish_reason,
        "prompt_tokens": len(done.request.token_ids) if done.prompt_tokens is None else done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "seed": done.request.seed,
        "logprob": done.logprob,
        "error": done.error,
        "thought": done.thought,
    }


def told_apart(done: Completion, splitter: Splitter) -> Completion:
    """Return an answer with its thought kept, dropped or separated."""
    if done.text is None:
        return done
    separated = done.reasoning  # by a server
    parts = splitter.split(done.text) if separated is None else splitter.rejoin(separated, done.text)
    if parts.thought is None and parts.text == done.text and parts.reasoning is None:
        return done
    return replace(done, text=parts.text, reasoning=parts.reasoning, thought=parts.thought)
