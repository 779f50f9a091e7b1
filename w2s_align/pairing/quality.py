"""What is wrong with the text of a response: the flags behind the text filters.

Each flag is one expression over a column of texts: rules of thumb of the Tülu 3 and Olmo 3 pipelines
(https://arxiv.org/abs/2411.15124, https://arxiv.org/abs/2512.13961 appendix A; docs/methods/data_filters.md).
``flag_texts`` names the first that holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_align.pairing.refusals import refuses
from w2s_align.pairing.settings import Filters
from w2s_align.pairing.shingles import UNSPACED
from w2s_align.scoring.thoughts import MARKS, answer_part

if TYPE_CHECKING:
    import polars as pl

SPECIAL_TOKENS = (
    r"<\|[A-Za-z_][A-Za-z0-9_ ]{0,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:pad|unk|eos|bos)>"
)
"""Tokens of the chat templates in use (ChatML, Llama 2 and 3, Gemma) where a text contains them as text."""
LEAKED = (
    rf"^(?:{SPECIAL_TOKENS})|(?:{SPECIAL_TOKENS})$|\n[ \t]*(?:{SPECIAL_TOKENS})|(?:{SPECIAL_TOKENS})[ \t]*\n|"
    rf"[\w.!?)\]}}>。！？](?:{SPECIAL_TOKENS})|(?:{SPECIAL_TOKENS})(?:user|assistant|system|model)(?:\n|$)"
)
"""Where a token comes from a template: at an end of the text or of a line, right after a word, or before a role."""
ABOUT_TOKENS = (
    rf"(?m)^[ \t]*(?:{SPECIAL_TOKENS})(?:,? (?:and|or) (?:{SPECIAL_TOKENS}))*"
    r"(?: tokens?)?(?::| (?:is|are|was|were|marks?|means?|denotes?|signals?|tells?|indicates?|stands?|ends?)\b)"
)
"""A line that explains tokens begins with one, too."""
QUOTED = r"(?s)```.*?(?:```|$)|`[^`\n]*`|\"[^\"\n]{0,80}\"|'[^'\n]{0,80}'|“[^”\n]{0,80}”|「[^」\n]{0,80}」"
"""Code and quotations: a token there is spoken about."""

FOREIGN_SHARE = 0.05
"""Share of letters of another script from which a text is in the wrong one: a quoted word or name stays below."""
LEAST_FUNCTION_WORDS = 5
"""Below this many function words a text is too short, or too much formula or code, to tell its language."""
FUNCTION_WORDS = {
    "de": "und der die das ist nicht ein eine zu den mit auf für von dem sich auch wird sind werden oder wenn aber",
    "en": "the and of to is that it with for are this be or was not you have from which by on as an if but",
    "es": "el los las una que es por para con del se más pero como está son este esta lo muy sus también cuando hay",
    "fr": "le les des est une et que dans pour qui pas sur avec au ce cette sont vous nous être plus mais ou aux",
    "it": "il gli che di è per una con non del della sono si più anche nel come ma questo questa le dei alla",
    "nl": "de het een en van is dat niet op te zijn met voor aan er ook als maar wordt deze naar je bij",
    "pt": "o os um uma que é para com não do da em por mais dos das como mas foi ao são você também isso",
}
"""Frequent words of languages in Latin script that tell them apart."""
RUN, SENTENCES, PARAGRAPHS = 4, 40, 10
"""A text repeats itself with a sentence so often in a row, a sentence so often in all, or a paragraph so often.
Refrains and lists stay below; models that loop go far beyond. A line of code, a table row, and a line without a word
(a closing brace) may be equal to its neighbors: those repeat themselves from 40 in a row."""
SENTENCE_END = r"([.!?])\s|([。！？｡।؟])|\n"
"""Ends of sentences, also in scripts without spaces, and of lines."""
CODE = r"(?s)```.*?(?:```|$)"
WORDED = rf"\p{{L}}.*\p{{L}}.*\p{{L}}|[{UNSPACED}\p{{Hangul}}].*[{UNSPACED}\p{{Hangul}}]"
"""A piece with words: three letters, or two of a script whose letters are words or syllables."""
MARKUP = r"^\||^</?[\w-]+ ?/?>[;,]?$|^\s*(?:end|pass|else|done|fi|break|return|None|null|true|false)[;:,)]*$"
"""A table row, a tag, or a line of code that says nothing alone."""


def flag_texts(texts: pl.Series, filters: Filters) -> pl.Series:
    """Return for each text the name of the first filter that it fails, or null."""
    import polars as pl

    whole, texts = texts, answer_texts(texts)
    text = texts.str.replace_all("\u2019", "'", literal=True) if filters.refusal else texts
    reason: pl.Expr = pl.lit(None, dtype=pl.String)
    checks: list[tuple[str, pl.Series]] = []
    if filters.special_tokens:
        checks.append(("special tokens", has_leaked_tokens(texts)))
    if filters.refusal:
        checks.append(("refusal", refuses(text)))
    if filters.script:
        checks.append(("wrong script", is_foreign(texts, filters.script)))
    if filters.language:
        checks.append(("wrong language", ~speaks(texts, filters.language)))
    if filters.repetition:
        checks.append(("repetition", repeats_itself(texts)))
    for name, holds in reversed(checks):
        reason = pl.when(holds).then(pl.lit(name)).otherwise(reason)
    return pl.DataFrame({"text": whole}).with_columns(flag=reason)["flag"]


def answer_texts(texts: pl.Series) -> pl.Series:
    """Return what follows the thoughts of each text; "" where a thought does not end."""
    import polars as pl

    marked = texts.str.contains_any(list(MARKS)).fill_null(False)
    if not marked.any():  # most texts have no thoughts
        return texts
    parts = [answer_part(text) for text in texts.filter(marked).to_list()]
    return texts.scatter(marked.arg_true(), pl.Series(parts, dtype=pl.String))


def has_leaked_tokens(texts: pl.Series) -> pl.Series:
    """Say which texts contain a template's tokens where a model has written them, not where a text is about them."""
    bare = texts.str.strip_chars()  # <s> and </s> are also HTML: only at the ends they are a template's
    found = (bare.str.starts_with("<s>") | bare.str.ends_with("</s>")).fill_null(False)
    some = bare.str.contains(SPECIAL_TOKENS).fill_null(False)  # few: only they are looked at closely
    plain = bare.filter(some).str.replace_all(QUOTED, "\u2026").str.replace_all(ABOUT_TOKENS, "\u2026")
    return found.scatter(some.arg_true(), plain.str.contains(LEAKED) | found.filter(some)) if some.any() else found


def is_foreign(texts: pl.Series, script: str) -> pl.Series:
    """Say which texts have :data:`FOREIGN_SHARE` or more of their letters in another script."""
    if script == "latin":  # the letters of ASCII are Latin, and most text is ASCII: it needs no regular expression
        wide = (texts.str.len_bytes() != texts.str.len_chars()).fill_null(False)
        found = wide.clone()
        return found.scatter(wide.arg_true(), _foreign(texts.filter(wide), script)) if wide.any() else found
    return _foreign(texts, script)


def _foreign(texts: pl.Series, script: str) -> pl.Series:
    letters = texts.str.count_matches(r"\p{L}")
    own = texts.str.count_matches(rf"\p{{{script.capitalize()}}}")
    return (letters - own.clip(upper_bound=letters)) >= FOREIGN_SHARE * letters.clip(1)


def speaks(texts: pl.Series, language: str) -> pl.Series:
    """Say which texts have at least as many function words of a language as of any other in :data:`FUNCTION_WORDS`.

    Texts with fewer than :data:`LEAST_FUNCTION_WORDS` of every language count as of the right one, unless most of
    their letters are of another script than Latin, in which all of these languages are written.
    """
    import polars as pl

    words = pl.DataFrame({"word": texts.str.to_lowercase().str.extract_all(r"\p{L}+")}).with_row_index("row")
    known = pl.DataFrame(
        [(word, name) for name, listed in FUNCTION_WORDS.items() for word in listed.split()],
        schema=["word", "language"],
        orient="row",
    )
    found = words.explode("word").join(known, on="word").group_by("row", "language").len()
    own = pl.col("len").filter(pl.col("language") == language).sum()
    most = found.group_by("row").agg(most=pl.col("len").max(), own=own)
    wrong = most.filter((pl.col("most") >= LEAST_FUNCTION_WORDS) & (pl.col("own") < pl.col("most")))
    letters, latin = texts.str.count_matches(r"\p{L}"), texts.str.count_matches(r"\p{Latin}")
    other_script = (2 * latin < letters).fill_null(False)
    return words.select(~pl.col("row").is_in(wrong["row"].implode())).to_series() & ~other_script


def repeats_itself(texts: pl.Series) -> pl.Series:
    """Say which texts repeat a sentence (or line) 4 times in a row or 40 times in all, or a paragraph 10 times.

    Lines of code, table rows and lines without words count from 40 in a row; see ``RUN``.
    """
    import polars as pl

    frame = pl.DataFrame({"text": texts}).with_row_index("row")
    prose = frame.with_columns(text=pl.col("text").str.replace_all(CODE, "\n```\n"))
    split = pl.col("text").str.replace_all(SENTENCE_END, "$1$2\x00").str.split("\x00")
    sentences = _twice(prose, split)
    worded = pl.col("piece").str.contains(WORDED) & ~pl.col("piece").str.contains(MARKUP)
    long = prose.filter(pl.col("text").str.count_matches("\n\n", literal=True) >= PARAGRAPHS - 1)
    paragraphs = _twice(long, pl.col("text").str.split("\n\n")).group_by("row", "piece").len("n")
    coded = frame.filter(pl.col("text").str.contains("```", literal=True))
    found = (
        _runs(sentences).filter(worded & (pl.col("n") >= RUN)),
        _runs(sentences).filter(pl.col("n") >= SENTENCES),
        _runs(_twice(coded, split)).filter(pl.col("n") >= SENTENCES),
        sentences.group_by("row", "piece").len("n").filter(worded & (pl.col("n") >= SENTENCES)),
        paragraphs.filter(worded & (pl.col("n") >= PARAGRAPHS)),
    )
    bad = pl.concat([table.select("row") for table in found]).to_series().unique()
    return frame.select(pl.col("row").is_in(bad.implode())).to_series()


def _runs(pieces: pl.DataFrame) -> pl.DataFrame:
    """Return how often (``n``) each piece stands in a row."""
    import polars as pl

    starts = (pl.col("row") != pl.col("row").shift()) | (pl.col("piece") != pl.col("piece").shift())
    runs = pieces.with_columns(run=starts.fill_null(True).cum_sum())
    return runs.group_by("run").agg(pl.col("row").first(), pl.col("piece").first(), n=pl.len())


def _twice(frame: pl.DataFrame, split: pl.Expr) -> pl.DataFrame:
    """Return the pieces of the texts that have one of them twice: others cannot repeat themselves, and are most."""
    import polars as pl

    bare = split.list.eval(pl.element().str.strip_chars()).list.eval(pl.element().filter(pl.element() != ""))
    pieces = frame.select("row", piece=bare)
    return pieces.filter(pl.col("piece").list.n_unique() < pl.col("piece").list.len()).explode("piece")
