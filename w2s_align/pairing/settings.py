"""The options of the filters. Imports nothing heavy: recipes are checked against this class before anything runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from w2s_align.records import Settings


class Filters(Settings):
    """What is dropped. Failed and empty responses always are; every dropped row is counted with its reason."""

    truncated: bool = True
    """Drop responses that were cut at the token limit: a student would learn to stop in the middle."""
    special_tokens: bool = True
    """Drop responses in which a model has written a chat template's tokens as text, e.g. ``<|im_end|>`` at the end;
    texts about such tokens stay."""
    refusal: bool = False
    """Drop responses that begin with a refusal, e.g. "I'm sorry, but I cannot", in English, German, French, Spanish,
    Chinese or Japanese; refusals in other languages stay."""
    repetition: bool = False
    """Drop responses that repeat themselves: a sentence 4 times in a row or 40 times in all, a paragraph 10 times.
    Lines of code, table rows and lines without a word may be equal to up to 39 neighbors."""
    script: Literal["latin", "cyrillic", "greek", "han", "arabic", "hebrew", "hangul", "devanagari"] | None = None
    """Drop responses with 5% or more of their letters in another script."""
    language: Literal["de", "en", "es", "fr", "it", "nl", "pt"] | None = None
    """Drop responses whose function words are mostly those of another of these languages; a text with fewer than 5
    function words (a number, a formula, code, a language that is not listed) stays, unless most of its letters are of
    another script than Latin."""
    sides: Literal["both", "chosen"] = "both"
    """Where special_tokens, refusal, repetition, script and language look: at every response, so that a rule chooses
    among the clean ones; or at the chosen side only, as Olmo 3 does for delta pairs (pairs are dropped after the rule
    chose)."""
    identical: bool = True
    """Drop pairs whose sides are the same up to case, white space and Unicode form: they carry no preference."""
    near_identical: float | None = Field(default=None, gt=0, le=1)
    """Drop pairs whose sides share at least this part of their different words (Jaccard index), e.g. 0.95."""
    max_length_gap: int | None = Field(default=None, ge=0)
    """Drop pairs whose sides differ by more than this many units of length (Olmo 3: 100 tokens, for chat)."""
    length_unit: Literal["tokens", "chars"] = "tokens"
    """Unit of max_length_gap, match_lengths and balance_lengths. Characters are those after the thoughts; tokens are
    those that the server counted, thoughts included."""
    match_lengths: bool = False
    """Drop pairs until, at every size of the length gap, the longer side is chosen as often as the shorter."""
    balance_lengths: bool = False
    """Drop pairs whose rejected side is longer by more than a share of its length; that share is chosen from 0, 0.02,
    ..., 0.98 so that the mean lengths of both sides come closest to each other (RLAIF-V, docs/methods/claims.md)."""
    min_delta: float | None = None
    """Drop pairs with a smaller difference of scores. Pairs without scores are not touched."""
    max_delta: float | None = None
    """Drop pairs with a larger difference of scores: a trivial pair teaches little."""
    near_duplicate_prompts: float | None = Field(default=None, gt=0, le=1)
    """Keep the pairs of one prompt only of those that share at least this part of their runs of 3 words (MinHash, then
    the true Jaccard index), e.g. 0.7; 1 finds those that differ in case, punctuation or white space alone. Where a
    language has no spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each letter is a word; inflected forms and
    translations are not recognized in any language."""
