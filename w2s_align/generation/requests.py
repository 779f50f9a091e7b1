"""Turn the prompts of a job into requests for the responses that are still missing.

Reads prompts in batches and the journal; notes which prompts were dropped or cut, and yields engine requests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.generation.chat import Chat
from w2s_align.generation.engines import Request
from w2s_align.generation.job import Job
from w2s_align.generation.journal import Journal
from w2s_align.generation.server_chat import ServerChat
from w2s_align.generation.stats import Stats
from w2s_align.records import Message

EXAMPLES = 3
"""How many prompts an error names: enough to look one up, few enough to read."""


def check_turns(chats: Sequence[Sequence[Message]]) -> None:
    """Refuse chats that do not end with a turn that the model can respond to.

    Raises:
        UserError: A chat is empty or ends with the assistant's turn.
    """
    for messages in chats:
        if not messages or messages[-1]["role"] == "assistant":
            raise UserError(
                f"A prompt {'has no messages' if not messages else 'ends with an assistant message'}.",
                fix="Every prompt needs messages, and the last one must be the user's.",
            )


def prompt_limit(job: Job, context: int | None) -> int:
    """Return the length in tokens of the longest prompt that is sent.

    Args:
        job: The job.
        context: Context length of the engine in tokens; None when it is unknown.

    Raises:
        UserError: ``engine.max_prompt_tokens`` leaves no room for a response.
    """
    engine = job.engine
    if context is None:  # neither the server nor the model's files give it
        return engine.max_prompt_tokens or sys.maxsize
    if engine.max_prompt_tokens is not None:
        if engine.max_prompt_tokens >= context:
            raise UserError(
                f"engine.max_prompt_tokens {engine.max_prompt_tokens} leaves no room for a response.",
                why=f"The context of {job.model.name} is {context} tokens.",
                fix=f"Set engine.max_prompt_tokens below {context}, or leave it out.",
            )
        return engine.max_prompt_tokens
    if engine.too_long in ("cut_left", "cut_right"):
        return max(context - job.sampling.max_tokens, context // 2)
    return context - 1


def refuse_long_prompts(job: Job, chat: Chat, limit: int) -> None:
    """Check the length of every prompt, for ``engine.too_long: error``.

    Args:
        job: The job.
        chat: Renders the prompts.
        limit: Longest prompt in tokens; see :func:`prompt_limit`.

    Raises:
        UserError: At least one prompt has more than ``limit`` tokens.
    """
    named: list[str] = []
    count = 0
    for _, batch in job.prompts.batches():
        chats = batch.column("messages").to_pylist()
        check_turns(chats)
        lengths = [len(token_ids) for token_ids in chat.render_batch(chats)]
        over = [(i, tokens) for i, tokens in enumerate(lengths) if tokens > limit]
        count += len(over)
        named += [f"{batch.column('id')[i].as_py()} ({tokens} tokens)" for i, tokens in over[: EXAMPLES - len(named)]]
    if count:
        raise UserError(
            f"{count} of {job.prompts.count} prompts have more than {limit} tokens, e.g. {', '.join(named)}.",
            fix="Set engine.too_long to drop, cut_left or cut_right, or raise engine.max_model_len.",
        )


def rendered_requests(job: Job, chat: Chat, journal: Journal, stats: Stats, limit: int) -> Iterator[Request]:
    """Yield the missing responses as requests with token ids, rendering one batch of prompts at a time.

    Args:
        job: The job.
        chat: Renders the prompts.
        journal: Says which responses are there.
        stats: Where dropped and cut prompts, and those with unknown tokens, are noted.
        limit: Longest prompt in tokens; see :func:`prompt_limit`.
    """
    n = job.sampling.n
    for start, batch in job.prompts.batches():
        ids = batch.column("id").to_pylist()
        wanted = [
            i
            for i, prompt_id in enumerate(ids)
            if not stats.is_dropped(prompt_id) and not all(journal.has((start + i) * n + s) for s in range(n))
        ]
        if not wanted:
            continue
        chats = batch.column("messages").take(pa.array(wanted)).to_pylist()
        check_turns(chats)
        for i, messages, rendered in zip(wanted, chats, chat.render_batch(chats), strict=True):
            token_ids = _fit(job, chat, ids[i], messages, rendered, limit, stats)
            if token_ids is None:
                continue
            for sample in range(n):
                row = (start + i) * n + sample
                if not journal.has(row):
                    yield Request(row, token_ids, job.row_seed(ids[i], sample))


def message_requests(job: Job, chat: ServerChat, journal: Journal) -> Iterator[Request]:
    """Yield the missing responses as requests with messages, for a server that renders them itself.

    Args:
        job: The job.
        chat: Adds the system prompt.
        journal: Says which responses are there.
    """
    n = job.sampling.n
    for start, batch in job.prompts.batches():
        chats = batch.column("messages").to_pylist()
        check_turns(chats)
        for i, prompt_id in enumerate(batch.column("id").to_pylist()):
            for sample in range(n):
                row = (start + i) * n + sample
                if not journal.has(row):
                    yield Request(row, [], job.row_seed(prompt_id, sample), chat.messages(chats[i]))


def _fit(
    job: Job, chat: Chat, prompt_id: str, messages: Sequence[Message], token_ids: list[int], limit: int, stats: Stats
) -> list[int] | None:
    """Return the prompt's tokens, cut where that is needed and allowed; None when the prompt is dropped."""
    if chat.has_unknown_tokens(token_ids):
        stats.note_prompt("unknown_tokens", prompt_id, len(token_ids))
    if len(token_ids) <= limit:
        return token_ids
    side = job.engine.too_long
    fitted = chat.cut(messages, limit, side) if side in ("cut_left", "cut_right") else None
    stats.note_prompt("dropped" if fitted is None else "cut", prompt_id, len(token_ids))
    return fitted
