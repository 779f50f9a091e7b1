"""Decontamination: which training texts contain evaluation items, by shared n-grams, without a search server.

The rule of Tülu 3 (https://arxiv.org/abs/2411.15124, section 3.2; docs/methods/data_filters.md): a word of an
evaluation item is matched by a training text when an 8-gram around it occurs in that text; an item has leaked into a
text when more than half of its words are matched by that one text. The words are those of ``shingles.words_of`` (the
original uses spaCy's tokens, with punctuation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.shingles import shingle, words_of

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 50_000
"""Texts that are searched at a time: the working copies of a chunk are all the extra memory that it takes."""
NGRAM_WORDS = 8
"""Words per n-gram in Tülu 3: shorter ones match common phrases, longer ones (13 in GPT-3) miss light edits."""
LEAKED_SHARE = 0.5
"""Tülu 3: an item has leaked into a text that matches more than this share of its words."""
COMMON = 100
"""N-grams that occur in more fields than this are phrases that the items share ("Answer the following question")."""
CONTAMINATED_SHARE = 0.02
"""Tülu 3: a training set is contaminated when it covers more than this share of an evaluation set."""

Items: TypeAlias = Sequence[str | Sequence[str]]
"""Evaluation items: each one text, or several fields whose scores are averaged."""


@dataclass(frozen=True)
class Leaks:
    """What was found.

    Attributes:
        table: One row per training text and leaked item: ``row`` of the text, ``evaluation``, ``item`` (its number),
            ``score`` (share of the item's words that the text matches).
        shares: For each evaluation set the share of its items that leaked into any text.
        short_items: Fields with fewer words than an n-gram: they are compared as whole texts.
        common_ngrams: N-grams that were ignored because too many items contain them.
        warnings: Evaluation sets of which more than 2% leaked, in words.
    """

    table: pa.Table
    shares: dict[str, float]
    short_items: int
    common_ngrams: int
    warnings: list[str]


def find_leaks(
    texts: pa.ChunkedArray | pa.Array,
    evaluations: Mapping[str, Items],
    *,
    n: int = NGRAM_WORDS,
    threshold: float = LEAKED_SHARE,
    common: int = COMMON,
) -> Leaks:
    """Find evaluation items that occur in training texts.

    Args:
        texts: Training texts: prompts (see :func:`user_texts`), responses.
        evaluations: For each evaluation set its items.
        n: Words per n-gram; 8 is Tülu 3's, 13 a stricter choice.
        threshold: An item has leaked into a text when its score there is above this.
        common: An n-gram that more fields than this contain is a common phrase (an instruction that every item
            repeats) and matches nothing.

    Raises:
        UserError: ``threshold`` or ``n`` is out of range.
    """
    import polars as pl

    if not 0 <= threshold < 1 or n < 1:
        raise UserError(f"threshold {threshold} with n {n} cannot be used.", fix="Use 0 <= threshold < 1 and n >= 1.")
    fields = _fields(evaluations)
    grams = shingle(fields["text"].to_arrow(), n, short=False)
    words = grams.words
    index = pl.DataFrame(
        {"hash": grams.hashes, "field": grams.rows.astype(np.uint32), "at": grams.positions.astype(np.uint32)}
    )
    spread = index.group_by("hash").agg(pl.col("field").n_unique())
    too_common = spread.filter(pl.col("field") > common)
    index = index.join(too_common, on="hash", how="anti")
    short = fields.with_columns(words=pl.Series(words)).filter((pl.col("words") > 0) & (pl.col("words") < n))
    short_text = short.select("field", key=_whole(short["text"]))
    found = [pl.DataFrame(schema={"row": pl.Int64, "field": pl.UInt32, "score": pl.Float64})]
    for start in range(0, len(texts), CHUNK_ROWS):
        part = texts.slice(start, CHUNK_ROWS)
        found.append(_field_scores(part, start, index, words, n))
        if short_text.height:
            whole = pl.DataFrame(
                {"key": _whole(pl.Series("text", pl.from_arrow(part), dtype=pl.String))}
            ).with_row_index("row")
            equal = whole.join(short_text, on="key")
            found.append(equal.select(pl.col("row").cast(pl.Int64) + start, "field", score=pl.lit(1.0)))
    scores = pl.concat(found).join(fields.select("field", "evaluation", "item", "of"), on="field")
    items = scores.group_by("row", "evaluation", "item").agg(score=pl.col("score").sum() / pl.col("of").first())
    leaked = items.filter(pl.col("score") > threshold).sort("row", "evaluation", "item")
    hit = leaked.select("evaluation", "item").unique().group_by("evaluation").len()
    counts = dict(hit.iter_rows())
    shares = {name: counts.get(name, 0) / max(len(items), 1) for name, items in evaluations.items()}
    warnings = [
        f"{share:.1%} of the items of {name} occur in the training texts: the set is contaminated (above 2%)."
        for name, share in shares.items()
        if share > CONTAMINATED_SHARE
    ]
    return Leaks(leaked.to_arrow(), shares, short.height, too_common.height, warnings)


def user_texts(prompts: pa.Table) -> pa.ChunkedArray:
    """Return the user turns of every prompt as one text, turns separated by a line break."""
    import polars as pl

    parts = [pa.chunked_array([], pa.string())]
    for start in range(0, prompts.num_rows, CHUNK_ROWS):
        chats = pl.Series("messages", pl.from_arrow(prompts["messages"].slice(start, CHUNK_ROWS)))
        user = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content")
        texts = pl.DataFrame({"messages": chats}).select(pl.col("messages").list.eval(user).list.join("\n"))
        parts.append(pa.chunked_array([texts.to_series().to_arrow()]).cast(pa.string()))
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())


def _fields(evaluations: Mapping[str, Items]) -> pl.DataFrame:
    """Return one row per text field of all items: ``field`` (its number), ``evaluation``, ``item``, ``of`` (fields),
    ``text``."""
    import polars as pl

    rows = [
        (name, number, len(item), text)
        for name, items in evaluations.items()
        for number, item in enumerate([field] if isinstance(field, str) else list(field) for field in items)
        for text in item
    ]
    schema = {"evaluation": pl.String, "item": pl.UInt32, "of": pl.UInt32, "text": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("field")


def _whole(texts: pl.Series) -> pl.Series:
    """Return a short text as its words, to be compared as a whole; null for one that has no words or is not short."""
    return words_of(texts).list.join(" ")


def _field_scores(
    texts: pa.ChunkedArray | pa.Array, start: int, index: pl.DataFrame, words: object, n: int
) -> pl.DataFrame:
    """Return for each text and evaluation field that share an n-gram the share of the field's words that are
    matched."""
    import polars as pl

    grams = shingle(texts, n, short=False)
    rows = pl.DataFrame({"hash": grams.hashes, "row": grams.rows})
    hits = rows.join(index, on="hash").select("row", "field", "at").unique().sort("row", "field", "at")
    # An n-gram at `at` matches n words; those that the n-gram before it has matched already are not counted twice.
    step = pl.col("at").cast(pl.Int64).diff().over("row", "field").fill_null(n).clip(upper_bound=n)
    matched = hits.with_columns(new=step).group_by("row", "field").agg(pl.col("new").sum())
    lengths = pl.DataFrame({"words": words}).with_row_index("field")
    scores = matched.join(lengths, on="field").with_columns(score=pl.col("new") / pl.col("words"))
    return scores.select(pl.col("row") + start, "field", "score")
