"""Chats that a server renders, where no local tokenizer is available: they are sent as messages."""

from __future__ import annotations

from collections.abc import Sequence

from w2s_align.generation.settings import Engine
from w2s_align.records import Message


class ServerChat:
    """Takes the place of :class:`~w2s_align.generation.chat.Chat` for ``engine.api: chat``.

    Args:
        engine: ``system_prompt`` is used; ``chat_template_kwargs`` go to the server unchanged.
    """

    template_digest = ""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def audit(self, chats: Sequence[Sequence[Message]]) -> list[str]:
        """Return what cannot be checked."""
        return [
            "The server renders the prompts (engine.api: chat): its chat template is unknown, the tokens were not "
            "checked, and a prompt that is too long fails only when the server refuses it."
        ]

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """Return a chat as it is sent: roles and contents only, with the system prompt."""
        sent = [{"role": message["role"], "content": message["content"]} for message in messages]
        if self.engine.system_prompt is None or sent[0]["role"] == "system":
            return sent
        return [{"role": "system", "content": self.engine.system_prompt}, *sent]
