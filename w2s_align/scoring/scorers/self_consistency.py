"""How often a model gives the same answer again, as a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import pyarrow as pa

from w2s_align.scoring.scorer import WITHOUT_ANSWER, Assessment, BatchScorer, Scorer
from w2s_align.scoring.votes import final_answers


class SelfConsistencyScorer(Scorer):
    """The share of a model's samples for the same prompt that have the same final answer; reads no gold answer."""

    name: Literal["self_consistency"] = "self_consistency"
    answer: Literal["number", "text"] = "number"
    """What final answers look like."""

    whole_table: ClassVar[bool] = True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score the share of all samples of the same model for the same prompt that have the response's final answer.

        A response without an answer scores 0: many empty answers are not a sign of confidence.
        """

        def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
            answers = final_answers(responses, self.answer).to_pylist()
            groups = list(zip(responses["prompt_id"].to_pylist(), responses["model"].to_pylist(), strict=True))
            sizes, votes = Counter(groups), Counter(zip(groups, answers, strict=True))
            return [
                Assessment(votes[group, answer] / sizes[group], answer, answer) if answer else WITHOUT_ANSWER
                for group, answer in zip(groups, answers, strict=True)
            ]

        yield score_batch
