"""Labels: the probability of each class that a classifier gives an item, and items with labels as rows to train on.

Reads items (``Prompt.SCHEMA``), writes and reads labels (``Score.SCHEMA``): ``probabilities`` has every class,
``answer`` the most probable one, ``value`` its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.records import Score, to_table
from w2s_align.scoring.elicit import WordModel, Words
from w2s_align.scoring.item_models import Classifier, ItemModel
from w2s_align.scoring.items import item_messages

BLOCK = 2048
"""Items that are labeled before their labels are kept: what a kill can cost."""

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
        classifier = Classifier(model, revision, dtype, batch_size)
    else:
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


def training_rows(
    items: pa.Table, labels: pa.Table | None, classes: Sequence[str], view: str | None = None, *, gold: bool = False
) -> pa.Table:
    """Return items with their labels as rows to train on: ``prompt`` with ``label``, or with ``target``.

    Args:
        items: Rows of ``Prompt.SCHEMA``.
        labels: Rows of ``Score.SCHEMA``; None takes the gold answers, which are not read where there are labels.
        classes: The classes, in the order of targets.
        view: Which view of the items is read.
        gold: Add the gold answers as ``label`` beside ``target``, for diagnosis.

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
    table = pa.table({"prompt": prompts, "target": pa.array(found, pa.list_(pa.float64()))})
    return table.append_column("label", items["answer"]) if gold else table
