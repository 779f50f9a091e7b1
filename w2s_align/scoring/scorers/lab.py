"""The lab tasks' own exact check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pyarrow as pa

from w2s_align.records import Prompt, from_table
from w2s_align.scoring.scorer import WITHOUT_ANSWER, Assessment, BatchScorer, Scorer, unscored
from w2s_align.scoring.thoughts import answer_part


class LabScorer(Scorer):
    """The lab task's own exact checker."""

    name: Literal["lab"] = "lab"

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Let the lab task that made the prompt check the response."""
        from w2s_align.lab import check

        def check_one(prompt: Prompt, text: str) -> Assessment:
            body = answer_part(text)
            value, said = check(prompt.task, prompt, body)
            if value is None:
                return unscored(f"not a problem of {prompt.task}", said)
            # The lab reads the last line as the answer, and of an empty response none.
            return Assessment(value, said, said) if body.strip() else WITHOUT_ANSWER

        def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
            rows = zip(from_table(Prompt, prompts), responses["text"].to_pylist(), strict=True)
            return [check_one(prompt, text) for prompt, text in rows]

        yield score_batch
