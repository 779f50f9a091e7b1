"""Rows as the trainers take them: preference pairs, labeled responses, chats; checked, tokenized and stored.

A kind of training whose rows have another form calls :func:`~w2s_align.training.arrow_file.store_rows` in its own
file.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import MESSAGES, PAIR_TERMS, Message
from w2s_align.training.arrow_file import store_rows
from w2s_align.training.batching import fixed_order
from w2s_align.training.data import OTHERS, TOKENS, RowCollector, TrainingData
from w2s_align.training.formats import Rows, chat_of, labeled_of, pair_of, pair_terms
from w2s_align.training.pair_terms import stored_terms
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.tokens import ChatEncoder

SIDES = ("chosen", "rejected")
"""The responses of a pair."""
SPANS = pa.list_(pa.list_(pa.int32()))
"""Begins and ends of what others say inside a response of several turns."""
CHANGED = "template_changes_earlier_turns"
"""What rows are counted under whose template renders a turn differently once another one follows."""


def prepare_pairs(
    pairs: Rows,
    encoder: ChatEncoder,
    settings: TrainSettings,
    folder: Path,
    *,
    tokens: bool = False,
    ld_alpha: float | None = None,
) -> TrainingData:
    """Check and filter preference pairs, and store the rest for a trainer of TRL.

    Args:
        pairs: Rows with ``prompt``, ``chosen``, ``rejected`` as messages (``Pair.SCHEMA``, or any such table); where
            ``chosen`` and ``rejected`` hold whole chats, the prompt is what they share.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``. An existing file is used again.
        tokens: Store ``chosen_ids``, ``rejected_ids`` and ``start`` (of the responses) in place of messages, for
            trainers that would tokenize by other rules than those that were checked. Where others speak inside a
            response, ``chosen_others`` and ``rejected_others`` say from which token to which.
        ld_alpha: Weight of tokens beyond the shared length, where the loss has one: it changes log-probabilities.

    Raises:
        UserError: A column is missing, nothing is left, both sides are equal in every pair, the template is wrong, or
            a row is too long and ``too_long`` is ``error``.
    """
    schema = pa.schema([("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES)])
    if tokens:
        schema = pa.schema([("chosen_ids", TOKENS), ("rejected_ids", TOKENS), ("start", pa.int32())])
    for side in SIDES:
        schema = schema.append(pa.field(f"{side}_{OTHERS}", SPANS))
    terms = settings.pair_terms(pair_terms(pairs))
    schema = pa.schema([*schema, *(PAIR_TERMS.field(name) for name in terms)])

    def convert(rows: list[dict[str, Any]], table: RowCollector) -> list[dict[str, Any]]:
        split = [(pair, row) for row in rows if (pair := pair_of(row, table.dropped))]
        answers = encoder.encode_turns(*([pair[side] for pair, _ in split] for side in ("prompt", *SIDES)))
        kept: list[dict[str, Any]] = []
        for (pair, row), sides in zip(split, answers, strict=True):
            if sides is None:
                table.dropped[CHANGED] += 1
                continue
            chosen, rejected = sides
            if table.keep({"chosen": chosen, "rejected": rejected}):
                ids = [answer.ids[: settings.max_length] for answer in (chosen, rejected)]
                # By what is trained on: a template may trim, and a cut may take what made the difference.
                table.identical += ids[0] == ids[1]
                made = {"chosen_ids": ids[0], "rejected_ids": ids[1], "start": chosen.start}
                # Only where there are any: what is stored of other rows stays the same to the byte.
                others = {f"{name}_{OTHERS}": answer.others for name, answer in zip(SIDES, sides, strict=True)}
                more = {name: spans for name, spans in others.items() if spans} | stored_terms(row, terms)
                kept.append({**(made if tokens else pair), **more})
        return kept

    data = store_rows(pairs, schema, ("chosen", "rejected"), convert, encoder, settings, folder, ld_alpha=ld_alpha)
    _refuse_equal(data, data.rows)
    if "weight" not in terms:
        _say_unread(pairs, data)
    return data


def silence(mask: Any, spans: Sequence[Sequence[Sequence[int]] | None], value: int = 0) -> None:
    """Overwrite what others say in a tensor of masks or labels, in place.

    Args:
        mask: ``(rows, length)``.
        spans: For each row, begins and ends; None for none.
        value: What marks tokens without loss.
    """
    for row, found in enumerate(spans):
        for begin, end in found or ():
            mask[row, begin:end] = value


def _say_unread(rows: Rows, data: TrainingData) -> None:
    """Note weights that this kind of training does not read."""
    if "weight" in pair_terms(rows):
        data.notes.append("The pairs carry weights. This kind of training does not read them: every row weighs 1.")


def _refuse_equal(data: TrainingData, pairs: int) -> None:
    """Refuse data in which both sides of every pair are equal."""
    if data.counts.identical == pairs:
        raise UserError(
            f"In all {pairs} pairs the chosen response equals the rejected one.",
            "Such pairs carry no preference; what counts is what is trained on, after the template and max_length.",
            "Raise max_length, or set too_long to drop."
            if data.counts.cut
            else "Check which two sets of responses were paired.",
        )


def prepare_labeled(
    pairs: Rows, encoder: ChatEncoder, settings: TrainSettings, folder: Path, *, seed: int, together: int
) -> TrainingData:
    """Take pairs apart into good and bad responses, in random order, for TRL's KTO trainer.

    KTO estimates a KL term from responses under prompts that they do not belong to. TRL pairs them up within one
    forward pass, and reads rows in the order of the file. Here the order depends on the seed, and each prompt gets
    the response of its neighbor within ``together`` rows, whatever the forward passes are.

    Args:
        pairs: As for :func:`prepare_pairs`; rows with ``prompt``, ``completion`` and ``label`` also fit.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes.
        seed: Seed of the order.
        together: Rows over which the KL term is estimated; the number of rows is filled up to whole batches.

    Raises:
        UserError: As for :func:`prepare_pairs`.
    """
    schema = pa.schema(
        [
            ("prompt", MESSAGES),
            ("completion", MESSAGES),
            ("label", pa.bool_()),
            ("neighbor_ids", TOKENS),
            (OTHERS, SPANS),
            (f"neighbor_{OTHERS}", SPANS),
        ]
    )
    tails: list[list[int]] = []
    silent: list[list[tuple[int, int]]] = []
    seen: dict[bytes, list[int]] = {}

    def convert(rows: list[dict[str, Any]], table: RowCollector) -> list[dict[str, Any]]:
        split = [part for row in rows for part in labeled_of(row, table.dropped)]
        answers = encoder.encode_turns([part["prompt"] for part in split], [part["completion"] for part in split])
        kept = []
        for part, sides in zip(split, answers, strict=True):
            if sides is None:
                table.dropped[CHANGED] += 1
                continue
            (answer,) = sides
            if table.keep({"good" if part["label"] else "bad": answer}):
                ids = answer.ids[: settings.max_length]
                # As for pairs by what is trained on: the same response under the same prompt, once good and once bad.
                times = seen.setdefault(hashlib.sha256(array("q", ids).tobytes()).digest(), [0, 0])
                times[part["label"]] += 1
                table.identical += times[part["label"]] <= times[not part["label"]]
                tails.append(ids[answer.start :])
                silent.append([(begin - answer.start, end - answer.start) for begin, end in answer.others])
                kept.append({**part, "neighbor_ids": [], **({OTHERS: answer.others} if answer.others else {})})
        return kept

    def arrange(table: pa.Table) -> pa.Table:
        order = fixed_order(table.num_rows, settings, seed)
        blocks = [order[i : i + together] for i in range(0, len(order), together)]
        table = table.take(order)
        for name, values in (("neighbor_ids", tails), (f"neighbor_{OTHERS}", silent)):
            column = schema.get_field_index(name)
            neighbors = [values[block[i - 1]] for block in blocks for i in range(len(block))]
            table = table.set_column(column, schema.field(column), pa.array(neighbors, schema.field(column).type))
        return table

    needed = ("completion",)
    key = {"seed": seed, "together": together, "batch_size": settings.batch_size}
    data = store_rows(pairs, schema, needed, convert, encoder, settings, folder, arrange, **key)
    _say_unread(pairs, data)
    if data.rows % 2 == 0:
        _refuse_equal(data, data.rows // 2)
    classes = [name for name in ("good", "bad") if name in data.lengths]
    if len(classes) == 1:
        data.notes.append(
            f"All {data.rows} responses are labeled {classes[0]}: there is nothing to tell them from, and training "
            f"moves all of them {'up' if classes[0] == 'good' else 'down'}."
        )
    return data


def prepare_chats(
    rows: Rows,
    encoder: ChatEncoder,
    settings: TrainSettings,
    folder: Path,
    *,
    side: Literal["chosen", "rejected", "both"] = "chosen",
    turns: Literal["last", "all"] = "last",
) -> TrainingData:
    """Tokenize chats for supervised fine-tuning; the last assistant turn carries loss, or each of them.

    Args:
        rows: Preference pairs (the side is ``side``), rows with ``messages``, or with ``prompt`` and
            ``completion``.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do with rows that are too long.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``.
        side: Which side of pairs is the response; of both, each is a row.
        turns: Which of the assistant's turns carry loss.

    Raises:
        UserError: As for :func:`prepare_pairs`.
    """
    schema = pa.schema([("input_ids", TOKENS), ("labels", TOKENS)])
    key: dict[str, Any] = {"side": side} | ({"turns": turns} if turns != "last" else {})

    def convert(batch: list[dict[str, Any]], table: RowCollector) -> list[dict[str, Any]]:
        split = [
            chat
            for row in batch
            for one in (("chosen", "rejected") if side == "both" and "chosen" in row else (side,))
            if (chat := chat_of(row, one, table.dropped))
        ]
        if turns == "all":
            split = [_from_the_first_turn([*prompt, *response]) for prompt, response in split]
        answers = encoder.encode_turns([prompt for prompt, _ in split], [response for _, response in split])
        kept = []
        for sides in answers:
            if sides is None:
                table.dropped[CHANGED] += 1
            elif table.keep({"response": (answer := sides[0])}):
                ids = answer.ids[: settings.max_length]
                labels = [token if answer.has_loss(at) else -100 for at, token in enumerate(ids)]
                kept.append({"input_ids": ids, "labels": labels})
        return kept

    data = store_rows(rows, schema, ("response",), convert, encoder, settings, folder, **key)
    _say_unread(rows, data)
    return data


def _from_the_first_turn(chat: list[Message]) -> tuple[list[Message], list[Message]]:
    """Split a chat before the assistant's first turn that answers something."""
    first = next(at for at, turn in enumerate(chat) if at and turn["role"] == "assistant")
    return chat[:first], chat[first:]
