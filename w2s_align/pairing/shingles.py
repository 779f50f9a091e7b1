"""Word n-grams of many texts as numbers: what near-duplicates and decontamination are found with.

Reads a column of texts, returns flat arrays of 64-bit hashes; nothing is a Python object per row. The hashes are only
compared within one call, never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that are written without spaces between words: each of their letters counts as a word."""
_WORD = rf"[{UNSPACED}]|[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, made odd: Knuth's multiplicative hashing, which spreads neighbors far apart."""


@dataclass(frozen=True)
class Shingles:
    """The word n-grams of a column of texts.

    Attributes:
        hashes: One per n-gram, text after text.
        rows: The text that each n-gram is from.
        positions: The number of its first word within the text.
        words: Number of words of each text.
    """

    hashes: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]


def words_of(texts: pl.Series) -> pl.Series:
    """Return the words of each text as a list: runs of letters and digits in lower case, or single letters where a
    script has no spaces (:data:`UNSPACED`). Full-width and composed letters are those that they stand for (NFKC)."""
    wide = (texts.str.len_bytes() != texts.str.len_chars()).fill_null(False)  # ASCII, most text, is normal already
    if wide.any():
        texts = texts.clone().scatter(wide.arg_true(), texts.filter(wide).str.normalize("NFKC"))
    return texts.str.to_lowercase().str.extract_all(_WORD)


def shingle(texts: pa.ChunkedArray | pa.Array, n: int, *, short: bool) -> Shingles:
    """Hash all runs of ``n`` words of every text.

    Args:
        texts: The texts; null is a text without words.
        n: Words per n-gram.
        short: Give a text of fewer than ``n`` words (but at least one) one n-gram of all its words; else it has none.
    """
    import polars as pl

    words = words_of(pl.Series("text", pl.from_arrow(texts), dtype=pl.String))
    lengths = words.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = words.list.explode(empty_as_null=False, keep_nulls=False).hash(0).to_numpy()
    grams = np.maximum(lengths - n + 1, (lengths > 0).astype(np.int64) if short else 0)
    rows = np.repeat(np.arange(len(lengths)), grams)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(len(rows)) - np.repeat(np.cumsum(grams) - grams, grams)
    index = starts[rows] + positions
    ends = (starts + lengths)[rows]
    hashes = np.zeros(len(rows), np.uint64)
    for k in range(n):
        inside = index + k < ends
        word = (
            np.where(inside, flat[np.minimum(index + k, max(len(flat) - 1, 0))], np.uint64(0)) if len(flat) else hashes
        )
        hashes = (hashes ^ word) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return Shingles(hashes, rows, positions, lengths)
