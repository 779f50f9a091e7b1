"""Answers beside a reference, judged by a model in both orders: one preference per answer.

Reads prompts, answers and reference texts, asks through :func:`w2s_align.scoring.judge.judge`, returns scores from 0
(the reference is better) to 1, every verdict, and how many ended as win, loss, tie, flip, or could not be read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import Response, to_table
from w2s_align.scoring.judge import judge
from w2s_align.scoring.judge_prompts import JudgeSettings
from w2s_align.scoring.judge_scores import VERDICTS, Reliability, comparisons
from w2s_align.scoring.scorer import Assessment, Outcome, score_table, unscored
from w2s_align.scoring.thoughts import answer_part

ANSWER, REFERENCE = "answer", "reference"
"""Names of the two sides; the judge is shown neither, and this order puts every preference on the answer's side."""
UNREADABLE = "the judge could not be read"
"""Why an answer has no preference where an order of the two has no readable verdict."""


@dataclass(frozen=True)
class Preferences:
    """The result of :func:`prefer`.

    Attributes:
        scores: Rows of ``Score.SCHEMA``, in the order of the responses: 1 where the answer is preferred, 0.5 for a tie
            or where the two orders contradict each other (a flip), null where no verdict could be read.
        verdicts: Rows of ``VERDICTS``: every answer of the judge, with ``prompt_id`` and ``sample`` of the response.
        outcomes: Answers by outcome, unscored ones by reason.
        reliability: How often the judge contradicted itself or could not be read; None when nothing was asked.
        asked: Tokens and seconds of the judge; None when nothing was asked.
    """

    scores: pa.Table
    verdicts: pa.Table
    outcomes: dict[str, int]
    reliability: Reliability | None
    asked: dict[str, Any] | None


def references_of(problems: pa.Table) -> dict[str, str]:
    """Return the reference answer that the problems of a judged task carry, by problem."""
    metas = [json.loads(meta) for meta in problems["meta"].to_pylist()]
    pairs = zip(problems["id"].to_pylist(), metas, strict=True)
    return {problem: meta["reference"] for problem, meta in pairs if isinstance(meta.get("reference"), str)}


def prefer(
    model: str | Path,
    problems: pa.Table,
    responses: pa.Table,
    references: Mapping[str, str],
    *,
    template: str | None = None,
    judge_name: str | None = None,
    **asking: Any,
) -> Preferences:
    """Let a judge compare every answer with the reference of its problem, in both orders.

    Args:
        model: The judge.
        problems: Rows of ``Prompt.SCHEMA``.
        responses: Rows of ``Response.SCHEMA``, of one model; several answers to a problem are judged one by one.
        references: Text of the reference by problem.
        template: What the judge is asked, with {prompt}, {first} and {second}; by default the pairwise prompt of
            :mod:`w2s_align.scoring.judge_prompts`.
        judge_name: What names the judge in the scores.
        **asking: ``sampling``, ``out``, ``seed``, ``engine``, ``resources``, ``engines``, ``progress`` of
            :func:`w2s_align.scoring.judge.judge`.

    Raises:
        UserError: No problem has a reference, or the judge cannot be asked.
    """
    if not any(problem in references for problem in problems["id"].to_pylist()):
        raise UserError(
            "There is no reference answer to compare with.",
            fix="The task's meta needs reference, or judge a baseline.",
        )
    keys = [responses[name].to_pylist() for name in ("prompt_id", "sample", "text", "finish_reason")]
    keys[2] = [None if text is None else answer_part(text) for text in keys[2]]
    rows = list(zip(*keys, strict=True))
    reasons = [_unusable(text, finish, problem in references) for problem, _, text, finish in rows]
    # Each answer gets a question of its own, so that answers to one problem are never compared with each other.
    asked = {f"{row}": rows[row] for row, reason in enumerate(reasons) if not reason}
    messages = dict(zip(problems["id"].to_pylist(), problems["messages"], strict=True))
    questions = pa.table(
        {
            "id": pa.array(asked, pa.string()),
            "messages": pa.array([messages[p].as_py() for p, *_ in asked.values()], problems["messages"].type),
        }
    )
    sides = [
        Response(key, 0, side, text)
        for key, (problem, _, own, _) in asked.items()
        for side, text in ((ANSWER, own), (REFERENCE, references[problem]))
    ]
    name = judge_name or str(model)
    assessments = [unscored(reason) for reason in reasons]
    if not asked:
        scores = score_table(responses, f"judge:{name}", assessments)
        return Preferences(scores, VERDICTS.empty_table(), dict(Counter(reasons)), None, None)
    settings = JudgeSettings(mode="pairwise", template=template)
    judged = judge(model, questions, to_table(sides, Response), settings, model_name=name, **asking)
    found = {key: (outcome, value) for key, *_, outcome, value in comparisons(judged.verdicts).iter_rows()}
    for key, (problem, _, own, _) in asked.items():
        assessments[int(key)] = _assessment(*found[key], len(own) - len(references[problem]))
    return Preferences(
        score_table(responses, f"judge:{name}", assessments),
        _named(judged.verdicts, rows),
        dict(Counter(str(one.outcome) for one in assessments).most_common()),
        judged.reliability,
        None if judged.generation is None else judged.generation.to_json(),
    )


def _unusable(text: str | None, finish: str, has_reference: bool) -> str:
    """Return why an answer cannot be judged, or ""."""
    if not has_reference:
        return "no reference answer"
    return Outcome.NO_RESPONSE if text is None or finish == "error" else ""


def _assessment(outcome: str, value: float | None, difference: int) -> Assessment:
    """Return what a comparison says about an answer that is ``difference`` characters longer than the reference."""
    if value is None:
        return replace(unscored(UNREADABLE), length_difference=difference)
    said = f"{outcome}, {difference:+d} characters against the reference"
    return Assessment(value, said, outcome=outcome, length_difference=difference)


def _named(verdicts: pa.Table, rows: list[tuple[str, int, str, str]]) -> pa.Table:
    """Say in each verdict which answer it is about."""
    about = [rows[int(key)] for key in verdicts["prompt_id"].to_pylist()]
    columns = {name: verdicts[name] for name in VERDICTS.names}
    columns["prompt_id"] = pa.array([problem for problem, *_ in about], pa.string())
    columns["sample"] = pa.array([sample for _, sample, *_ in about], pa.int32())
    return pa.table(columns, schema=VERDICTS)
