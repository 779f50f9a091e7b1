"""Examples in the prompt: questions with responses that stand before each question, as earlier turns of the chat.

Reads responses of any model (wrong ones may be among them) or rows of a file; gives turns that the model's own
template renders. The texts go in unchanged, and a template that changes them is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import Message

if TYPE_CHECKING:
    from w2s_align.generation.chat import Chat


@dataclass(frozen=True)
class Example:
    """A question and a response to it.

    Attributes:
        messages: The chat up to the question.
        response: The response.
        prompt_id: ``Prompt.id`` of the question; None when it is none of a set of prompts.
    """

    messages: Sequence[Message]
    response: str
    prompt_id: str | None = None

    def turns(self) -> list[Message]:
        """Return the turns, without a system message: the question that follows has its own."""
        asked = [message for message in self.messages if message["role"] != "system"]
        return [*asked, {"role": "assistant", "content": self.response}]


@dataclass(frozen=True)
class Examples:
    """What stands before every question.

    Attributes:
        shown: The examples, in their order.
        spare: Stands in where a question is itself one of them: it would show a response to what is asked.
    """

    shown: Sequence[Example]
    spare: Example | None = None

    def before(self, prompt_id: str, messages: Sequence[Message]) -> list[Message]:
        """Return a chat with the examples in it, after its system message."""
        shown = [self.spare if example.prompt_id == prompt_id else example for example in self.shown]
        turns = [turn for example in shown if example is not None for turn in example.turns()]
        system = [message for message in messages[:1] if message["role"] == "system"]
        return [*system, *turns, *messages[len(system) :]]

    @property
    def content(self) -> str:
        """What a digest is made of: every turn."""
        every = [*self.shown, *([self.spare] if self.spare else [])]
        return json.dumps([[example.prompt_id, example.turns()] for example in every])


def draw_examples(prompts: pa.Table, responses: pa.Table, n: int, seed: int) -> Examples:
    """Draw examples from the responses of a model, and one more as a spare.

    Which ones depends on the seed and the prompts' ids alone. Of several responses to a prompt the first complete one
    counts; those that were cut at the token limit, failed or are empty are none.

    Args:
        prompts: Rows of :class:`w2s_align.records.Prompt` behind the responses.
        responses: Rows of :class:`w2s_align.records.Response`.
        n: How many.
        seed: Seed of the draw.

    Raises:
        UserError: There are not so many complete responses.
    """
    chats = dict(zip(prompts["id"].to_pylist(), prompts["messages"].to_pylist(), strict=True))
    found: dict[str, str] = {}
    columns = (responses[name].to_pylist() for name in ("prompt_id", "text", "finish_reason"))
    for prompt_id, text, finish in zip(*columns, strict=True):
        if finish == "stop" and text and text.strip() and prompt_id in chats:
            found.setdefault(prompt_id, text)
    if len(found) < n:
        raise UserError(
            f"{n} examples cannot be drawn: {len(found)} of {responses.num_rows} responses are complete.",
            why="A response that failed, is empty or was cut at the token limit is no example.",
            fix="Look at the responses with `w2s show`, raise their max_tokens, or ask for fewer examples.",
        )
    ids = sorted(found, key=lambda prompt_id: hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest())[: n + 1]
    drawn = [Example(chats[prompt_id], found[prompt_id], prompt_id) for prompt_id in ids]
    return Examples(drawn[:n], drawn[n] if len(drawn) > n else None)


def check_examples(chat: Chat, examples: Examples) -> None:
    """Refuse a template that changes the responses of earlier turns: some drop the reasoning of all but the last one.

    Args:
        chat: Renders the prompts.
        examples: The examples.

    Raises:
        UserError: A response of an example does not stand in the rendered prompt as it is.
    """
    rendered = chat.decode(chat.render(examples.before("", [{"role": "user", "content": "1"}])))
    for example in examples.shown:
        expected = chat.decode(chat.tokenizer(example.response, add_special_tokens=False)["input_ids"])
        if expected.strip() not in rendered:
            raise UserError(
                f"The chat template of {chat.model.name} does not show an example as it was written.",
                why=f"{example.response[:80]!r} is not in the rendered prompt: some templates drop the reasoning of "
                "earlier turns.",
                fix="Give examples without reasoning (engine: {thinking: separate} where they are made), or another "
                "chat_template.jinja.",
            )
