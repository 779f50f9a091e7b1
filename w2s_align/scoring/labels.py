"""Labels: the probability of each class that a classifier gives an item, and items with labels as rows to train on.

Reads items (``Prompt.SCHEMA``), writes and reads labels (``Score.SCHEMA``): ``probabilities`` has every class,
``answer`` the most probable one, ``value`` its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.records import ClassProbability, Score, to_table
from w2s_align.scoring.items import ItemReader, item_messages
from w2s_align.scoring.scorer import Outcome

if TYPE_CHECKING:
    import torch

    from w2s_align.scoring.elicit import Words

SCORER = "label"
"""Name of the scorer in the rows of labels."""
BLOCK = 2048
"""Items that are labeled before their labels are kept: what a kill can cost."""
TRAINED_ON = "trained on"
"""Outcome of a label that a classifier gave an item of its own training."""

Progress = Callable[[int, int, str], None]


def label_items(
    model: str,
    items: pa.Table,
    *,
    name: str,
    views: Sequence[str] = (),
    own: Collection[str] = (),
    batch_size: int = 64,
    dtype: str = "auto",
    revision: str | None = None,
    words: Words | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """Give each item the probabilities of the classes.

    Args:
        model: A sequence classifier with at least two labels: a folder, or a hub id; with ``words`` a language model.
        items: Rows of ``Prompt.SCHEMA``.
        name: Name of the model in the labels.
        views: Views of the items that the model reads; of several, probabilities are averaged. Default: the one that
            it was trained on.
        own: Ids of items that the model was trained on: their labels are marked.
        batch_size: Items in a forward pass; changes no label.
        dtype: Number format; ``auto`` is float32 on a CPU, else the model's own.
        revision: Revision on the hub.
        words: The words by which a language model is asked for the classes (:mod:`w2s_align.scoring.elicit`).
        folder: Where finished blocks are kept, to go on from.
        progress: Called with items done, items in all and a note.

    Raises:
        UserError: The model is no classifier, or an item has no such view.
    """
    classifier: ItemModel
    if words is None:
        classifier = _Classifier(model, revision, dtype, batch_size)
    else:
        from w2s_align.scoring.elicit import WordModel

        classifier = WordModel(model, revision, dtype, batch_size, words)
    wanted: Sequence[str | None] = views or [classifier.reader.view]
    found = []
    for start in range(0, items.num_rows, BLOCK):
        kept = folder / f"{start:09d}.parquet" if folder else None
        if kept and kept.exists():
            found.append(pq.read_table(kept, schema=Score.SCHEMA))
            continue
        block = items.slice(start, BLOCK)
        each = [classifier.probabilities(item_messages(block, view)) for view in wanted]
        means = [_mean(row) for row in zip(*each, strict=True)]
        ids = block["id"].to_pylist()
        rows = [classifier.label(one, name, p, own) for one, p in zip(ids, means, strict=True)]
        found.append(to_table(rows, Score))
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial")
            pq.write_table(found[-1], partial)
            partial.replace(kept)
        if progress:
            progress(min(start + BLOCK, items.num_rows), items.num_rows, name)
    return pa.concat_tables(found) if found else to_table([], Score)


def _mean(rows: Sequence[list[float] | None]) -> list[float] | None:
    """Return the mean of the probabilities of an item's views; None where one could not be read."""
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return None
    return [sum(column) / len(known) for column in zip(*known, strict=True)]


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


class _Classifier(ItemModel):
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


def training_rows(
    items: pa.Table, labels: pa.Table | None, classes: Sequence[str], view: str | None = None
) -> pa.Table:
    """Return items with their labels as rows to train on: ``prompt`` with ``label``, or with ``target``.

    Args:
        items: Rows of ``Prompt.SCHEMA``.
        labels: Rows of ``Score.SCHEMA``; None takes the gold answers, which are not read where there are labels.
        classes: The classes, in the order of targets.
        view: Which view of the items is read.

    Returns:
        One row for each item, in their order; its label is null where there is none.

    Raises:
        UserError: The labels belong to other items or other classes, or an item has no such view.
    """
    prompts = pa.array(item_messages(items, view), items.schema.field("messages").type)
    if labels is None:
        return pa.table({"prompt": prompts, "label": items["answer"].combine_chunks()})
    targets: dict[str, list[float]] = {}
    for row in labels.select(["prompt_id", "probabilities"]).to_pylist():
        if row["probabilities"] is not None:
            p = {entry["label"]: entry["p"] for entry in row["probabilities"]}
            if set(p) != set(classes):
                raise UserError(
                    f"The labels are of the classes {', '.join(p)}.",
                    f"The classes here are {', '.join(classes)}.",
                    "Name the same classes in both classifiers.",
                )
            targets[row["prompt_id"]] = [p[name] for name in classes]
    found = [targets.get(item) for item in items["id"].to_pylist()]
    if items.num_rows and not any(target is not None for target in found):
        raise UserError(
            f"The labels belong to other items: none of the {items.num_rows:,} items has one.",
            f"There are {len(targets):,} labels.",
            "Let step label read the same items as the classifier that learns from its labels.",
        )
    return pa.table({"prompt": prompts, "target": pa.array(found, pa.list_(pa.float64()))})
