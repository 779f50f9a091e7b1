"""What several answers to a problem are worth when one is chosen, by majority or by any scorer.

Reads tables of ``Score.SCHEMA``, returns one number per problem. The gap between "some answer is right" and "the
chosen one is right" is the generation-verification gap: what a better verifier could still win (Saad-Falcon et al.
2025, arXiv 2506.18203).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from w2s_align.evaluation.metrics import majority_at_n
from w2s_align.evaluation.statistics import Floats
from w2s_align.scoring.scorer import Outcome
from w2s_align.scoring.votes import countable


def counted_answers(scores: pa.Table) -> list[str | None] | None:
    """Return the answer of every row in the form in which answers are counted, or None when scores keep no answers.

    None within the list: no answer was found, or the row could not be scored. Scores keep answers where every row with
    a value has one, or says that there is none.
    """
    if not scores.num_rows:
        return None
    found: list[str | None] = []
    columns = (scores[name].to_pylist() for name in ("value", "answer", "outcome"))
    for value, answer, outcome in zip(*columns, strict=True):
        if value is not None and answer is None and outcome != Outcome.NO_ANSWER:
            return None
        found.append(countable(answer) if answer and value is not None else None)
    return found


def majority_values(scores: pa.Table, ids: Sequence[str]) -> tuple[Floats, Floats] | None:
    """Return for each problem whether the most frequent answer is right, and its share of the votes.

    Args:
        scores: Scores of all answers.
        ids: The problems, in the order of the result.

    Returns:
        Two arrays, NaN for a problem without a scored answer; None when the scores do not keep answers, or are not
        all 0 or 1.
    """
    answers = counted_answers(scores)
    values = scores["value"].to_pylist()
    if answers is None or any(v is not None and v not in (0.0, 1.0) for v in values):
        return None
    votes: dict[str, list[tuple[str | None, float]]] = defaultdict(list)
    for prompt, answer, value in zip(scores["prompt_id"].to_pylist(), answers, values, strict=True):
        if value is not None:
            votes[prompt].append((answer, value))
    right, share = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    for row, problem in enumerate(ids):
        if problem in votes:
            given = votes[problem]
            won = majority_at_n([answer for answer, _ in given], [value for _, value in given])
            right[row] = np.nan if won is None else won
            named = [answer for answer, _ in given if answer is not None]
            share[row] = max((named.count(answer) for answer in set(named)), default=0) / len(given)
    return right, share


def best_of_values(scores: pa.Table, chooser: pa.Table, ids: Sequence[str]) -> Floats:
    """Return for each problem the score of the answer that a scorer likes best.

    Args:
        scores: What the answers are worth.
        chooser: What the choosing scorer says about the same answers; higher is better, null is never chosen.
        ids: The problems, in the order of the result.

    Returns:
        Of equally liked answers the mean; NaN for a problem where nothing can be chosen.
    """
    columns = ("prompt_id", "sample", "value")
    liked: dict[tuple[str, int], float | None] = {
        (prompt, sample): value
        for prompt, sample, value in zip(*(chooser[c].to_pylist() for c in columns), strict=True)
    }
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for prompt, sample, value in zip(*(scores[c].to_pylist() for c in columns), strict=True):
        rank = liked.get((prompt, sample))
        if value is not None and rank is not None and np.isfinite(rank):
            seen[prompt].append((rank, value))
    chosen = np.full(len(ids), np.nan)
    for row, problem in enumerate(ids):
        if problem in seen:
            top = max(rank for rank, _ in seen[problem])
            chosen[row] = float(np.mean([value for rank, value in seen[problem] if rank == top]))
    return chosen


def agreement(
    student: Sequence[str | None], teacher: Sequence[str | None], teacher_right: Sequence[float | None]
) -> dict[str, float | None]:
    """Return how often a student gives its teacher's answer: in all, where the teacher is right, and where it is
    wrong.

    Imitating the teacher's mistakes shows in the last one (Burns et al. 2023, arXiv 2312.09390, section 5). Answers
    that were not found agree with nothing.

    Args:
        student: The student's answer to each problem.
        teacher: The teacher's, in the same order.
        teacher_right: The teacher's score: 1 for right, 0 for wrong; other problems are left out.
    """
    same = [float(a is not None and a == b) for a, b in zip(student, teacher, strict=True)]
    known = [i for i, value in enumerate(teacher_right) if value in (0.0, 1.0)]

    def mean(rows: list[int]) -> float | None:
        return sum(same[i] for i in rows) / len(rows) if rows else None

    return {
        "all": mean(known),
        "teacher right": mean([i for i in known if teacher_right[i] == 1.0]),
        "teacher wrong": mean([i for i in known if teacher_right[i] == 0.0]),
    }
