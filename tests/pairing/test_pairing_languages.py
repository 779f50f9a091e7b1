"""Filters on texts without spaces, and the error rates of the text filters on a labelled set."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from w2s_align.pairing import Filters
from w2s_align.pairing.decontaminate import find_leaks
from w2s_align.pairing.duplicates import near_duplicates
from w2s_align.pairing.quality import flag_texts, repeats_itself, speaks
from w2s_align.pairing.shingles import words_of
from w2s_align.scoring.features import FEATURES

LABELLED = Path(__file__).parent / "labelled" / "filter_texts.jsonl"
ITEMS = {
    "chinese": "一个农夫有十七只羊，除了九只以外都死了，请问农夫还剩下多少只羊？",
    "japanese": "りんごが五つあります。三つ食べました。残りはいくつですか。",
    "german": "Größe und Gewicht eines Bären: Wie schwer ist ein ausgewachsener Braunbär im Durchschnitt?",
    "thai": "เมืองหลวงของประเทศไทยคืออะไร",
}


@pytest.mark.parametrize("language", ITEMS)
def test_an_evaluation_item_is_found_inside_of_a_training_prompt(language):
    item = ITEMS[language]
    texts = pa.array([f"请回答下面的问题。 {item} 谢谢！", "Eine ganz andere Frage 一个别的问题 別の質問です"])
    leaks = find_leaks(texts, {"set": [item]})
    assert leaks.table["row"].to_pylist() == [0]
    assert leaks.table["score"].to_pylist() == [1.0]


@pytest.mark.parametrize("language", ITEMS)
def test_near_duplicates_in_every_language(language):
    item = ITEMS[language]
    texts = [item * 2, f"{item * 2} 好", ITEMS["german" if language != "german" else "thai"] * 2]
    found = near_duplicates(pa.array(texts), threshold=0.7)
    assert (found["row"].to_pylist(), found["kept"].to_pylist()) == ([1], [0])


def test_words():
    texts = [
        "Straße 12, ÄRGER",
        "\uff11\uff12 apples",
        "我有3只羊",
        "Ärger".replace("Ä", "A\u0308"),
        "りんごgood",
        None,
    ]
    expected = [["straße", "12", "ärger"], ["12", "apples"], ["我", "有", "3", "只", "羊"], ["ärger"]]
    expected += [["り", "ん", "ご", "good"], None]
    assert words_of(pl.Series(texts)).to_list() == expected


def test_repetition_in_every_language():
    again = [
        "我不知道。" * 50,
        "分かりません。" * 6,
        "Ich weiß es nicht. " * 5,
        "네, 알겠습니다. " * 6,
        "मैं नहीं जानता। " * 5,
    ]
    clean = ["今天天气很好。我们去公园。那里有花。", "晴れです。雨です。雪です。", "Ich komme. Du kommst."]
    assert repeats_itself(pl.Series([*again, *clean])).to_list() == [True] * len(again) + [False] * len(clean)
    assert FEATURES["repetition"]("我不知道" * 50) > 0.9
    assert FEATURES["repetition"]("今天天气很好我们去公园") == 0
    assert FEATURES["words"]("我有3只羊 and two dogs") == 8


def test_a_text_in_another_script_is_not_of_a_language_in_latin_script():
    texts = ["我不知道这个问题的答案。", "Я не знаю ответа.", "x = 4", "Das ist so.", None]
    assert speaks(pl.Series(texts), "en").to_list() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("name", "missed", "of_bad", "dropped", "of_good"),
    [("refusal", 7, 110, 1, 110), ("special_tokens", 0, 21, 0, 21), ("repetition", 0, 17, 0, 19)],
)
def test_error_rates_on_the_labelled_set_are_those_that_the_documentation_states(
    name, missed, of_bad, dropped, of_good
):
    rows = [row for row in map(json.loads, LABELLED.read_text(encoding="utf-8").splitlines()) if row["filter"] == name]
    off = {"special_tokens": False, name: True}
    flags = flag_texts(pl.Series([row["text"] for row in rows]), Filters(**off)).to_list()
    missing = [row["text"] for row, flag in zip(rows, flags, strict=True) if row["bad"] and flag is None]
    spoiled = [row["text"] for row, flag in zip(rows, flags, strict=True) if not row["bad"] and flag is not None]
    assert (len(missing), len(spoiled)) == (missed, dropped), (missing, spoiled)
    assert (sum(row["bad"] for row in rows), sum(not row["bad"] for row in rows)) == (of_bad, of_good)
    page = (Path(__file__).parents[2] / "docs" / "methods" / "data_filters.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {missed} of {of_bad} | {dropped} of {of_good} |" in page


@pytest.mark.parametrize(
    ("written", "missed", "of_bad", "dropped", "of_good"), [("before", 2, 48, 0, 48), ("after", 5, 20, 2, 20)]
)
def test_error_rates_on_unseen_refusals_are_those_that_the_documentation_states(
    written, missed, of_bad, dropped, of_good
):
    lines = (LABELLED.parent / "refusals_unseen.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["written"] == written]
    flagged = flag_texts(pl.Series([row["text"] for row in rows]), Filters(refusal=True)).is_not_null().to_list()
    assert sum(row["bad"] and not flag for row, flag in zip(rows, flagged, strict=True)) == missed
    assert sum(flag and not row["bad"] for row, flag in zip(rows, flagged, strict=True)) == dropped
    assert (sum(row["bad"] for row in rows), sum(not row["bad"] for row in rows)) == (of_bad, of_good)
    page = (Path(__file__).parents[2] / "docs" / "methods" / "data_filters.md").read_text(encoding="utf-8")
    assert f"| written {written}, rules of today | {missed} of {of_bad} | {dropped} of {of_good} |" in page
