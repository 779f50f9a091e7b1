"""Countable features, by hand."""

import pytest

from w2s_align.scoring.features import FEATURES
from w2s_align.scoring.sentences import count_sentences, first_sentences, sentence_ends


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. It costs 3.14 dollars! Yes", ["Hello there.", "It costs 3.14 dollars!", "Yes"]),
        ('"Really?" he said. Done', ['"Really?"', "he said.", "Done"]),
        ("A line\n1. First item.\n2. Second", ["A line", "1. First item.", "2. Second"]),
        ("Ask Dr. Smith, e.g. about A. B. Clark. Now!", ["Ask Dr. Smith, e.g. about A. B. Clark.", "Now!"]),
        ("...\n---\n", []),
        ("", []),
    ],
)
def test_counting_and_cutting_sentences_follow_one_rule(text: str, sentences: list[str]) -> None:
    ends = sentence_ends(text)
    assert [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)] == sentences
    assert count_sentences(text) == len(sentences)
    for k in range(1, len(sentences) + 1):
        cut = first_sentences(text, k)
        assert cut is not None and count_sentences(cut) == k
    assert first_sentences(text, len(sentences) + 1) is None


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
