"""Preference data whose responses hold several turns: prompts, texts for the filters, audit, page and export."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.interchange import export_pairs, import_pairs
from w2s_align.pairing import Filters
from w2s_align.pairing.audit import Audit


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


TOOL = {"role": "tool", "content": "42"}
CALLED = [said("I call the tool"), TOOL, said("It is 42")]
EXPLICIT = {"prompt": [user("What?")], "chosen": CALLED, "rejected": [said("41")]}
WHOLE = {
    "chosen": [user("Hi"), said("Hello"), user("What?"), *CALLED],
    "rejected": [user("Hi"), said("Hello"), user("What?"), said("41")],
}
AFTER_TOOL = {"chosen": [user("What?"), *CALLED], "rejected": [user("What?"), *CALLED[:2], said("It is 4")]}


@pytest.mark.parametrize("way", ["rows", "parquet"])
def test_the_prompt_is_what_both_chats_share(tmp_path, way):
    source = [EXPLICIT, {"prompt": None, **WHOLE}, {"prompt": None, **AFTER_TOOL}]
    if way == "parquet":
        pq.write_table(pa.Table.from_pylist(source), tmp_path / "pairs.parquet")
        source = tmp_path / "pairs.parquet"
    pairs = import_pairs(source, turns="all")
    made = pairs.table.to_pylist()
    assert [row["prompt"] for row in made] == [[user("What?")], WHOLE["chosen"][:3], AFTER_TOOL["chosen"][:3]]
    assert [row["chosen"] for row in made] == [CALLED, CALLED, [said("It is 42")]]
    assert [row["rejected"] for row in made] == [[said("41")], [said("41")], [said("It is 4")]]
    own = len("I call the tool\n\nIt is 42")
    assert pairs.lengths["chosen_chars"].to_pylist() == [own, own, len("It is 42")]
    audit = pairs.audit()
    assert audit.several_turns == 2 and "lengths and text filters are of what the assistant says" in str(audit)
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit


def test_labels_may_have_several_turns_too():
    rows = [
        {"prompt": [user("What?")], "completion": CALLED, "label": True},
        {"prompt": [user("What?")], "completion": [said("41")], "label": False},
    ]
    assert import_pairs(rows, turns="all").table["chosen"].to_pylist() == [CALLED]


BROKEN = [
    ({**EXPLICIT, "chosen": CALLED[:2]}, "a response does not begin and end with the assistant's turn"),
    ({**EXPLICIT, "chosen": [user("What?"), *CALLED]}, "one side is a whole chat, the other one a response alone"),
    ({**WHOLE, "prompt": [user("Who?")]}, "the chats do not contain the prompt"),
    ({**WHOLE, "rejected": [user("Other"), said("b")]}, "the chats share no turn that could be their prompt"),
    (
        {**EXPLICIT, "chosen": [{**said("x"), "tool_calls": [{"id": "1"}]}, TOOL, said("y")]},
        "a turn without a known role and a text",
    ),
]


@pytest.mark.parametrize(("row", "reason"), BROKEN, ids=[reason[:30] for _, reason in BROKEN])
def test_rows_that_cannot_be_read_have_a_reason(row, reason):
    pairs = import_pairs([EXPLICIT, row], turns="all")
    assert pairs.counts.dropped["row"] == {reason: 1} and pairs.table.num_rows == 1


def test_without_the_option_the_way_to_it_is_said():
    with pytest.raises(UserError, match="turns: all"):
        import_pairs([WHOLE, EXPLICIT])
    with pytest.raises(UserError, match="does not fit ratings"):
        import_pairs([{"prompt": "q", "responses": ["a", "b"], "ratings": [1, 2]}], turns="all")


def test_pairs_of_one_turn_are_the_same_with_and_without_the_option():
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    plain, found = import_pairs(rows), import_pairs(rows, turns="all")
    assert plain.table.equals(found.table) and plain.audit().to_json() == found.audit().to_json()
    assert "several_turns" not in plain.audit().to_json()


def test_filters_look_at_what_the_assistant_says():
    rows = [{**EXPLICIT, "rejected": [said("I CALL the tool"), {**TOOL, "content": "7"}, said("It is  42")]}, WHOLE]
    pairs = import_pairs(rows, turns="all")
    assert pairs.counts.dropped["pair"] == {"identical": 1}
    kept = import_pairs([EXPLICIT, WHOLE], turns="all", filters=Filters(max_length_gap=10, length_unit="chars"))
    assert kept.table.num_rows == 0 and kept.counts.dropped["pair"] == {"length gap": 2}


@pytest.mark.parametrize("format", ["preference", "unpaired", "sft"])
def test_exports_hold_the_turns_and_the_card_says_so(tmp_path, format):
    pairs = import_pairs([EXPLICIT], turns="all")
    (file,) = export_pairs(pairs.table, tmp_path, format=format)
    row = pq.read_table(file).to_pylist()[0]
    chat = {"preference": "chosen", "unpaired": "completion", "sft": "messages"}[format]
    assert row[chat] == ([user("What?"), *CALLED] if format == "sft" else CALLED)
    assert "1 of 1 pairs have a response of several turns" in (tmp_path / "README.md").read_text()


def test_the_audit_page_shows_each_turn_with_its_role(tmp_path):
    from w2s_align.reporting.audit_page import AuditPage, write_audit_page

    pairs = import_pairs([EXPLICIT], turns="all")
    page = AuditPage.of("pairs", pairs.audit(), pairs.table, pairs.lengths, pairs.counts.totals())
    write_audit_page(page, tmp_path / "audit.html")
    assert "tool: 42" in (tmp_path / "audit.html").read_text()
