"""The answer scorers, all of one shape, and the table of them.

A scorer is opened once with its options (a process pool starts, a library is loaded) and is then a plain function over
batches: ``scorer(prompts, responses) -> Verdicts``, where row ``i`` of both Arrow tables belongs together. To add a
scorer: write a generator function like the ones below, its options in ``settings.py``, and one line in ``SCORERS``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pyarrow as pa

from w2s_align.errors import missing_package
from w2s_align.records import Prompt, Settings, from_table
from w2s_align.scoring.answers import (
    choice_letter,
    extract_answer,
    extract_choice,
    gold_answer,
    is_choice,
    is_number,
    normalise_answer,
    parse_number,
    same_number,
)
from w2s_align.scoring.features import FEATURES
from w2s_align.scoring.likelihood import logprob
from w2s_align.scoring.pool import WorkerPool
from w2s_align.scoring.references import contains, f1
from w2s_align.scoring.reward import reward
from w2s_align.scoring.settings import (
    AutoSettings,
    ChoiceSettings,
    ExactSettings,
    FeatureSettings,
    InstructionsSettings,
    LabSettings,
    MathSettings,
    NumericSettings,
    ReasoningGymSettings,
    SelfConsistencySettings,
)
from w2s_align.scoring.verdicts import BatchScorer, Verdicts
from w2s_align.scoring.verifiable import code, instructions
from w2s_align.scoring.votes import final_answers

NO_GOLD = "no gold answer"
NOT_FOUND = "no answer found"


@contextmanager
def exact(settings: ExactSettings) -> Iterator[BatchScorer]:
    """Score 1 where the final answer equals the gold answer after normalisation, else 0."""

    def check(answer: str, gold: str) -> tuple[float, str]:
        return float(normalise_answer(answer) == normalise_answer(gold)), answer

    yield lambda prompts, responses: _final_answers(prompts, responses, check)


@contextmanager
def numeric(settings: NumericSettings) -> Iterator[BatchScorer]:
    """Score 1 where the final answer is the gold number, else 0; a gold answer that is no number is unscored."""

    def check(answer: str, gold: str) -> tuple[float | None, str]:
        expected, given = parse_number(gold), parse_number(answer)
        if expected is None:
            return None, "gold is not a number"
        if given is None:
            return 0.0, f"not a number: {answer}"
        return float(same_number(given, expected, settings.tolerance)), answer

    yield lambda prompts, responses: _final_answers(prompts, responses, check)


@contextmanager
def choice(settings: ChoiceSettings) -> Iterator[BatchScorer]:
    """Score 1 where the final answer is the letter of the gold choice, else 0; a gold answer that is no letter is
    unscored."""

    def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
        verdicts: list[tuple[float | None, str]] = []
        for answer, text in zip(prompts["answer"].to_pylist(), responses["text"].to_pylist(), strict=True):
            gold = choice_letter(answer) if answer and is_choice(answer) else None
            found = extract_choice(text)
            if gold is None:
                verdicts.append((None, "gold is not a letter" if answer else NO_GOLD))
            else:
                verdicts.append((0.0, NOT_FOUND) if found is None else (float(found == gold), found))
        return Verdicts.of(verdicts)

    yield score_batch


@contextmanager
def math(settings: MathSettings) -> Iterator[BatchScorer]:
    """Score 1 where math-verify finds the final answer equal to the gold answer, else 0.

    Its comparison is lenient in places: the set {1, 2} and the interval (1, 2) are the same to it, and an answer that
    was to be simplified counts unsimplified (verifiers.md 8.1).
    """
    _require("math_verify", "math-verify", "the math scorer")
    with WorkerPool("w2s_align.scoring.worker:math_check", settings.timeout_s, settings.processes) as pool:

        def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
            golds = prompts["answer"].to_pylist()
            items = [
                {"gold": gold, "text": text} if gold else None
                for gold, text in zip(golds, responses["text"].to_pylist(), strict=True)
            ]
            return _pooled(pool, items, NO_GOLD)

        yield score_batch


@contextmanager
def reasoning_gym(settings: ReasoningGymSettings) -> Iterator[BatchScorer]:
    """Score 1 where the reasoning-gym data set that made the prompt accepts the extracted final answer, else 0.

    Reads ``Prompt.meta``: ``{"reasoning_gym": <data set name>, "entry": <the data set's item>}``.
    """
    _require("reasoning_gym", "reasoning-gym", "the reasoning_gym scorer", extra="reasoning_gym")
    with WorkerPool("w2s_align.scoring.worker:reasoning_gym_check", settings.timeout_s, settings.processes) as pool:

        def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
            items = []
            for encoded, text in zip(prompts["meta"].to_pylist(), responses["text"].to_pylist(), strict=True):
                meta = json.loads(encoded)
                known = "reasoning_gym" in meta and "entry" in meta
                items.append(
                    {"dataset": meta["reasoning_gym"], "entry": meta["entry"], "text": text} if known else None
                )
            return _pooled(pool, items, "not a reasoning-gym prompt")

        yield score_batch


@contextmanager
def lab(settings: LabSettings) -> Iterator[BatchScorer]:
    """Let the lab task that made the prompt check the response."""
    from w2s_align.lab import check

    def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
        rows = zip(from_table(Prompt, prompts), responses["text"].to_pylist(), strict=True)
        return Verdicts.of([check(prompt.task, prompt, text) for prompt, text in rows])

    yield score_batch


@contextmanager
def auto(settings: AutoSettings) -> Iterator[BatchScorer]:
    """Score every prompt with the answer check that fits it (see :func:`choose_scorer`); details begin with its
    name."""
    options: dict[str, Settings] = {
        "exact": ExactSettings(),
        "numeric": NumericSettings(),
        "choice": ChoiceSettings(),
        "math": MathSettings(timeout_s=settings.timeout_s, processes=settings.processes),
        "reasoning_gym": ReasoningGymSettings(timeout_s=settings.timeout_s, processes=settings.processes),
        "lab": LabSettings(),
        "instructions": InstructionsSettings(),
    }
    with ExitStack() as stack:
        opened: dict[str, BatchScorer] = {}

        def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
            columns = (prompts[name].to_pylist() for name in ("task", "meta", "answer"))
            names = [choose_scorer(*row) for row in zip(*columns, strict=True)]
            verdicts: list[tuple[float | None, str]] = [(None, NO_GOLD)] * len(names)
            for name in sorted({name for name in names if name}):
                if name not in opened:
                    opened[name] = stack.enter_context(SCORERS[name](options[name]))
                rows = [row for row, chosen in enumerate(names) if chosen == name]
                part = opened[name](prompts.take(rows), responses.take(rows))
                for row, value, detail in zip(rows, part.values, part.details, strict=True):
                    verdicts[row] = (value, detail if value is None else f"{name}: {detail}")
            return Verdicts.of(verdicts)

        yield score_batch


@contextmanager
def feature(settings: FeatureSettings) -> Iterator[BatchScorer]:
    """Score a countable feature of the text, or its closeness to a target."""
    count = FEATURES[settings.feature]

    def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
        counts = [float(count(text)) for text in responses["text"].to_pylist()]
        if settings.target is None:
            return Verdicts(list(counts), [""] * len(counts))
        target = settings.target
        return Verdicts([-abs(value - target) for value in counts], [f"{value:g}" for value in counts])

    yield score_batch


@contextmanager
def self_consistency(settings: SelfConsistencySettings) -> Iterator[BatchScorer]:
    """Score the share of all samples of the same model for the same prompt that have the response's final answer.

    A response without an answer scores 0: many empty answers are not a sign of confidence.
    """

    def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
        answers = final_answers(responses, settings.answer).to_pylist()
        groups = list(zip(responses["prompt_id"].to_pylist(), responses["model"].to_pylist(), strict=True))
        sizes, votes = Counter(groups), Counter(zip(groups, answers, strict=True))
        shares = [votes[group, answer] / sizes[group] for group, answer in zip(groups, answers, strict=True)]
        return Verdicts(
            [share if answer else 0.0 for share, answer in zip(shares, answers, strict=True)],
            [answer or NOT_FOUND for answer in answers],
        )

    yield score_batch


WHOLE_TABLE = {"self_consistency"}
"""Scorers that compare responses with each other, so that a batch of them is the whole table."""


def choose_scorer(task: str, meta: str, answer: str | None) -> str | None:
    """Return the name of the scorer that fits a prompt, or None when nothing can check it.

    In this order: reasoning-gym prompts (``meta`` has ``reasoning_gym``); lab prompts (the task's name begins with
    ``lab/``); prompts with IFEval's instructions (``meta`` has ``instruction_id_list``); no gold answer: None; a task
    with ``math`` in its name or a gold answer with LaTeX: ``math``; a gold answer that is a number: ``numeric``; a
    single letter from A to J: ``choice``; else ``exact``. Generated code is never run unless ``code`` is asked for.

    Args:
        task: ``Prompt.task``.
        meta: ``Prompt.meta`` as JSON text.
        answer: ``Prompt.answer``.
    """
    if '"reasoning_gym"' in meta and "reasoning_gym" in json.loads(meta):
        return "reasoning_gym"
    if task.startswith("lab/"):
        return "lab"
    if '"instruction_id_list"' in meta and "instruction_id_list" in json.loads(meta):
        return "instructions"
    if not answer or not answer.strip():
        return None
    gold = gold_answer(answer)
    if "math" in task.lower() or (not is_number(gold) and any(mark in gold for mark in ("\\", "$", "^"))):
        return "math"
    if is_number(gold):
        return "numeric"
    return "choice" if is_choice(gold) else "exact"


SCORERS: dict[str, Callable[[Any], AbstractContextManager[BatchScorer]]] = {
    "exact": exact,
    "numeric": numeric,
    "choice": choice,
    "math": math,
    "reasoning_gym": reasoning_gym,
    "lab": lab,
    "code": code,
    "instructions": instructions,
    "f1": f1,
    "contains": contains,
    "auto": auto,
    "feature": feature,
    "reward": reward,
    "logprob": logprob,
    "self_consistency": self_consistency,
}


def _final_answers(
    prompts: pa.Table, responses: pa.Table, check: Callable[[str, str], tuple[float | None, str]]
) -> Verdicts:
    """Extract the final answers and check each against its gold answer."""
    verdicts: list[tuple[float | None, str]] = []
    for answer, text in zip(prompts["answer"].to_pylist(), responses["text"].to_pylist(), strict=True):
        gold = gold_answer(answer) if answer else ""
        if not gold:
            verdicts.append((None, NO_GOLD))
            continue
        found = extract_answer(text, gold)
        verdicts.append((0.0, NOT_FOUND) if found is None else check(found, gold))
    return Verdicts.of(verdicts)


def _pooled(pool: WorkerPool, items: list[Any], reason: str) -> Verdicts:
    """Check the items that are not None in the pool; the others are unscored for ``reason``."""
    answers = iter(pool.map([item for item in items if item is not None]))
    verdicts: list[tuple[float | None, str]] = []
    for item in items:
        answer: dict[str, Any] = {"failed": reason} if item is None else next(answers)
        verdicts.append((None, answer["failed"]) if "failed" in answer else (answer["value"], answer["detail"]))
    return Verdicts.of(verdicts)


def _require(module: str, package: str, purpose: str, extra: str = "eval") -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise missing_package(package, extra, purpose)
