"""What makes two texts the same, and what is known of a text."""

import re
import unicodedata

import polars as pl
import pytest

from w2s_align.pairing.candidates import normalized


@pytest.mark.parametrize(
    "text",
    [
        "Plain words",
        " two  spaces   three ",
        "lines\nand\n\nmore\n\n\n\nlines",
        "tab\tand\r\nreturn \x0b \x0c end",
        "wide \u00a0\u2003 spaces \u2028 and ﬁ ligature Ａ",
        "ÄÖÜ ÉÀ",
        "",
        " \n ",
    ],
)
def test_normalized_is_nfkc_lower_case_and_single_spaces(text):
    expected = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).lower()).strip()
    assert normalized(pl.Series([None, text, "a"])).to_list() == [None, expected, "a"]
