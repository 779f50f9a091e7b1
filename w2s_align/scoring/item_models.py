"""Models that read classification items and give each the probabilities of the classes.

Reads token ids by :class:`~w2s_align.scoring.items.ItemReader`; returns plain numbers. Models are opened in
transformers, on a GPU when there is one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.records import ClassProbability, Score
from w2s_align.scoring.items import ItemReader
from w2s_align.scoring.scorer import Outcome

if TYPE_CHECKING:
    import torch

SCORER = "label"
"""Name of the scorer in the rows of labels."""
TRAINED_ON = "trained on"
"""Outcome of a label that a classifier gave an item of its own training."""


class ItemModel:
    """A model that reads items, opened in transformers, on a GPU when there is one.

    Args:
        model: Folder or hub id.
        revision: Revision on the hub.
        dtype: Number format.
        batch_size: Items in a forward pass.
        auto_class: Class of transformers that opens it.

    Attributes:
        classes: The classes, in the order of the probabilities.
        reader: How it reads items.
    """

    classes: list[str]

    def __init__(self, model: str, revision: str | None, dtype: str, batch_size: int, auto_class: str) -> None:
        import torch
        import transformers

        config = transformers.AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
        self.config, self.reader = config, ItemReader.of(config, self.tokenizer)
        self.longest: int = getattr(config, "max_position_embeddings", None) or 2**20
        self.batch_size = batch_size
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and self.device == "cpu":
            dtype = "float32"
        opened = getattr(transformers, auto_class).from_pretrained(
            model, dtype=dtype, revision=revision, trust_remote_code=False
        )
        self.model: Any = opened.to(self.device).eval()
        self.pad: int = next(
            i for i in (config.pad_token_id, self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None
        )
        self.model.config.pad_token_id = self.pad  # the class is read at the last token that is not this one

    def probabilities(self, chats: list[list[dict[str, str]]]) -> list[list[float] | None]:
        """Return the probabilities of the classes, chats x classes; None for what the context cannot hold."""
        import torch

        ids = self.reader.ids(self.tokenizer, [self.asked(chat) for chat in chats])
        found: list[list[float] | None] = [None] * len(ids)
        fitting = [row for row in range(len(ids)) if 0 < len(ids[row]) <= self.longest and ids[row][-1] != self.pad]
        fitting.sort(key=lambda row: len(ids[row]))
        for start in range(0, len(fitting), self.batch_size):
            rows = fitting[start : start + self.batch_size]
            width = max(len(ids[row]) for row in rows)
            tokens = torch.full((len(rows), width), self.pad)  # items x tokens, filled up on the right
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            for place, row in enumerate(rows):
                tokens[place, : len(ids[row])] = torch.tensor(ids[row])
                mask[place, : len(ids[row])] = 1
            with torch.inference_mode():
                logits = self.logits(tokens.to(self.device), mask.to(self.device))
            for row, p in zip(rows, logits.double().softmax(dim=1).cpu().tolist(), strict=True):
                found[row] = p
        return found

    def asked(self, chat: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return what is read of an item."""
        return chat

    def logits(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of the classes, items x classes.

        Args:
            tokens: Items x tokens, filled up on the right.
            mask: 1 for tokens, 0 for padding.
        """
        found: torch.Tensor = self.model(input_ids=tokens, attention_mask=mask).logits
        return found

    def label(self, item: str, name: str, p: list[float] | None, own: Collection[str]) -> Score:
        """Return the label of an item."""
        if p is None:
            return Score(item, 0, name, SCORER, None, outcome=Outcome.TOO_LONG)
        probabilities: list[ClassProbability] = [
            {"label": label, "p": value} for label, value in zip(self.classes, p, strict=True)
        ]
        best = p.index(max(p))
        outcome = TRAINED_ON if item in own else None
        return Score(
            item, 0, name, SCORER, p[best], answer=self.classes[best], outcome=outcome, probabilities=probabilities
        )


class Classifier(ItemModel):
    """A sequence classifier."""

    def __init__(self, model: str, revision: str | None, dtype: str, batch_size: int) -> None:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        architecture = (config.architectures or ["none"])[0]
        if not architecture.endswith("ForSequenceClassification") or config.num_labels < 2:
            raise UserError(
                f"{model} is not a classifier.",
                f"It is a {architecture} with {config.num_labels} labels.",
                "Give the model of a step of kind classifier, any model for sequence classification, or words: by "
                "which a language model is asked.",
            )
        super().__init__(model, revision, dtype, batch_size, "AutoModelForSequenceClassification")
        self.classes = [str(config.id2label[i]) for i in sorted(config.id2label)]
