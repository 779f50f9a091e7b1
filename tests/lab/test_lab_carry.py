"""lab/carry: items of two classes, what each supervisor sees of them, and how good one can be at best."""

from __future__ import annotations

import numpy as np
import pytest

from w2s_align.errors import UserError
from w2s_align.interchange.prompt_sources import load_prompts
from w2s_align.lab import best_supervisors, build_tokenizer, carry_items
from w2s_align.scoring.items import ItemReader


def parts(chat):
    return chat[0]["content"], chat[1]["content"]


def test_the_class_is_the_next_digit_of_the_work_and_both_are_equally_frequent():
    items = carry_items(400, 3, "train")
    for item in items:
        (question, work), (a, b) = parts(item.messages), item.messages[0]["content"].split("+")
        tens = int(a) % 100 + int(b) % 100
        assert item.answer == str(int(tens >= 100))
        units = int(a[3]) + int(b[3])
        assert work.upper() == f"U{a[3]}+{b[3]}+0={units:02d}\nT{a[2]}+{b[2]}+{units // 10}="
        assert item.group == ",".join(sorted([a, b])) and question == f"{a}+{b}"
    assert sum(item.answer == "1" for item in items) == 200
    assert len({item.group for item in items}) == 400
    assert any("u" in parts(item.messages)[1] for item in items) and any("U" in parts(i.messages)[1] for i in items)


def test_all_items_have_one_length_in_a_lab_model():
    tokenizer = build_tokenizer()
    for view in (None, "noisy", "blind"):
        chats = [i.meta["views"][view] if view else i.messages for i in carry_items(20, 0, "test")]
        assert {len(ids) for ids in ItemReader().ids(tokenizer, chats)} == {29}


def test_splits_share_nothing_and_seeds_differ():
    train, test = ({i.group for i in carry_items(1000, 0, split)} for split in ("train", "test"))
    assert not train & test
    assert [i.id for i in carry_items(50, 1, "train")] != [i.id for i in carry_items(50, 2, "train")]
    assert carry_items(50, 1, "train") == carry_items(50, 1, "train")


def test_the_blind_view_says_nothing_of_the_second_number():
    for item in carry_items(200, 0, "train"):
        (question, work), (seen_question, seen_work) = parts(item.messages), parts(item.meta["views"]["blind"])
        assert seen_question == question[:5] + "????"
        line, tens = work.split("\n")
        assert seen_work == f"{line[:3]}?+0=??\n{tens[:3]}?+?="


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_the_noisy_view_replaces_digits_and_nothing_else(noise):
    items = carry_items(1000, 0, "train", noise=noise, draws=2)
    changed, digits = 0, 0
    for item in items:
        text, seen = ("".join(parts(chat)) for chat in (item.messages, item.meta["views"]["noisy"]))
        assert len(text) == len(seen)
        for before, after in zip(text, seen, strict=True):
            digits += before.isdigit()
            changed += before != after
            assert before.isdigit() == after.isdigit()
    assert changed / digits == pytest.approx(0.9 * noise, abs=0.01)  # a tenth of what is drawn is the same again
    same = [item.meta["views"]["noisy"] == item.meta["views"]["noisy_2"] for item in items]
    assert np.mean(same) == (1 if noise == 0 else 0)


def test_the_best_supervisors_of_the_trial_runs():
    assert best_supervisors()["blind"] == pytest.approx(0.750, abs=5e-4)
    for noise, best in {0.2: 0.868, 0.3: 0.809, 0.4: 0.754, 0.5: 0.704, 0.6: 0.656}.items():
        assert best_supervisors(noise)["noisy"] == pytest.approx(best, abs=6e-4), noise


def test_a_recipe_reads_them_by_their_name():
    loaded = load_prompts("lab/carry", limit=10, seed=4, split="test", options={"noise": 0.2, "draws": 3})
    assert loaded.table["id"].to_pylist() == [i.id for i in carry_items(10, 4, "test")]
    wrong = {"no option nose": {"nose": 1}, "no probability": {"noise": 2}, "no number": {"draws": 0}}
    for said, options in wrong.items():
        with pytest.raises(UserError, match=said):
            load_prompts("lab/carry", limit=10, options=options)
    with pytest.raises(UserError, match="even number"):
        load_prompts("lab/carry", limit=7)
