"""Near-duplicates among texts: MinHash signatures, banded buckets, and the true Jaccard index to confirm.

Reads texts, returns which rows repeat an earlier one. All signatures are computed by columns; a million
prompts take minutes and a few hundred bytes each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.shingles import Shingles, shingle

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

PERMUTATIONS = 128
"""Random functions of a signature: the usual number (datasketch's default), with a standard error of the Jaccard index
of at most 1 / (2 * sqrt(128)) = 0.044."""
RECALL = 0.99
"""Bands are made as long as they can be while a pair exactly at the threshold still meets in one with this
probability."""
CHUNK_ROWS = 50_000
"""Texts whose n-grams are hashed at a time: the working copies of a chunk are all the extra memory that it takes."""


def near_duplicates(texts: pa.ChunkedArray | pa.Array, *, threshold: float = 0.7, words: int = 3) -> pa.Table:
    """Find the texts that repeat an earlier one, exactly or nearly.

    Two texts are near-duplicates when the Jaccard index of their sets of word n-grams is at least ``threshold``, or
    when a chain of such pairs connects them. Light edits of a text of 80 words lower the index of 5-grams to about
    0.6 by our measurement (docs/methods/data_filters.md), which is why the default n-gram is shorter.

    Args:
        texts: The texts.
        threshold: Least Jaccard index, above 0 and up to 1.
        words: Words per n-gram; a text with fewer is one n-gram.

    Returns:
        ``row`` of each repeating text, ``kept`` (the first row of its group) and ``jaccard`` (with the row that it
        was matched with). Texts without any word never match.

    Raises:
        UserError: The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"The threshold is {threshold}.", fix="Use a Jaccard index above 0 and up to 1, e.g. 0.7.")
    grams: list[npt.NDArray[np.uint64]] = []
    sizes: list[npt.NDArray[np.int64]] = []
    signatures = np.zeros((len(texts), PERMUTATIONS), np.uint32)
    for start in range(0, len(texts), CHUNK_ROWS):
        part = _distinct(shingle(texts.slice(start, CHUNK_ROWS), words, short=True))
        signatures[start : start + CHUNK_ROWS] = _signatures(part, start)
        grams.append(part.hashes)
        sizes.append(np.bincount(part.rows, minlength=len(part.words)))
    edges = _bucket_edges(signatures, _band_rows(threshold))
    del signatures
    nothing = np.zeros(0, np.int64)
    edges = _confirmed(
        edges, np.concatenate([nothing.astype(np.uint64), *grams]), np.concatenate([nothing, *sizes]), threshold
    )
    return _groups(edges, len(texts))


def _distinct(part: Shingles) -> Shingles:
    """Return the n-grams of texts, each once per text."""
    order = np.lexsort((part.hashes, part.rows))
    rows, hashes = part.rows[order], part.hashes[order]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]) | (hashes[1:] != hashes[:-1])
    return Shingles(hashes[first], rows[first], part.positions[:0], part.words)


def _signatures(part: Shingles, start: int) -> npt.NDArray[np.uint32]:
    """Return the MinHash signature of every text: under each of 128 random functions the least hash of its n-grams.

    A text without words gets a random one (other for every ``start``), so that it meets no other.
    """
    generator = np.random.default_rng(7)
    factors = generator.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = generator.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
    signatures = np.zeros((len(part.words), PERMUTATIONS), np.uint32)
    present, starts = np.unique(part.rows, return_index=True)
    if len(present):
        for k in range(PERMUTATIONS):
            mixed = ((part.hashes * factors[k] + offsets[k]) >> np.uint64(32)).astype(np.uint32)
            signatures[present, k] = np.minimum.reduceat(mixed, starts)
    empty = np.setdiff1d(np.arange(len(part.words)), present)
    signatures[empty] = np.random.default_rng((7, start)).integers(
        0, 2**32, (len(empty), PERMUTATIONS), dtype=np.uint32
    )
    return signatures


def _band_rows(threshold: float) -> int:
    """Return how many hashes make a band (see :data:`RECALL`): longer bands mean fewer false candidates."""
    fitting = [r for r in range(1, 33) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL]
    return max(fitting, default=1)


def _bucket_edges(signatures: npt.NDArray[np.uint32], band_rows: int) -> pl.DataFrame:
    """Return candidate pairs (``row`` after ``other``): rows that agree in a whole band, each with the one before
    it."""
    import polars as pl

    found = [pl.DataFrame(schema={"other": pl.UInt32, "row": pl.UInt32})]
    for start in range(0, PERMUTATIONS - band_rows + 1, band_rows):
        band = pl.DataFrame(np.ascontiguousarray(signatures[:, start : start + band_rows]))
        keys = pl.DataFrame({"key": band.hash_rows(0)}).with_row_index("row").sort("key", "row")
        same = pl.col("key") == pl.col("key").shift()
        first = pl.col("row").first().over("key")
        linked = keys.with_columns(before=pl.col("row").shift(), first=first).filter(same)
        # Two links per row, to its neighbour and to the first of the bucket: one of them may be a false candidate.
        for other in ("before", "first"):
            found.append(linked.select(pl.col(other).alias("other"), "row"))
        if len(found) > 8:
            found = [pl.concat(found).unique()]
    return pl.concat(found).unique().sort("row", "other")


def _confirmed(
    edges: pl.DataFrame, hashes: npt.NDArray[np.uint64], sizes: npt.NDArray[np.int64], threshold: float
) -> pl.DataFrame:
    """Keep the candidate pairs whose true Jaccard index reaches the threshold, as a column ``jaccard``."""
    import polars as pl

    starts = np.cumsum(sizes) - sizes
    kept = [edges.head(0).with_columns(jaccard=pl.lit(0.0))]
    for begin in range(0, edges.height, CHUNK_ROWS):
        part = edges.slice(begin, CHUNK_ROWS)
        left, right = part["other"].to_numpy().astype(np.int64), part["row"].to_numpy().astype(np.int64)
        numbers, values = _gather(hashes, starts, sizes, left)
        others, other_values = _gather(hashes, starts, sizes, right)
        # Each text has every n-gram once: an n-gram that a pair has twice is shared.
        both = pl.DataFrame(
            {"pair": np.concatenate([numbers, others]), "hash": np.concatenate([values, other_values])}
        )
        shared = both.group_by("pair", "hash").len().filter(pl.col("len") == 2).group_by("pair").len("shared")
        common = np.zeros(part.height)
        common[shared["pair"].to_numpy()] = shared["shared"].to_numpy()
        jaccard = common / np.maximum(sizes[left] + sizes[right] - common, 1)
        kept.append(part.with_columns(jaccard=pl.Series(jaccard)).filter(pl.col("jaccard") >= threshold))
    return pl.concat(kept)


def _gather(
    hashes: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return the n-grams of some rows one after another, and for each the number of its row in the list."""
    counts = sizes[rows]
    numbers = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers, hashes[starts[rows][numbers] + within]


def _groups(edges: pl.DataFrame, n: int) -> pa.Table:
    """Join confirmed pairs to groups; the first row of a group stays for the others."""
    import polars as pl

    root = list(range(n)) if edges.height else []

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for other, row in edges.select("other", "row").iter_rows():
        a, b = find(other), find(row)
        root[max(a, b)] = min(a, b)
    best = edges.group_by("row").agg(pl.col("jaccard").max()).sort("row")
    # A row may be the earlier side of all its pairs and still belong to a group that an even earlier row leads.
    members = sorted({*edges["row"].to_list(), *edges["other"].to_list()})
    frame = pl.DataFrame(
        {"row": members, "kept": [find(row) for row in members]}, schema={"row": pl.UInt32, "kept": pl.UInt32}
    )
    frame = frame.filter(pl.col("row") != pl.col("kept")).join(best, on="row", how="left", maintain_order="left")
    earlier = edges.group_by("other").agg(pl.col("jaccard").max()).rename({"other": "row", "jaccard": "as_other"})
    frame = frame.join(earlier, on="row", how="left", maintain_order="left")
    return frame.select("row", "kept", pl.coalesce("jaccard", "as_other").alias("jaccard")).to_arrow()
