"""Chats of several turns: every role that is known, and a reason for every row that is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.interchange.chats import import_chats
from w2s_align.interchange.to_trl import SFT

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TOOL = {"role": "tool", "content": "4"}


def write(folder: Path, *values: Any, column: str = "messages") -> Path:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
    return path


def test_turns_and_roles_are_counted_and_shared_formats_are_read(tmp_path: Path) -> None:
    shared = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "observation", "value": "4"},
              {"from": "gpt", "value": "b"}]  # fmt: skip
    found = import_chats(write(tmp_path, [USER, ASSISTANT], [USER, ASSISTANT, TOOL, ASSISTANT, USER], shared))
    assert found.counts == {"rows_in": 3, "kept": 3, "dropped": {}}
    assert found.turns == {"1": 1, "2": 2} and found.roles == {"user": 3, "assistant": 5, "tool": 2}
    assert [turn["role"] for turn in found.table["messages"][1].as_py()] == ["user", "assistant", "tool", "assistant"]


def test_rows_that_cannot_be_learned_are_counted_with_their_reason(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    path = write(
        tmp_path, [USER, ASSISTANT], "text", [USER, {"role": "critic", "content": "c"}], [USER, call], [USER],
        [ASSISTANT], [USER, {"role": "assistant", "content": [{"type": "image"}]}],
    )  # fmt: skip
    found = import_chats(path)
    assert found.counts["dropped"] == {
        "no list of messages": 1,
        "an unknown role: critic": 1,
        "a tool call that is not text": 1,
        "no turn of the assistant after another one": 2,
        "a turn that is not text": 1,
    }
    assert "6 of 7 rows cannot be read" in found.warnings[0]


def test_the_column_is_found_or_named(tmp_path: Path) -> None:
    path = write(tmp_path, [USER, ASSISTANT], column="talk")
    with pytest.raises(UserError, match=r"no column of chats.*It has: talk"):
        import_chats(path)
    assert import_chats(path, column="talk").counts["kept"] == 1
    with pytest.raises(UserError, match="gives no chat: 1 no list of messages"):
        import_chats(write(tmp_path, "text"))


def test_chats_are_exported_with_a_card(tmp_path: Path) -> None:
    from w2s_align.interchange.pair_export import CardFacts, export_chats

    chats = [{"messages": [USER, ASSISTANT]}]
    table = pa.Table.from_pylist(chats, schema=SFT)
    (file,) = export_chats(table, tmp_path, CardFacts(name="Talks"), counts={"messages of the tool": 0})
    assert pq.read_table(file).to_pylist() == chats
    card = (tmp_path / "README.md").read_text()
    assert "# Talks" in card and "| messages of the tool | 0 |" in card and "pretty_name: Talks" in card
