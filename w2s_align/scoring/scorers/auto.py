"""The answer check that fits each prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from w2s_align.scoring.answers import gold_answer, is_choice, is_number
from w2s_align.scoring.scorer import Assessment, BatchScorer, Outcome, Scorer, unscored
from w2s_align.scoring.scorers.answer_checks import ChoiceScorer, ExactScorer, NumericScorer
from w2s_align.scoring.scorers.instructions import InstructionsScorer
from w2s_align.scoring.scorers.lab import LabScorer
from w2s_align.scoring.scorers.library_checks import MathScorer, ReasoningGymScorer


class AutoScorer(Scorer):
    """For each prompt the answer check that fits its task, its meta and the form of its gold answer."""

    name: Literal["auto"] = "auto"
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one answer may take where a library checks it."""
    processes: int | None = Field(default=None, ge=1)
    """Worker processes; null for one per core."""

    reads_gold: ClassVar[bool] = True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score every prompt with the check that :func:`choose_scorer` names; details begin with that name."""
        limits = {"timeout_s": self.timeout_s, "processes": self.processes}
        scorers: list[Scorer] = [ExactScorer(), NumericScorer(), ChoiceScorer(), LabScorer(), InstructionsScorer()]
        scorers += [MathScorer.model_validate(limits), ReasoningGymScorer.model_validate(limits)]
        by_name = {scorer.name: scorer for scorer in scorers}
        with ExitStack() as stack:
            opened: dict[str, BatchScorer] = {}

            def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
                columns = (prompts[name].to_pylist() for name in ("task", "meta", "answer"))
                names = [choose_scorer(*row) for row in zip(*columns, strict=True)]
                found = [unscored(Outcome.NO_GOLD)] * len(names)
                for name in sorted({name for name in names if name}):
                    if name not in opened:
                        opened[name] = stack.enter_context(by_name[name].open())
                    rows = [row for row, chosen in enumerate(names) if chosen == name]
                    for row, one in zip(rows, opened[name](prompts.take(rows), responses.take(rows)), strict=True):
                        found[row] = one if one.value is None else replace(one, detail=f"{name}: {one.detail}")
                return found

            yield score_batch


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
    # Looking for the words first saves parsing every meta: those of reasoning-gym can be long.
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
