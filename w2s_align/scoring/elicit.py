"""Zero-shot elicitation: what a language model says of an item by itself, without any label.

Reads items, asks for one word, and takes the probabilities of the words that stand for the classes. Students that
learn from these labels are the baseline without a supervisor (docs/methods/on_policy.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_align.errors import UserError
from w2s_align.records import Message, Settings
from w2s_align.scoring.item_models import ItemModel

if TYPE_CHECKING:
    import torch

OPTIONS = "{options}"
"""Where the question lists the words."""


class Words(Settings):
    """How a language model is asked for the class of an item."""

    by_class: dict[str, str]
    """For each class, the word that stands for it: {"0": "False", "1": "True"}."""
    question: str = "Options: {options}\nLabel:"
    """What follows the item; the model's next token is read. {options} lists the words."""
    both_orders: bool = False
    """Ask with the words in the given and in the reverse order. Where the two agree, their mean counts; where they do
    not, the one that is surer."""


def check_words(words: Words) -> None:
    """Refuse words between which nothing can be read.

    Raises:
        UserError: With what to write instead.
    """
    if len(words.by_class) < 2 or len(set(words.by_class.values())) < len(words.by_class):
        raise UserError(
            "by_class needs a word of its own for each of at least two classes.",
            fix='Write e.g. by_class: {"0": "False", "1": "True"}.',
        )
    if words.both_orders and OPTIONS not in words.question:
        raise UserError("both_orders changes nothing: the question lists no words.", fix="Write {options} in it.")


class WordModel(ItemModel):
    """A language model whose next word is the label.

    Args:
        model: Folder or hub id.
        revision: Revision on the hub.
        dtype: Number format.
        batch_size: Items in a forward pass.
        words: How it is asked.

    Raises:
        UserError: Two of the words begin with the same token.
    """

    def __init__(self, model: str, revision: str | None, dtype: str, batch_size: int, words: Words) -> None:
        super().__init__(model, revision, dtype, batch_size, "AutoModelForCausalLM")
        self.words, self.classes = words, list(words.by_class)
        self.order = list(words.by_class.values())
        # Behind a generation prompt a word stands alone, in a running text behind a space.
        space = " " if self.reader.template == "plain" else ""
        self.tokens = [self._first_token(space + word) for word in words.by_class.values()]
        if len(set(self.tokens)) < len(self.tokens):
            raise UserError(
                f"Two of the words {', '.join(words.by_class.values())} begin with the same token of {model}.",
                "The label is read at the first token.",
                "Use words that begin otherwise, such as A and B.",
            )

    def _first_token(self, word: str) -> int:
        ids: list[int] = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        alone = [one for one in ids if self.tokenizer.decode([one]).strip()]  # some keep the space apart
        if not alone:
            raise UserError(f"The word {word.strip()!r} has no token.", fix="Use another word in by_class.")
        return alone[0]

    def asked(self, chat: list[Message]) -> list[Message]:
        """Return an item with the question behind it."""
        question = self.words.question.replace(OPTIONS, " or ".join(self.order))
        return [*chat[:-1], {**chat[-1], "content": f"{chat[-1]['content']}\n{question}"}]

    def logits(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of the words after the last token of each item."""
        import torch

        last = mask.sum(dim=1) - 1
        found = self.model(input_ids=tokens, attention_mask=mask).logits[torch.arange(len(last)), last]
        words: torch.Tensor = found[:, self.tokens]  # items x classes
        return words

    def probabilities(self, chats: list[list[Message]]) -> list[list[float] | None]:
        """Return the probabilities of the classes, chats x classes; None for what the context cannot hold."""
        found = super().probabilities(chats)
        if not self.words.both_orders:
            return found
        self.order.reverse()
        other = super().probabilities(chats)
        self.order.reverse()
        return [_together(p, q) for p, q in zip(found, other, strict=True)]


def _together(p: list[float] | None, q: list[float] | None) -> list[float] | None:
    """Return the mean of two readings that agree, else the surer one."""
    if p is None or q is None:
        return None
    if p.index(max(p)) == q.index(max(q)):
        return [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return p if max(p) >= max(q) else q
