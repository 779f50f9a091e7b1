"""Near-duplicates and leaked evaluation items: by hand, and with planted ones."""

import random

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import find_leaks, near_duplicates
from w2s_align.pairing.decontaminate import user_texts
from w2s_align.records import Prompt, to_table


def text(draw, n):
    return " ".join(f"word{draw.randint(0, 3000)}" for _ in range(n))


def edited(draw, original, share):
    return " ".join(f"new{draw.randint(0, 9999)}" if draw.random() < share else word for word in original.split())


def test_near_duplicates_by_hand():
    base = "the quick brown fox jumps over the lazy dog and runs away from here"
    texts = pa.array(
        [base, "something else entirely", base.upper() + "!", "", base + " now", None, "", "something else entirely"]
    )
    found = near_duplicates(texts).to_pylist()
    assert found == [
        {"row": 2, "kept": 0, "jaccard": 1.0},
        {"row": 4, "kept": 0, "jaccard": pytest.approx(12 / 13)},
        {"row": 7, "kept": 1, "jaccard": 1.0},
    ]


def test_planted_near_duplicates_are_found():
    draw = random.Random(0)
    originals = [text(draw, 80) for _ in range(400)]
    copies = [edited(draw, original, 0.02) for original in originals[:200]]
    found = near_duplicates(pa.array(originals + copies), threshold=0.7)

    def grams(words):
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    def jaccard(a, b):
        one, two = grams(a.split()), grams(b.split())
        return len(one & two) / len(one | two)

    true = {400 + i for i in range(200) if jaccard(originals[i], copies[i]) >= 0.7}
    rows = set(found["row"].to_pylist())
    assert len(true) > 150
    assert rows <= true
    assert len(rows) >= 0.98 * len(true)
    assert all(
        kept == row - 400 for row, kept in zip(found["row"].to_pylist(), found["kept"].to_pylist(), strict=True)
    )


def test_chains_make_one_group():
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(words[shift : shift + 40]) for shift in (0, 3, 6, 9)]
    found = near_duplicates(pa.array(texts), threshold=0.8)
    assert found["kept"].to_pylist() == [0, 0, 0]
    assert near_duplicates(pa.array(texts[::3]), threshold=0.8).num_rows == 0


def test_only_the_user_turns_of_prompts_are_compared():
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "what is two plus two ?"}]
    prompts = to_table([Prompt.of("What is two plus two?"), Prompt.of("Name a color."), Prompt.of(turns)])
    assert near_duplicates(user_texts(prompts)).to_pylist() == [{"row": 2, "kept": 0, "jaccard": 1.0}]


def test_a_threshold_out_of_range_is_refused():
    with pytest.raises(UserError, match="threshold is 0"):
        near_duplicates(pa.array(["a"]), threshold=0.0)


def numbered(prefix, n):
    return [f"{prefix}{i}" for i in range(n)]


def test_scores_by_hand():
    item = " ".join(numbered("t", 20))
    t = numbered("t", 20)
    rows = [
        " ".join([*numbered("x", 5), *t[2:13], *numbered("y", 3)]),  # 11 words in a row: 11 of 20
        " ".join([*t[:9], "gap", *t[9:12]]),  # 9 of 20; a run of 3 is no 8-gram
        " ".join([*t[:8], "gap", *t[12:20]]),  # 8 + 8 of 20
        " ".join(t[:7]),
        " ".join(reversed(t)),
    ]
    leaks = find_leaks(pa.array(rows), {"bench": [item]})
    assert leaks.table.to_pylist() == [
        {"row": 0, "evaluation": "bench", "item": 0, "score": 0.55},
        {"row": 2, "evaluation": "bench", "item": 0, "score": 0.8},
    ]
    assert leaks.shares == {"bench": 1.0}
    assert leaks.warnings == [
        "100.0% of the items of bench occur in the training texts: the set is contaminated (above 2%)."
    ]


def test_one_text_must_match_alone_and_fields_are_averaged():
    t, u = numbered("t", 20), numbered("u", 20)
    halves = [" ".join(t[:10]), " ".join(t[10:])]
    assert find_leaks(pa.array(halves), {"b": [" ".join(t)]}).table.num_rows == 0
    fields = {"b": [(" ".join(t), " ".join(u))]}
    assert find_leaks(pa.array([" ".join(t)]), fields).table.num_rows == 0  # (1 + 0) / 2 is not above 0.5
    half_more = " ".join(t + u[:8])
    assert find_leaks(pa.array([half_more]), fields).table["score"].to_pylist() == [pytest.approx(0.7)]


def test_short_items_are_compared_as_a_whole():
    leaks = find_leaks(
        pa.array(["What is 2 + 2?", "what is 2 2", "What is 2 + 3?", "well, What is 2 + 2?"]), {"b": ["What is 2+2 ?"]}
    )
    assert leaks.table["row"].to_pylist() == [0, 1]
    assert leaks.short_items == 1


def test_common_phrases_match_nothing():
    phrase = "answer the following question step by step and explain every single step you take"
    items = [f"{phrase} {i}" for i in range(30)]
    assert find_leaks(pa.array([phrase]), {"b": items}).table.num_rows == 30
    leaks = find_leaks(pa.array([phrase]), {"b": items}, common=20)
    assert leaks.table.num_rows == 0 and leaks.common_ngrams == 7


def test_planted_leaks_are_found():
    draw = random.Random(1)
    items = [text(draw, 40) for _ in range(200)]
    prompts = [Prompt.of(text(draw, 60)) for _ in range(500)]
    planted = [Prompt.of(f"{text(draw, 10)} {item} {text(draw, 5)}") for item in items[:50]]
    light = [Prompt.of(edited(draw, item, 0.03)) for item in items[50:80]]
    leaks = find_leaks(user_texts(to_table(prompts + planted + light)), {"bench": items})
    found = set(leaks.table["row"].to_pylist())
    assert not found & set(range(500)) and set(range(500, 550)) <= found
    assert len(leaks.table) >= 75
    assert leaks.shares["bench"] == len(leaks.table) / 200
