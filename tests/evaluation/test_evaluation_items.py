"""Formats of classification items: k options become yes/no items, classes are balanced, nothing is lost unseen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation.item_format import ItemFormat, load_format, shipped_formats
from w2s_align.evaluation.items import load_items
from w2s_align.records import Prompt, from_table
from w2s_align.steps.items import Items

ROWS: dict[str, dict[str, Any]] = {
    "sciq": {"question": "q?", "correct_answer": "a", "distractor1": "b", "distractor2": "c", "distractor3": "d"},
    "boolq": {"question": "q?", "passage": "p.", "answer": True},
    "cosmos_qa": {"context": "c.", "question": "q?", **{f"answer{i}": f"a{i}" for i in range(4)}, "label": 2},
    "amazon_polarity": {"title": "t", "content": "c", "label": 1},
    "anthropic_hh": {"chosen": "Human: x Assistant: good", "rejected": "Human: x Assistant: bad"},
    "hellaswag": {"ctx": "A man", "endings": ["sits.", "eats.", "is.", "flies."], "label": "1"},
    "cola": {"sentence": "They is.", "label": 0, "idx": 0},
    "sst2": {"sentence": "fine", "label": 1, "idx": 0},
    "openbookqa": {"question_stem": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
    "paws": {"sentence1": "a", "sentence2": "b", "label": 1, "id": 1},
    "piqa": {"goal": "g", "sol1": "s", "sol2": "t", "label": 1},
    "privacy_policy_qa": {"index": "0", "question": "q?", "text": "We share.", "answer": "Irrelevant"},
    "beavertails": {"prompt": "q?", "response": "no.", "category": {"animal_abuse": False}, "is_safe": True},
    "social_i_qa": {"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"},
    "anli_r2": {"premise": "p", "hypothesis": "h", "label": 2, "reason": ""},
    "dream": {"dialogue": ["M: a", "W: b"], "question": "q", "choice": ["x", "y", "z"], "answer": "y"},
    "ethics_deontology": {"label": 1, "scenario": "s", "excuse": "e"},
    "ethics_justice": {"label": 0, "scenario": "s"},
    "ethics_virtue": {"label": 1, "scenario": "He ran. [SEP] brave"},
    "ethics_utilitarianism": {"baseline": "sun", "less_pleasant": "rain"},
    "mc_taco": {"sentence": "s", "question": "q", "answer": "a", "label": 1, "category": 0},
    "multirc": {"paragraph": "p", "question": "q", "answer": "a", "label": 0, "idx": {"paragraph": 0}},
    "quail": {"context": "c", "question": "q", "answers": ["a", "b", "c", "d"], "correct_answer_id": 3},
    "quartz": {"para": "p", "question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"},
    "wic": {"word": "w", "sentence1": "a", "sentence2": "b", "label": 1},
}
"""A row of each shipped format in the columns of its dataset."""


def form(tmp_path: Path, written: list[dict[str, Any]], **fields: Any) -> ItemFormat:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return ItemFormat.model_validate({"name": "mine", "data": {"source": str(path)}, **fields})


def items_of(form: ItemFormat, **options: Any) -> list[Prompt]:
    return from_table(Prompt, load_items(form, **{"balance": "none"} | options).table)


QUESTIONS = [{"q": f"q{i}", "right": f"r{i}", "wrong": [f"w{i}a", f"w{i}b", f"w{i}c"]} for i in range(60)]
ASKED = {"text": "{{ q }} {{ option }}", "options": "[right] + wrong", "gold": "0"}


def test_every_shipped_format_makes_items_of_a_row_of_its_dataset(tmp_path):
    assert set(ROWS) == set(shipped_formats())
    for name, row in ROWS.items():
        shipped = load_format(name)
        given = form(tmp_path, [row], **shipped.model_dump(exclude={"name", "data"}))
        found = items_of(given)
        assert found and all(item.answer in ("0", "1") for item in found), name
        assert shipped.data.repo and shipped.data.rows[shipped.data.split] and shipped.title


def test_all_options_make_an_item_each_and_one_is_right(tmp_path):
    found = items_of(form(tmp_path, QUESTIONS, rows="all", **ASKED))
    assert len(found) == 240 and Counter(item.answer for item in found) == {"0": 180, "1": 60}
    assert all(("r" in item.messages[0]["content"]) == (item.answer == "1") for item in found)
    assert len({item.group for item in found}) == 60


def test_a_pair_has_as_many_right_as_wrong_items(tmp_path):
    found = items_of(form(tmp_path, QUESTIONS, rows="pair", **ASKED))
    assert Counter(item.answer for item in found) == {"0": 60, "1": 60}
    assert set(Counter(item.group for item in found).values()) == {2}
    assert len({item.messages[0]["content"][-1] for item in found if item.answer == "0"}) == 3  # any wrong option


def test_a_coin_decides_between_the_right_and_a_wrong_option(tmp_path):
    given = form(tmp_path, QUESTIONS, rows="coin", **ASKED)
    found = items_of(given)
    assert len(found) == 60 and 18 <= sum(item.answer == "1" for item in found) <= 42
    assert items_of(given) == found and items_of(given, seed=1) != found
    assert items_of(given, limit=20) == found[:20]  # what is drawn depends on the rows before alone
    never = form(tmp_path, QUESTIONS[:5], rows="coin", never_right="r3", **ASKED)
    for seed in range(8):
        assert items_of(never, seed=seed)[3].answer == "0"


def test_a_comparison_shows_both_responses(tmp_path):
    text = {"text": "0: {{ first }} 1: {{ second }}", "options": "[right, wrong[0]]", "gold": "0"}
    found = items_of(form(tmp_path, QUESTIONS, rows="both", **text))
    assert len(found) == 60
    for item in found:
        shown = item.messages[0]["content"]
        assert ("1: r" in shown) == (item.answer == "1") and "r" in shown and "w" in shown
    assert 18 <= sum(item.answer == "1" for item in found) <= 42


@pytest.mark.parametrize(
    ("ones", "balance", "left"), [(60, "auto", 80), (54, "auto", 100), (54, "exact", 92), (60, "none", 100)]
)
def test_a_class_above_55_percent_is_cut_down(tmp_path, ones, balance, left):
    rows = [{"t": f"t{i}", "y": int(i < ones)} for i in range(100)]
    loaded = load_items(form(tmp_path, rows, text="{{ t }}", label="y"), balance=balance)
    assert loaded.table.num_rows == left == loaded.counts["kept"]
    assert loaded.counts["dropped"].get("for balance", 0) == 100 - left
    if left < 100:
        assert loaded.classes == {"0": left // 2, "1": left // 2}


def test_duplicates_are_counted_and_a_group_may_be_a_text(tmp_path):
    rows = [{"t": "same", "y": 0, "g": "a"}] * 3 + [{"t": "other", "y": 1, "g": "a"}]
    loaded = load_items(form(tmp_path, rows, text="{{ t }}", label="y", group="{{ g }}"), balance="none")
    assert loaded.counts == {"rows_in": 4, "items": 4, "kept": 2, "dropped": {"duplicate": 2}}
    assert {item.group for item in from_table(Prompt, loaded.table)} == {"a"}


def test_formats_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(UserError, match="sciqq is not a format of items"):
        load_format("sciqq")
    path = tmp_path / "bad.yaml"
    path.write_text("data: {source: x.jsonl}\ntext: a\n")
    with pytest.raises(UserError, match="give one of the two"):
        load_format(str(path))
    with pytest.raises(UserError, match="7 is not a place among 2 options"):
        items_of(form(tmp_path, [{"a": 1}], text="x", options="['u', 'v']", gold="7"))
    with pytest.raises(UserError, match="does not fit its data"):
        items_of(form(tmp_path, [{"a": 1}], text="{{ nothing }}", label="a"))
    with pytest.raises(UserError, match="its split test is empty"):
        items_of(form(tmp_path, [], text="x", label="a"))


def test_a_file_of_ones_own_is_part_of_the_key_by_its_content(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"t": "x", "y": 1}\n')
    path = tmp_path / "own.yaml"
    path.write_text(f"data: {{source: {rows}}}\ntext: '{{{{ t }}}}'\nlabel: y\n")
    step = Items(format=str(path))
    before = step.content(), step.identity()
    assert step.content()["format"]["text"] == "{{ t }}"
    rows.write_text('{"t": "y", "y": 1}\n')
    assert (step.content(), step.identity()) != before
