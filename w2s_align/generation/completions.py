"""A completion on its way from an engine to the journal: its reasoning is split off, then it becomes a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from w2s_align.generation.engines import Completion, Request
from w2s_align.generation.reasoning import Splitter
from w2s_align.generation.row_check import row_fault
from w2s_align.records import valid_unicode


def storable(completion: Completion) -> Completion:
    """Return a completion that the journal and ``Response.SCHEMA`` can hold: itself, or a failed one that says why.

    Halves of surrogate pairs become the replacement character.
    """
    completion = replace(
        completion,
        text=_clean(completion.text),
        reasoning=_clean(completion.reasoning),
        error=_clean(completion.error),
    )
    fault = row_fault(to_columns(completion))
    if fault is None:
        return completion
    request = completion.request
    return Completion(request, None, "error", 0, error=f"The answer is unusable: {fault}.", retries=completion.retries)


def _clean(text: str | None) -> str | None:
    return valid_unicode(text) if isinstance(text, str) else text  # another type is a fault of the row


def to_columns(completion: Completion) -> dict[str, Any]:
    """Return a completion as the journal keeps it."""
    request = completion.request
    return {
        "text": completion.text,
        "reasoning": completion.reasoning,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": len(request.token_ids) if completion.prompt_tokens is None else completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "seed": request.seed,
        "logprob": completion.logprob,
        "error": completion.error,
        "thought": completion.reasoning_state,  # its name in the journals of earlier versions, which are resumed
    }


def from_columns(row: int, columns: dict[str, Any]) -> Completion:
    """Return the completion that :func:`to_columns` has written as row ``row``."""
    fields = {name: columns[name] for name in columns if name not in ("seed", "thought")}
    return Completion(Request(row, [], columns["seed"]), **fields, reasoning_state=columns["thought"])


def split_reasoning(completion: Completion, splitter: Splitter) -> Completion:
    """Return a completion with its reasoning kept in the text, stripped, or in a field of its own."""
    if completion.text is None:
        return completion
    if completion.reasoning is None:
        split = splitter.split(completion.text)
    else:  # the server has a reasoning parser
        split = splitter.rejoin(completion.reasoning, completion.text)
    if split.state is None and split.text == completion.text and split.reasoning is None:
        return completion
    return replace(completion, text=split.text, reasoning=split.reasoning, reasoning_state=split.state)
