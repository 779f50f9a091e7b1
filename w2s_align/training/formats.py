"""Rows of training data as users have them: reads tables in TRL's conversational formats, returns plain values.

What is incomplete is counted by its reason, never passed over in silence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import MESSAGES, PAIR_TERMS, Message, Prompt, as_label, is_response, shared_turns

Source: TypeAlias = str | os.PathLike[str] | pa.Table
"""One set of rows: a Parquet file, a folder of them, or an Arrow table."""
Rows: TypeAlias = Source | Sequence[dict[str, Any]] | Sequence[Source]
"""Training data: a Parquet file, a folder of them, an Arrow table, rows as dicts, or a list of several of the first
three, whose rows are put together."""

BATCH = 512
"""Rows that are read at once."""


def sources_of(rows: Rows) -> list[Source | Sequence[dict[str, Any]]]:
    """Return the sets of rows that data consists of: one, or those of a list of several."""
    if isinstance(rows, (str, os.PathLike, pa.Table)) or not rows or isinstance(rows[0], dict):
        return [rows]
    return list(rows)


def read_rows(
    source: Source | Sequence[dict[str, Any]], needed: tuple[str, ...] = ()
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one set in batches.

    Args:
        source: One of :func:`sources_of`.
        needed: Columns that pairs must have; ``("response",)`` stands for one of the SFT formats, ``("label",)`` for
            items with classes, ``("messages",)`` for prompts alone.

    Raises:
        UserError: The source is missing, not Parquet, or lacks a column.
    """
    table = _open(source)
    columns = _columns(table.schema.names, needed)
    for batch in table.to_batches(columns=columns, batch_size=BATCH):
        if batch.num_rows:
            yield batch.to_pylist()


def pair_terms(rows: Rows) -> list[str]:
    """Return which columns of ``PAIR_TERMS`` the data have, in any of their sets.

    Args:
        rows: One set of rows, or several.

    Raises:
        UserError: A set is missing, or is not Parquet.
    """
    found = {name for source in sources_of(rows) for name in _open(source).schema.names}
    return [name for name in PAIR_TERMS.names if name in found]


def _open(source: Source | Sequence[dict[str, Any]]) -> Any:
    """Open one set of rows as a dataset of Arrow."""
    import pyarrow.dataset as ds

    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not path.exists() or not files:
            raise UserError(f"{path} has no training data.", "There is no Parquet file.", "Give a .parquet file.")
        try:
            return ds.dataset([str(file) for file in files], format="parquet")
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet.", str(error), "Give a Parquet file.") from error
    return ds.dataset(source if isinstance(source, pa.Table) else pa.Table.from_pylist(list(source)))


def _columns(names: list[str], needed: tuple[str, ...]) -> list[str]:
    for name in ("images", "image", "tools"):
        if name in names:
            raise UserError(f"The data has a column {name}.", "It would be ignored.", f"Remove the column {name}.")
    formats = [["prompt", "chosen", "rejected"], ["chosen", "rejected"]]
    if needed == ("response",):
        formats = [["messages"], ["prompt", "completion"], *formats]
    if needed == ("label",):
        formats = [["prompt", "target", "label"], ["prompt", "target"], ["prompt", "label"]]
    if needed == ("messages",):
        formats = [list(Prompt.SCHEMA.names), ["messages"], ["prompt"]]
    if needed == ("completion",):
        formats = [["prompt", "completion", "label"], *formats]
    for columns in formats:
        if set(columns) <= set(names):
            return [*columns, *(name for name in PAIR_TERMS.names if name in names and "chosen" in columns)]
    choices = ", or ".join(" + ".join(columns) for columns in formats)
    raise UserError(
        f"The data has the columns {', '.join(names) or '(none)'}.", f"Needed are {choices}.", "Rename the columns."
    )


def pair_of(row: dict[str, Any], dropped: Counter[str]) -> dict[str, list[Message]] | None:
    """Return a row as prompt, chosen and rejected, each as messages; None, and counted, where that is impossible."""
    chosen, rejected, prompt = _messages(row["chosen"]), _messages(row["rejected"]), row.get("prompt")
    if not chosen or not rejected:
        dropped["incomplete"] += 1
        return None
    if len(chosen) > 1 or len(rejected) > 1:
        begins = {side[0]["role"] == "assistant" for side in (chosen, rejected)}
        shared = shared_turns(chosen, rejected)
        if begins == {False} and shared:  # whole chats on both sides, with the prompt repeated or implied
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        elif begins != {True}:
            dropped["different_prompts"] += 1
            return None
        if not (is_response(chosen) and is_response(rejected)):
            dropped["response_not_the_assistants"] += 1
            return None
    prompt = _messages(prompt)
    if not prompt:
        dropped["without_prompt"] += 1
        return None
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def labeled_of(row: dict[str, Any], dropped: Counter[str]) -> list[dict[str, Any]]:
    """Return a row as responses with labels: one, or the two of a pair."""
    if "label" in row:
        prompt, completion = _messages(row["prompt"]), _messages(row["completion"])
        if not prompt or not completion or row["label"] is None:
            dropped["incomplete"] += 1
            return []
        if not is_response(completion):
            dropped["response_not_the_assistants"] += 1
            return []
        label = as_label(row["label"])
        if label is None:
            dropped["unknown_label"] += 1
            return []
        return [{"prompt": prompt, "completion": completion, "label": label}]
    pair = pair_of(row, dropped)
    sides = (("chosen", True), ("rejected", False))
    return (
        [{"prompt": pair["prompt"], "completion": pair[side], "label": good} for side, good in sides] if pair else []
    )


def chat_of(row: dict[str, Any], side: str, dropped: Counter[str]) -> tuple[list[Message], list[Message]] | None:
    """Return a row as prompt and response, as messages; None, and counted, where that is impossible.

    Args:
        row: A row in one of the SFT formats, or a pair.
        side: Which side of a pair is the response.
        dropped: Counts by reason, which are added to.
    """
    if "messages" in row:
        chat = _messages(row["messages"])
    elif "completion" in row:
        chat = [*_messages(row["prompt"]), *_messages(row["completion"])]
    else:
        answer = _messages(row[side])
        whole = len(answer) > 1 and answer[0]["role"] != "assistant"
        chat = answer if whole else [*_messages(row.get("prompt")), *answer]
    if len(chat) < 2 or chat[-1]["role"] != "assistant":
        dropped["incomplete"] += 1
        return None
    return chat[:-1], chat[-1:]


def _messages(value: Any) -> list[Message]:
    if value is None:
        return []
    if isinstance(value, str) or not all(isinstance(turn, dict) for turn in value):
        raise UserError(
            "The data holds plain texts where chats belong.",
            f"For example: {str(value)[:80]!r}.",
            'Write each as messages: [{"role": "user", "content": "..."}].',
        )
    if any(not turn.get("role") or turn.get("content") is None for turn in value):
        return []
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]


def responses_as_chats(prompts: pa.Table, responses: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return generated responses as chats to train on.

    Args:
        prompts: ``Prompt.SCHEMA``.
        responses: ``Response.SCHEMA``; those that were never made or were cut at their token limit are left out.

    Returns:
        ``prompt`` and ``completion`` as messages, and how many responses were left out, by reason.
    """
    messages = dict(zip(prompts["id"].to_pylist(), prompts["messages"].to_pylist(), strict=True))
    dropped: Counter[str] = Counter()
    chats = []
    for row in responses.select(["prompt_id", "text", "finish_reason"]).to_pylist():
        if row["finish_reason"] != "stop" or not row["text"]:
            dropped["cut_short" if row["finish_reason"] == "length" else "without_response"] += 1
            continue
        answer = [{"role": "assistant", "content": row["text"]}]
        chats.append({"prompt": messages[row["prompt_id"]], "completion": answer})
    schema = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES)])
    return pa.Table.from_pylist(chats, schema=schema), dict(dropped)
