"""Cutting responses to k sentences."""

from __future__ import annotations

import pytest

from w2s_align.errors import UserError
from w2s_align.records import Response, from_table, to_table
from w2s_align.responses.cut import cut_to_sentences

ROWS = [
    Response("a", 0, "m", "One. Two. Three.", completion_tokens=9, finish_reason="length", logprob=-1.0),
    Response("b", 0, "m", "Only one."),
    Response("c", 0, "m", None, finish_reason="error", error="broken"),
]


def test_a_response_is_cut_and_no_longer_counts_as_truncated() -> None:
    table, dropped = cut_to_sentences(to_table(ROWS), 2)
    assert from_table(Response, table) == [Response("a", 0, "m", "One. Two.")]
    assert dropped == {"fewer than 2 sentences": 1, "no answer": 1}


def test_nothing_long_enough_is_an_error() -> None:
    with pytest.raises(UserError, match="No response has 9 sentences"):
        cut_to_sentences(to_table(ROWS), 9)
