"""Check rendered prompts for the mistakes that silently ruin preference data, before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from w2s_align.errors import UserError
from w2s_align.generation.chat import Chat, common_prefix
from w2s_align.records import Message

AUDITED_PROMPTS = 64
"""How many prompts are checked: enough to meet other roles and long histories, and done in a fraction of a second."""


class _Finding(NamedTuple):
    text: str
    refused: bool = True


def audit(chat: Chat, prompts: Sequence[Sequence[Message]]) -> list[str]:
    """Check how a chat template renders the first prompts.

    Refused are two BOS tokens in a row, a missing generation prompt, a prompt whose tokens are not a prefix of the
    same prompt with a response (a trainer would compute its loss on other tokens than the model has written), and
    reasoning tags that cannot be seen in a response. A template that writes the opening tag of the reasoning itself,
    and leaves reasoning out of the responses that it renders again, is sound for generation: that is a warning.

    Args:
        chat: Renders the prompts.
        prompts: The first prompts of a job.

    Returns:
        What was found, each with the tokens; with ``Engine.audit`` set to ``warn`` also what would be refused.

    Raises:
        UserError: Something was found that is refused.
    """
    _check_tags(chat)
    found = [_check_prompt(chat, messages) for messages in prompts[:AUDITED_PROMPTS]]
    findings = [finding for finding in found if finding is not None]
    refused = [finding.text for finding in findings if finding.refused]
    if refused and chat.engine.audit == "refuse":
        raise UserError(
            f"The chat template of {chat.model.name} renders prompts in a way that gives wrong data "
            f"({len(refused)} of the first {min(len(prompts), AUDITED_PROMPTS)}).",
            why=refused[0],
            fix="Repair chat_template.jinja of the model, set chat_template_kwargs (e.g. enable_thinking), "
            + ("let the prefill end in a whole token, without a space, " if chat.engine.prefill else "")
            + "or set audit: warn if this is what you want.",
        )
    return sorted({finding.text for finding in findings})


def _check_prompt(chat: Chat, messages: Sequence[Message]) -> _Finding | None:
    prompt = chat.render(messages)
    bos = chat.tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        return _Finding(f"A prompt begins with two BOS tokens: {chat.show(prompt[:8])}")
    response = _probe_response(chat, messages)
    full = chat.render_with_response(messages, response)
    same = common_prefix(prompt, full)
    if same < len(prompt):
        return _no_prefix(chat, messages, prompt, response, full, same)
    rest = chat.decode(full[len(prompt) :]).lstrip()
    bare = chat.render(messages, generation_prompt=False)
    if prompt == bare and not rest.startswith((response, chat.engine.think_tags[0])):
        return _Finding(
            f"The template ignores add_generation_prompt: the model would continue after {chat.show(prompt[-6:])}"
        )
    return None


def _no_prefix(
    chat: Chat, messages: Sequence[Message], prompt: list[int], response: str, full: list[int], same: int
) -> _Finding | None:
    """Judge a prompt that is not a token prefix of itself with a plain response (``full``), from ``same`` on."""
    opened, closed = chat.engine.think_tags
    with_reasoning = f"{opened}\n{response.removeprefix(opened).strip()}\n{closed}\n\n{response.split()[-1]}"
    if common_prefix(prompt, chat.render_with_response(messages, with_reasoning)) == len(prompt):
        return None  # the template opens the reasoning in the prompt, and renders it in responses
    near = slice(max(0, same - 3), same + 5)
    tokens = f"the prompt has {chat.show(prompt[near])}; with a response it has {chat.show(full[near])}"
    before_tag = chat.decode(prompt).rpartition(opened)[0]
    if chat.splitter(messages).opening.startswith(opened) and chat.decode(full).startswith(before_tag):
        return _Finding(
            f"The template writes the opening tag of the reasoning ({opened}) into the prompt and leaves reasoning "
            f"out of the responses that it renders: generation is right, but training on these responses with this "
            f"template would not see their reasoning: {tokens}",
            refused=False,
        )
    return _Finding(f"A prompt is not a prefix of the same prompt with a response, from token {same} on: {tokens}")


def _check_tags(chat: Chat) -> None:
    """Refuse reasoning tags that engines leave out of the text, as they do with all special tokens."""
    special = {chat.tokenizer.added_tokens_decoder[i].content for i in chat.special_ids()}
    hidden = [tag for tag in chat.engine.think_tags if tag in special]
    if hidden and chat.engine.thinking != "keep":
        raise UserError(
            f"Reasoning of {chat.model.name} cannot be split from its responses: {' and '.join(hidden)} are special "
            "tokens, which are not part of a response's text.",
            fix="Serve the model with a reasoning parser and use the openai engine, or set engine.thinking: keep.",
        )


def _probe_response(chat: Chat, messages: Sequence[Message]) -> str:
    """Return a response of the prompt's first word: a character tokenizer may not know the letters of another."""
    words = messages[-1]["content"].split()
    word = words[0][:12] if words else "1"
    prefill = chat.engine.prefill
    return prefill + ("" if not prefill or prefill[-1].isspace() else " ") + word
