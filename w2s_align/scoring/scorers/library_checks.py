"""Checks of the final answer by libraries, math-verify and reasoning-gym, in processes that may hang or crash."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import missing_package
from w2s_align.scoring.answers import extract_answer, gold_answer, math_answers, up_to_first_box
from w2s_align.scoring.pool import WorkerPool
from w2s_align.scoring.scorer import WITHOUT_ANSWER, Assessment, BatchScorer, Outcome, Scorer, unscored


class MathScorer(Scorer):
    """The final answer is mathematically equal to the gold answer (math-verify)."""

    name: Literal["math"] = "math"
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one answer may take; one that takes longer is unscored."""
    processes: int | None = Field(default=None, ge=1)
    """Worker processes; null for one per core."""

    reads_gold: ClassVar[bool] = True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score 1 where math-verify finds the two equal, else 0.

        Its comparison is lenient in places: the set {1, 2} and the interval (1, 2) are the same to it, and an answer
        that was to be simplified counts unsimplified (docs/methods/answer_checks.md).
        """
        _require("math_verify", "math-verify", self.name)
        with WorkerPool(f"{__name__}:math_check", self.timeout_s, self.processes) as pool:

            def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
                rows = zip(prompts["answer"].to_pylist(), responses["text"].to_pylist(), strict=True)
                items = [{"gold": gold, "text": self.seen(text)} if gold else None for gold, text in rows]
                return _check_in(pool, items, Outcome.NO_GOLD)

            yield score_batch

    def seen(self, text: str) -> str:
        """Return the part of a response in which the answer is looked for: all of it."""
        return text


class FirstBoxScorer(MathScorer):
    r"""The answer in the first \boxed{...} is mathematically equal to the gold answer.

    Beside ``math``, which reads the last box, it tells whether a model solves a problem and then does not stop.
    """

    name: Literal["first_box"] = "first_box"  # type: ignore[assignment]

    def seen(self, text: str) -> str:
        """Return a response up to the end of its first box; all of it where it has none."""
        return up_to_first_box(text)


class ReasoningGymScorer(Scorer):
    """The reasoning-gym data set that made the prompt scores the final answer exactly 1.

    Reads ``Prompt.meta``: ``{"reasoning_gym": <data set name>, "entry": <the data set's item>}``.
    """

    name: Literal["reasoning_gym"] = "reasoning_gym"
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one answer may take; one that takes longer is unscored."""
    processes: int | None = Field(default=None, ge=1)
    """Worker processes; null for one per core."""

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score 1 where the data set accepts the extracted final answer, else 0."""
        _require("reasoning_gym", "reasoning-gym", self.name, extra="reasoning_gym")
        with WorkerPool(f"{__name__}:reasoning_gym_check", self.timeout_s, self.processes) as pool:

            def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
                metas = [json.loads(encoded) for encoded in prompts["meta"].to_pylist()]
                items = [
                    {"dataset": meta["reasoning_gym"], "entry": meta["entry"], "text": text}
                    if "reasoning_gym" in meta and "entry" in meta
                    else None
                    for meta, text in zip(metas, responses["text"].to_pylist(), strict=True)
                ]
                return _check_in(pool, items, "not a reasoning-gym prompt")

            yield score_batch


def math_check() -> Callable[[dict[str, str]], dict[str, Any]]:
    """Return, in a worker, the check by math-verify; items are ``{"gold": ..., "text": ...}``."""
    from math_verify import parse, verify

    @functools.lru_cache(maxsize=1024)
    def parse_gold(gold: str) -> list[Any]:
        # Without delimiters math-verify does not see LaTeX in a gold answer: \frac13 alone would be unreadable.
        gold = gold.replace("\\$", "")  # a dollar sign of an amount, not a delimiter
        delimited = gold if "$" in gold or "\\boxed" in gold or "\\(" in gold else f"${gold}$"
        # No time limits of its own: they are alarm signals, which fail in C code (see pool.py).
        return list(parse(delimited, parsing_timeout=None) or parse(gold, parsing_timeout=None))

    def check(item: dict[str, str]) -> dict[str, Any]:
        gold = parse_gold(gold_answer(item["gold"]))
        if not gold:
            return {"failed": "gold cannot be parsed"}
        places = (place.replace("\\$", "") for place in math_answers(item["text"]))
        found = next((read for place in places if (read := parse(place, parsing_timeout=None))), None)
        if not found:
            return {"answer": None}
        return {"answer": str(found[-1]), "value": float(verify(gold, found, timeout_seconds=None))}

    return check


def reasoning_gym_check() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return, in a worker, the check by a reasoning-gym data set; items are ``{"dataset", "entry", "text"}``.

    The data sets give partial credit for a right answer inside other words, so the final answer is extracted first and
    only a score of exactly 1 is right.
    """
    from reasoning_gym.factory import get_score_answer_fn

    score_of = functools.cache(get_score_answer_fn)

    def check(item: dict[str, Any]) -> dict[str, Any]:
        entry = item["entry"]
        answer = extract_answer(item["text"], gold=str(entry.get("answer") or "text"))
        if answer is None:
            return {"answer": None}
        return {"answer": answer, "value": float(score_of(item["dataset"])(answer, entry) == 1.0)}

    return check


def _check_in(pool: WorkerPool, items: Sequence[Any], otherwise: str) -> list[Assessment]:
    """Check the items that are not None in the pool; the others are unscored for the reason ``otherwise``."""
    replies = iter(pool.map([item for item in items if item is not None]))
    found: list[Assessment] = []
    for item in items:
        reply: dict[str, Any] = {"failed": otherwise} if item is None else next(replies)
        if "failed" in reply:
            found.append(unscored(reply["failed"], reply.get("detail", "")))
        elif reply["answer"] is None:
            found.append(WITHOUT_ANSWER)
        else:
            found.append(Assessment(reply["value"], reply["answer"], reply["answer"]))
    return found


def _require(module: str, package: str, scorer: str, extra: str = "eval") -> None:
    if find_spec(module) is None:
        raise missing_package(package, extra, f"the {scorer} scorer")
