"""What several answers to one prompt say together: their final answers in a countable form, and weighted votes.

Reads responses, and extracts their final answers without looking at any gold answer. A label model that learns how
good each source is belongs beside :func:`weighted_vote`, with the same inputs and output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import pyarrow as pa

from w2s_align.scoring.answers import extract_answer, normalize_answer, parse_number

AnswerKind: TypeAlias = Literal["number", "text"]
"""What a final answer looks like: it steers where it is looked for, see :func:`w2s_align.scoring.extract_answer`."""

Comparison: TypeAlias = Literal["value", "text"]
"""Whether 1/2 and 0.5 are the same answer, or only answers that are written alike."""


def final_answer(
    text: str | None, kind: AnswerKind = "number", *, mark: str | None = None, compare: Comparison = "value"
) -> str:
    """Return the final answer of a response in the form in which answers are counted; "" when it has none.

    Args:
        text: The response.
        kind: What the answer looks like.
        mark: The answer is what follows the last of these on its line, e.g. ``####``; without it there is no answer.
        compare: By ``value`` numbers are written in one way (``1,000.0`` as ``1000``), other answers normalized; as
            ``text`` all are only normalized.
    """
    if not text:
        return ""
    if mark is None:
        found = extract_answer(text, gold="0" if kind == "number" else "text")
    else:
        _, there, rest = text.rpartition(mark)
        found = rest.partition("\n")[0] if there else None
    if found is None:
        return ""
    return countable(found) if compare == "value" else normalize_answer(found)


def countable(answer: str) -> str:
    """Return an answer in the form in which answers are counted: numbers in one way, other answers normalized."""
    value = parse_number(answer)
    # Above 2**53 not every whole number is a float, so that the nearest one would be counted instead.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return normalize_answer(answer) if value is None else repr(value)


def final_answers(
    responses: pa.Table, kind: AnswerKind = "number", *, mark: str | None = None, compare: Comparison = "value"
) -> pa.Array:
    """Return the final answer of every response of a table: see :func:`final_answer`."""
    texts = responses["text"].to_pylist()
    return pa.array([final_answer(text, kind, mark=mark, compare=compare) for text in texts], pa.string())


def weighted_vote(
    votes: Mapping[str, Sequence[str | None]], weights: Mapping[str, float] | None = None
) -> list[tuple[str | None, float]]:
    """Combine what several sources answered to the same prompts.

    Args:
        votes: For each source its answers, prompt by prompt; None or "" where it abstains.
        weights: Weight of each source; 1 for a source that is not named. Log-odds of a source's accuracy are the best
            weights when sources err independently.

    Returns:
        For each prompt the answer with the largest summed weight (of equals the one that sorts first) and its share
        of the weight of all sources that voted; ``(None, 0.0)`` where all abstain.

    Raises:
        ValueError: Sources have answered different numbers of prompts, or a weight is negative.
    """
    lengths = {len(answers) for answers in votes.values()}
    if len(lengths) > 1:
        raise ValueError("all sources must answer the same prompts")
    weight = {source: 1.0 if weights is None else weights.get(source, 1.0) for source in votes}
    if any(value < 0 for value in weight.values()):
        raise ValueError("weights cannot be negative")
    combined: list[tuple[str | None, float]] = []
    for row in range(lengths.pop() if lengths else 0):
        sums: dict[str, float] = defaultdict(float)
        for source, answers in votes.items():
            if answers[row]:
                sums[str(answers[row])] += weight[source]
        total = sum(sums.values())
        best = min(sums, key=lambda answer: (-sums[answer], answer), default=None)
        combined.append((best, sums[best] / total) if best is not None and total > 0 else (None, 0.0))
    return combined
