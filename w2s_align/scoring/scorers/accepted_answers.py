"""Answers with several accepted forms: DROP's F1, and whether an accepted answer occurs in the text (PopQA).

The accepted answers stand in ``Prompt.meta["references"]``: a list of texts, or for ``f1`` of lists of spans, or the
JSON text of such a list.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa

from w2s_align.scoring.answers import extract_answer
from w2s_align.scoring.scorer import WITHOUT_ANSWER, Assessment, BatchScorer, Outcome, Scorer, unscored
from w2s_align.scoring.sentences import words_of
from w2s_align.scoring.thoughts import answer_part

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_OTHER_PUNCTUATION = str.maketrans("", "", "。、，！？：；「」『』（）《》“”‘’")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class F1Scorer(Scorer):
    """The words of the final answer are those of an accepted one (F1 of DROP). Reads ``meta``: ``references``."""

    name: Literal["f1"] = "f1"

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score the overlap of words between the final answer and the nearest accepted one.

        Source: Dua et al. 2019, arXiv 1903.00161, section 5.
        """

        def check(accepted: list[Any], text: str) -> Assessment:
            found = extract_answer(text, gold="text")
            if found is None:
                return WITHOUT_ANSWER
            spans = [[str(span) for span in one] if isinstance(one, list) else [str(one)] for one in accepted]
            return Assessment(max(overlap(found, one) for one in spans), found, found)

        yield lambda prompts, responses: _check(prompts, responses, check)


class ContainsScorer(Scorer):
    """An accepted answer occurs in the response (PopQA). Reads ``Prompt.meta``: ``references``, a list of texts."""

    name: Literal["contains"] = "contains"

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score 1 where an accepted answer occurs in the text as whole words, upper and lower case alike, else 0."""

        def check(accepted: list[Any], text: str) -> Assessment:
            body = f" {' '.join(plain_words(answer_part(text)))} "
            for answer in accepted:
                words = " ".join(plain_words(str(answer)))
                if words and f" {words} " in body:
                    return Assessment(1.0, str(answer))
            return Assessment(0.0)

        yield lambda prompts, responses: _check(prompts, responses, check)


def _check(prompts: pa.Table, responses: pa.Table, check: Callable[[list[Any], str], Assessment]) -> list[Assessment]:
    found = []
    for encoded, text in zip(prompts["meta"].to_pylist(), responses["text"].to_pylist(), strict=True):
        accepted = json.loads(encoded).get("references")
        if isinstance(accepted, str):
            accepted = json.loads(accepted)
        found.append(check(accepted, text) if accepted else unscored(Outcome.NO_GOLD))
    return found


def plain_words(text: str) -> list[str]:
    """Return the words of a text as :func:`drop_words`, wide characters and typographic quotes as the usual ones."""
    return drop_words(" ".join(unicodedata.normalize("NFKC", text).translate(_OTHER_PUNCTUATION).split()))


def drop_words(text: str) -> list[str]:
    """Return the words of an answer in the form in which DROP's official function compares them.

    Lower case; split at spaces and hyphens only; without punctuation and articles; numbers as floats, so that
    ``1,200`` is ``1200.0`` and ``3.5%`` is ``35.0``. Chinese and Japanese, which DROP does not have, have no spaces:
    each of their characters is a word.

    Source: the evaluation script of Dua et al. 2019, arXiv 1903.00161.
    """
    words: list[str] = []
    for token in re.split("[ -]", text.lower()):
        bare = token if _is_number(token) else token.translate(_PUNCTUATION)
        word = str(float(bare)) if _is_number(bare) else bare
        for part in _ARTICLES.sub(" ", word).split():
            words += [part] if part.isascii() or len(pieces := words_of(part)) < 2 else pieces
    return words


def overlap(answer: str, accepted: list[str]) -> float:
    """Return DROP's F1 of one answer and one accepted answer of one or several spans, as the official function.

    An answer is one span, so of several accepted spans it can match one, and the others count 0; where an accepted
    span has numbers, one of them must be in the answer. Words are compared as sets. Not rounded to two digits, which
    the official function does.

    Args:
        answer: The answer given.
        accepted: The spans of one accepted answer; 0 where the first of them is blank, as there.

    Source: the evaluation script of Dua et al. 2019, arXiv 1903.00161.
    """
    if not accepted or not accepted[0].strip():
        return 0.0
    given = set(drop_words(answer))
    return max(_f1(given, set(drop_words(span))) for span in accepted) / len(accepted)


def _f1(given: set[str], gold: set[str]) -> float:
    numbers = set(filter(_is_number, gold))
    if numbers and not numbers & given:
        return 0.0
    # Two answers without any words, such as "a" and "the", are the same.
    return 2 * len(given & gold) / (len(given) + len(gold)) if given or gold else 1.0


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
