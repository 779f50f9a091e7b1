"""Requests to an OpenAI-compatible server and its replies, as plain values: no connection, no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from w2s_align.errors import UserError
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.row_check import check_count, check_logprob, shown
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.records import FinishReason, valid_unicode

OFF = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop": [],
    "logprobs": False,
}
"""Values of ``Sampling`` that change nothing: with them a server need not know the field."""

FINISH_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(
        (
            "stop", "eos", "eos_token", "eos_token_id", "end_turn", "end_of_turn", "stop_sequence", "stop_str",
            "stop_token", "stop_string", "stop_word", "completed", "complete", "finished", "done", "end",
        ),
        "stop",
    ),
    **dict.fromkeys(
        (
            "length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "max_completion_tokens",
            "model_length", "context_length", "model_context_window_exceeded", "limit",
        ),
        "length",
    ),
    **dict.fromkeys(
        (
            "content_filter", "safety", "refusal", "recitation", "blocklist", "prohibited_content", "spii",
            "tool_calls", "tool_use", "function_call", "malformed_function_call",
        ),
        "error",
    ),
}  # fmt: skip
"""How servers say that a completion ended (vLLM, TGI, llama.cpp, SGLang, Anthropic, Gemini), in lower case with
underscores, and what it means here."""
GIVEN_UP = frozenset({"abort", "aborted", "error", "cancelled", "canceled", "timeout", "insufficient_system_resource"})
"""Finish reasons of a server that has given up, not the model: the request is repeated."""


class Violation(Exception):
    """The reply does not fit the request."""


def sampling_fields(sampling: Sampling, stop_token_ids: Sequence[int], engine: Engine) -> dict[str, Any]:
    """Return the fields that all requests of a job have in common, under the server's names for them.

    Options that are off are sent too: ``vllm serve`` otherwise takes them from the model's ``generation_config.json``.

    Args:
        sampling: How tokens are drawn.
        stop_token_ids: Tokens that end a completion.
        engine: ``server_fields`` and ``api`` are used.

    Raises:
        UserError: A field that is left out is not off.
    """
    for field, name in engine.server_fields.items():
        if name is None and field in OFF and getattr(sampling, field) != OFF[field]:
            raise UserError(
                f"sampling.{field} is {getattr(sampling, field)}, but engine.server_fields leaves {field} out.",
                fix=f"Leave out sampling.{field} too, or use a server that supports it.",
            )
    fields = {
        **sampling.model_dump(mode="json", exclude={"max_tokens", "stop", "logprobs"}),
        "n": 1,
        "top_k": sampling.top_k or -1,  # -1 is off for every server, 0 only for some
    }
    if sampling.stop:
        fields["stop"] = sampling.stop
    if stop_token_ids:
        fields["stop_token_ids"] = list(stop_token_ids)
    if sampling.logprobs:
        fields["logprobs"] = True if engine.api == "chat" else 1
    return named(fields, engine)


def request_fields(request: Request, max_tokens: int, engine: Engine) -> dict[str, Any]:
    """Return the fields of a single request.

    Args:
        request: The request.
        max_tokens: Its token limit.
        engine: ``server_fields`` and ``api`` are used.
    """
    fields: dict[str, Any] = {"max_tokens": max_tokens}
    if request.seed is not None:
        fields["seed"] = request.seed
    prompt = {"messages": request.messages} if engine.api == "chat" else {"prompt": request.token_ids}
    return {**named(fields, engine), **prompt}


def named(fields: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Return fields under the server's names for them, without those that it does not support."""
    names = {field: engine.server_fields.get(field, field) for field in fields}
    return {name: value for field, value in fields.items() if (name := names[field]) is not None}


def read_completion(reply: Any, request: Request, max_tokens: int, logprobs: bool) -> Completion:
    """Make a completion from a server's JSON.

    Args:
        reply: The JSON.
        request: The request.
        max_tokens: Its token limit.
        logprobs: Whether log-probabilities were requested.

    Raises:
        LookupError, TypeError, ValueError: It does not follow the API; another try may help.
        Violation: The prompt was changed, or the completion is longer than allowed.
    """
    choice, usage = _mapping(reply["choices"][0], "a choice"), _mapping(reply["usage"], "usage")
    error = None
    prompt_tokens = check_count(usage["prompt_tokens"], "prompt_tokens")
    written = usage.get("completion_tokens")
    tokens = 0 if written is None else check_count(written, "completion_tokens")
    known = _reason(choice["finish_reason"])
    # An unknown reason: the text is whole unless the limit was reached.
    reason: FinishReason = known or ("length" if tokens >= max_tokens else "stop")
    if request.token_ids and prompt_tokens != len(request.token_ids):
        raise Violation(
            f"The server counts {prompt_tokens} tokens in a prompt of {len(request.token_ids)}: it changes prompts."
        )
    if tokens > max_tokens:
        raise Violation(f"The server wrote {tokens} tokens where {max_tokens} were allowed: it ignores max_tokens.")
    message = _mapping(choice.get("message") or {"content": choice.get("text")}, "message")
    text = _text(message.get("content"))
    reasoning = _text(message.get("reasoning_content") or message.get("reasoning"))
    if reason != "error" and text is None and (reasoning or reason == "length"):
        text = ""  # the limit was reached within the reasoning
    if reason == "error" or text is None:
        reason, text = "error", None
        said = _text(message.get("refusal")) or "no text"
        error = f"The server ended the completion: {choice['finish_reason']:.60} ({said:.400})"
    return Completion(
        request,
        text,
        reason,
        tokens,
        logprob=_logprob(choice["logprobs"]) if logprobs and error is None else None,
        error=error,
        reasoning=reasoning if error is None else None,
        prompt_tokens=prompt_tokens,
        unknown_finish=None if known else valid_unicode(choice["finish_reason"])[:60],
    )


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {shown(value)}, not a mapping")
    return value


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"a text was expected, not {shown(value)}")
    return None if value is None else valid_unicode(value)


def _reason(finish_reason: Any) -> FinishReason | None:
    """Return what a server's finish reason means; None for one that is not known.

    Raises:
        TypeError: It is no text.
        ValueError: The server has given up.
    """
    if finish_reason is not None and not isinstance(finish_reason, str):
        raise TypeError(f"finish_reason is {shown(finish_reason)}, not a text")
    name = str(finish_reason).lower().replace("-", "_").replace(" ", "_")
    if finish_reason is None or name in GIVEN_UP:
        raise ValueError(f"finish_reason {finish_reason}")
    return FINISH_REASONS.get(name)


def _logprob(logprobs: Any) -> float:
    logprobs = _mapping(logprobs, "logprobs")
    if logprobs.get("content") is not None:  # /chat/completions
        values = [token["logprob"] for token in logprobs["content"]]
    else:
        values = [value for value in logprobs["token_logprobs"] if value is not None]
    return check_logprob(sum(check_logprob(value) for value in values))
