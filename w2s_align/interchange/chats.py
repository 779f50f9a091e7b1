"""Chats of several turns, with tool messages, from files and the hub: what supervised fine-tuning learns turn by turn.

Reads JSONL, JSON, Parquet or a dataset of the hub; every row that is left out is counted with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.interchange.columns import cell, find_columns
from w2s_align.interchange.pair_layouts import ROLES_WITH_TOOLS
from w2s_align.interchange.readers import ROW_FILES, Broken, broken_in_words, hub_dataset, numbered_rows
from w2s_align.lab import ARGUMENTS, argument_chats
from w2s_align.records import MESSAGES, Message, valid_unicode

CHATS: dict[str, tuple[str, ...]] = {"messages": ("messages", "conversations", "conversation", "chat", "dialog")}
"""The column of the chat, under the names by which it is found."""

LAB_CHATS = 4000
"""Chats of lab/arguments, where no limit is given."""
LAB_SEED = 0
"""Seed of lab/arguments: a source of chats is a fixed set of rows."""


@dataclass(frozen=True)
class Chats:
    """Chats and what happened to the rows they came from.

    Attributes:
        table: One column, ``messages``.
        counts: ``rows_in``, ``kept``, ``dropped`` by reason.
        turns: Chats by the number of the assistant's turns.
        roles: Messages by role.
        warnings: What a user should know of the rows, as sentences.
    """

    table: pa.Table
    counts: dict[str, Any]
    turns: dict[str, int] = field(default_factory=dict)
    roles: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def import_chats(
    source: str | Path,
    *,
    column: str | None = None,
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Chats:
    """Read chats.

    Args:
        source: A file, the id of a dataset on the hub, or lab/arguments.
        column: The column of the chat, where it has none of the usual names.
        split: Split of a dataset on the hub.
        config_name: Configuration of a dataset on the hub.
        revision: Commit, tag or branch of a dataset on the hub.
        limit: Read this many rows.

    Raises:
        UserError: The source cannot be read, has no such column, or gives no chat.
    """
    path = Path(source).expanduser()
    rows: Iterable[tuple[str, dict[str, Any] | Broken]]
    if str(source) == ARGUMENTS:
        made = argument_chats(limit or LAB_CHATS, LAB_SEED)
        rows = ((f"row {number}", {"messages": chat}) for number, chat in enumerate(made, start=1))
    elif path.suffix in ROW_FILES or path.exists():
        rows = numbered_rows(path)
    else:
        hub = hub_dataset(str(source), config_name, split, revision=revision)
        rows = ((f"row {number}", row) for number, row in enumerate(hub, start=1))
    kept: list[list[Message]] = []
    broken: list[tuple[str, str]] = []
    for place, row in islice(rows, limit):
        found = row.reason if isinstance(row, Broken) else chat_of_row(row, _column(row, column, str(source)))
        if isinstance(found, str):
            broken.append((place, found))
        else:
            kept.append(found)
    total, dropped = len(kept) + len(broken), Counter(reason for _, reason in broken)
    if not kept:
        said = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "there are no rows"
        raise UserError(f"{source} gives no chat: {said}.", fix="Check the file and its column of messages.")
    return Chats(
        pa.table({"messages": pa.array(kept, MESSAGES)}),
        {"rows_in": total, "kept": len(kept), "dropped": dict(dropped)},
        turns={str(n): c for n, c in sorted(Counter(_assistant_turns(chat) for chat in kept).items())},
        roles=dict(Counter(turn["role"] for chat in kept for turn in chat)),
        warnings=[broken_in_words(total, broken)] if broken else [],
    )


def _column(row: Mapping[str, Any], named: str | None, source: str) -> str:
    found = named or find_columns(CHATS, row).get("messages")
    if found is None:
        raise UserError(
            f"{source} has no column of chats.",
            why=f"It has: {', '.join(row)}.",
            fix="Say which one it is: column: <name>",
        )
    return found


def chat_of_row(row: Mapping[str, Any], column: str) -> list[Message] | str:
    """Return the chat of a row up to the assistant's last turn, or say why there is none.

    Args:
        row: A row of the data.
        column: The column of the chat.
    """
    value = cell(row, column)
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        return "no list of messages"
    chat: list[Message] = []
    for turn in value:
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        known = ROLES_WITH_TOOLS.get(role) if isinstance(role, str) else None
        if known is None:
            return f"an unknown role: {str(role)[:40]}"
        if turn.get("tool_calls") or not isinstance(content, str):
            return "a turn that is not text" if not turn.get("tool_calls") else "a tool call that is not text"
        chat.append({"role": known, "content": valid_unicode(content)})
    while chat and chat[-1]["role"] != "assistant":
        chat.pop()
    return chat if _assistant_turns(chat) else "no turn of the assistant after another one"


def _assistant_turns(chat: list[Message]) -> int:
    return sum(turn["role"] == "assistant" for turn in chat[1:])
