"""Checks of the final answer against the gold answer, by plain rules: as text, as a number, as a letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from w2s_align.scoring.answers import (
    choice_letter,
    extract_answer,
    extract_choice,
    gold_answer,
    is_choice,
    normalize_answer,
    number_of,
    parse_number,
    same_number,
)
from w2s_align.scoring.scorer import WITHOUT_ANSWER, Assessment, BatchScorer, Outcome, Scorer, unscored


class ExactScorer(Scorer):
    """The final answer equals the gold answer as text, after normalization."""

    name: Literal["exact"] = "exact"

    reads_gold: ClassVar[bool] = True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score 1 where the two are equal, else 0."""

        def check(answer: str, gold: str) -> Assessment:
            return Assessment(float(normalize_answer(answer) == normalize_answer(gold)), answer, answer)

        yield lambda prompts, responses: _check_answers(prompts, responses, check)


class NumericScorer(Scorer):
    """The final answer is the gold number."""

    name: Literal["numeric"] = "numeric"
    tolerance: float = Field(default=1e-6, ge=0)
    """Relative difference up to which two numbers are the same; whole numbers are compared exactly."""

    reads_gold: ClassVar[bool] = True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score 1 where the two are the same number, else 0; a gold answer that is not a number is unscored."""

        def check(answer: str, gold: str) -> Assessment:
            expected, given = _number(gold), _number(answer)
            if expected is None:
                return unscored("gold is not a number")
            if given is None:
                return Assessment(0.0, f"not a number: {answer}", answer)
            return Assessment(float(same_number(given, expected, self.tolerance)), answer, answer)

        yield lambda prompts, responses: _check_answers(prompts, responses, check, kind="0")


class ChoiceScorer(Scorer):
    """The final answer is the letter of the gold choice (multiple choice)."""

    name: Literal["choice"] = "choice"

    reads_gold: ClassVar[bool] = True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score 1 where the two are the same letter, else 0; a gold answer that is not a letter is unscored."""

        def check(answer: str | None, text: str) -> Assessment:
            if not answer:
                return unscored(Outcome.NO_GOLD)
            if not is_choice(answer):
                return unscored("gold is not a letter")
            found = extract_choice(text)
            return WITHOUT_ANSWER if found is None else Assessment(float(found == choice_letter(answer)), found, found)

        yield lambda prompts, responses: [
            check(*row) for row in zip(prompts["answer"].to_pylist(), responses["text"].to_pylist(), strict=True)
        ]


def _number(text: str) -> int | float | None:
    """Return the value of a gold or an extracted answer; here ``3,5`` has a decimal comma, and ``2^{10}`` a value."""
    value = parse_number(text)
    return value if value is not None or (found := number_of(text)) is None else parse_number(found)


def _check_answers(
    prompts: pa.Table, responses: pa.Table, check: Callable[[str, str], Assessment], kind: str = ""
) -> list[Assessment]:
    """Extract the final answers and check each against its gold answer.

    Args:
        prompts: One a response.
        responses: The responses.
        check: Takes an answer and its gold answer.
        kind: What answers look like, e.g. ``0``; by default each looks like its gold answer.
    """
    found: list[Assessment] = []
    for answer, text in zip(prompts["answer"].to_pylist(), responses["text"].to_pylist(), strict=True):
        gold = gold_answer(answer) if answer else ""
        given = extract_answer(text, kind or gold) if gold else None
        if not gold:
            found.append(unscored(Outcome.NO_GOLD))
        else:
            found.append(WITHOUT_ANSWER if given is None else check(given, gold))
    return found
