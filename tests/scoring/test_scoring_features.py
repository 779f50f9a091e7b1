"""Countable features, by hand."""

import pytest

from w2s_align.scoring.features import FEATURES, split_sentences


def test_split_sentences():
    text = 'Hello there. It costs 3.14 dollars! "Really?" Yes\nA new line\n1. First item.\n2. Second'
    assert split_sentences(text) == [
        "Hello there.",
        "It costs 3.14 dollars!",
        '"Really?"',
        "Yes",
        "A new line",
        "First item.",
        "Second",
    ]
    assert split_sentences("") == split_sentences("1. 2. 3.") == []


@pytest.mark.parametrize(
    ("feature", "text", "value"),
    [
        ("chars", "äb", 2),
        ("words", "one, two three", 3),
        ("lines", "a\n\n b", 2),
        ("sections", "**One**\ntext **bold**\n- **Two**: x\n## Three", 3),
        ("list_items", "- a\n* b\n1. c\nd - e", 3),
        ("repetition", "a b c d e f", 0.0),
        ("repetition", "a b c d a b c d", 0.2),
        ("repetition", "a b", 0.0),
        ("latin", "abc где", 0.5),
        ("latin", "123", 1.0),
    ],
)
def test_features(feature, text, value):
    assert FEATURES[feature](text) == pytest.approx(value)


def test_long_texts_cost_little():
    assert FEATURES["sentences"]("word. " * 50_000) == 50_000
    assert FEATURES["sentences"]("a" * 200_000) == 1
    assert FEATURES["sentences"]("." * 200_000) == FEATURES["sentences"]("1 " * 200_000) == 0
    assert FEATURES["sentences"](".'" * 100_000 + "a") == 1
    assert FEATURES["sections"]("**a" * 50_000) == 1
    assert FEATURES["list_items"](" " * 50_000) == 0
