"""What is wrong with the text of a response: the flags behind the text filters.

Each flag is one expression over a column of texts (rules of thumb of the Tülu 3 and Olmo 3 pipelines,
delta_learning.md 7.4). ``flag_texts`` names the first that holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_align.pairing.settings import Filters

if TYPE_CHECKING:
    import polars as pl

SPECIAL_TOKENS = (
    r"<\|[A-Za-z_][A-Za-z0-9_ ]{0,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:pad|unk|eos|bos)>"
)
REFUSAL = (
    r"(?i)^\W*(?:(?:i'm|i am) (?:really |very |truly )?sorry\b|sorry,|i apologi[sz]e\b|"
    r"(?:unfortunately,? )?(?:i|we) (?:can't|cannot|can not|won't|will not|am unable to|am not able to)\b|"
    r"i'm (?:not able|unable) to\b|as an ai\b)"
)
FOREIGN_SHARE = 0.05
RUN, SENTENCES, PARAGRAPHS = 4, 40, 10


def flag_texts(texts: pl.Series, filters: Filters) -> pl.Series:
    """Return for each text the name of the first filter that it fails, or null."""
    import polars as pl

    text = texts.str.replace_all("\u2019", "'", literal=True) if filters.refusal else texts
    reason: pl.Expr = pl.lit(None, dtype=pl.String)
    checks: list[tuple[str, pl.Series]] = []
    if filters.special_tokens:
        bare = texts.str.strip_chars()  # <s> and </s> are also HTML: only at the ends they are a template's
        ends = bare.str.starts_with("<s>") | bare.str.ends_with("</s>")
        checks.append(("special tokens", texts.str.contains(SPECIAL_TOKENS) | ends))
    if filters.refusal:
        checks.append(("refusal", text.str.slice(0, 200).str.contains(REFUSAL)))
    if filters.script:
        letters = texts.str.count_matches(r"\p{L}")
        own = texts.str.count_matches(rf"\p{{{filters.script.capitalize()}}}")
        checks.append(("wrong script", (letters - own.clip(upper_bound=letters)) >= FOREIGN_SHARE * letters.clip(1)))
    if filters.repetition:
        checks.append(("repetition", repeats_itself(texts)))
    for name, holds in reversed(checks):
        reason = pl.when(holds).then(pl.lit(name)).otherwise(reason)
    return pl.DataFrame({"text": texts}).with_columns(flag=reason)["flag"]


def repeats_itself(texts: pl.Series) -> pl.Series:
    """Say which texts repeat a sentence (or line) 4 times in a row or 40 times in all, or a paragraph 10 times."""
    import polars as pl

    frame = pl.DataFrame({"text": texts}).with_row_index("row")
    sentences = frame.select("row", piece=pl.col("text").str.replace_all(r"([.!?])\s|\n", "$1\x00").str.split("\x00"))
    pieces = sentences.explode("piece").with_columns(pl.col("piece").str.strip_chars()).filter(pl.col("piece") != "")
    starts = (pl.col("row") != pl.col("row").shift()) | (pl.col("piece") != pl.col("piece").shift())
    runs = (
        pieces.with_columns(run=starts.fill_null(True).cum_sum())
        .group_by("run")
        .agg(pl.col("row").first(), n=pl.len())
    )
    often = pieces.group_by("row", "piece").len("n")
    paragraphs = frame.select("row", piece=pl.col("text").str.split("\n\n")).explode("piece")
    paragraphs = paragraphs.with_columns(pl.col("piece").str.strip_chars()).filter(pl.col("piece") != "")
    paragraphs = paragraphs.group_by("row", "piece").len("n")
    limits = ((runs, RUN), (often, SENTENCES), (paragraphs, PARAGRAPHS))
    bad = pl.concat([table.filter(pl.col("n") >= limit).select("row") for table, limit in limits]).to_series().unique()
    return frame.select(pl.col("row").is_in(bad.implode())).to_series()
