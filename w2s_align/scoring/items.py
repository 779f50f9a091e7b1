"""Classification items as a classifier reads them: a prompt, or one of its views, as token ids.

An item is a :class:`~w2s_align.records.Prompt` whose ``answer`` is one of the classes. It is read up to where an
answer would begin; where its last turn is the assistant's, up to the end of that unfinished turn. A *view* is another
text of the same item, in ``meta["views"]``: what a supervisor sees of it. The class is read at the last token. A model
is trained, labels and is tested with one way of reading, which stands in its configuration.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.errors import UserError, did_you_mean
from w2s_align.records import VIEWS, Message, Prompt, from_table

if TYPE_CHECKING:
    import pyarrow as pa

CONFIG = "w2s_items"
"""Entry of a classifier's configuration that says how it reads items."""


@dataclass(frozen=True)
class ItemReader:
    """How a classifier reads items.

    Attributes:
        template: ``chat`` renders them with the tokenizer's chat template; ``plain`` takes the text of their turns,
            with empty lines between, as a base model without a template reads it.
        view: Which text of each item; None for its messages.
        chat_template_kwargs: Arguments of the chat template.
        examples: Items with their classes (``text``, ``label``) that stand before every item, in an order that its
            text decides (arXiv 2410.13215). They are in the configuration, so that a model labels as it was trained.
    """

    template: Literal["chat", "plain"] = "chat"
    view: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, str]] = ()

    @classmethod
    def of(cls, config: Any, tokenizer: Any) -> ItemReader:
        """Return how a model reads items: as it was trained to, else by its chat template where it has one."""
        found = getattr(config, CONFIG, None)
        if isinstance(found, dict):
            return cls(**found)
        return cls("chat" if tokenizer.chat_template else "plain")

    def config(self) -> dict[str, Any]:
        """Return the entry of a model's configuration."""
        found = asdict(self)
        if not self.examples:  # configurations of models without examples stay as they were
            del found["examples"]
        return found

    def ids(self, tokenizer: Any, chats: Sequence[list[Message]]) -> list[list[int]]:
        """Return the token ids of items.

        Args:
            tokenizer: The classifier's tokenizer.
            chats: Messages of each item, or of a view of it.

        Raises:
            UserError: The chat template refuses them.
        """
        if not chats:
            return []
        chats = [self._after_examples(chat) for chat in chats] if self.examples else chats
        if self.template == "plain":
            texts = [item_text(chat) for chat in chats]
            found: list[list[int]] = tokenizer(texts)["input_ids"]
            return found
        rendered = [self._rendered(tokenizer, chat) for chat in chats]
        # The template has written the special tokens already.
        ids: list[list[int]] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return ids

    def _after_examples(self, chat: list[Message]) -> list[Message]:
        """Put the examples before the first turn of the user, or before the text where nobody asks."""
        seed = int.from_bytes(hashlib.sha256(item_text(chat).encode()).digest()[:8], "big")
        order = random.Random(seed).sample(range(len(self.examples)), len(self.examples))
        shown = "\n\n".join(f"{self.examples[at]['text']}\n{self.examples[at]['label']}" for at in order)
        first = next((at for at, turn in enumerate(chat) if turn["role"] == "user"), 0)
        asked = {**chat[first], "content": f"{shown}\n\n{chat[first]['content']}"}
        return [*chat[:first], asked, *chat[first + 1 :]]

    def _rendered(self, tokenizer: Any, chat: list[Message]) -> str:
        before, last = (chat[:-1], chat[-1]["content"]) if chat[-1]["role"] == "assistant" else (chat, "")
        try:
            # The unfinished turn is put behind the generation prompt: templates may trim what they render.
            text = tokenizer.apply_chat_template(
                before, tokenize=False, add_generation_prompt=True, **self.chat_template_kwargs
            )
        except Exception as error:  # jinja2 raises its own classes, templates raise by raise_exception()
            raise UserError(
                "The classifier's chat template refuses an item.",
                f"It says: {error}. Its roles are {' > '.join(turn['role'] for turn in chat)}.",
                "Use chats that the template knows, or template: plain.",
            ) from error
        return str(text) + last


def item_text(chat: Sequence[Message]) -> str:
    """Return an item as plain text: its turns, with empty lines between."""
    return "\n\n".join(message["content"] for message in chat)


def item_messages(items: pa.Table, view: str | None = None) -> list[list[Message]]:
    """Return the messages of items, or of a view of them.

    Args:
        items: Rows of ``Prompt.SCHEMA``.
        view: Name of the view.

    Raises:
        UserError: An item has no such view.
    """
    if view is None:
        found: list[list[Message]] = items["messages"].to_pylist()
        return found
    chats = []
    for item in from_table(Prompt, items):
        views = item.meta.get(VIEWS) or {}
        if view not in views:
            raise UserError(
                f"The item {item.id} has no view {view}.",
                f"Its views are: {', '.join(views) or 'none'}.",
                did_you_mean(view, views) if views else "Leave view out, or make items that have views (lab/carry).",
            )
        chats.append(views[view])
    return chats
