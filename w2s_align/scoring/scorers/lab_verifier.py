"""A verifier of known quality for answers to the lab's tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pyarrow as pa

from w2s_align.lab.verifiers import Verifier
from w2s_align.records import Prompt, from_table
from w2s_align.scoring.scorer import Assessment, BatchScorer, Scorer, unscored


class LabVerifierScorer(Scorer, Verifier):
    """A fallible verifier of the lab's tasks: solves the problem again, forgetting carries, and compares answers."""

    name: Literal["lab_verifier"] = "lab_verifier"

    @property
    def label(self) -> str:
        """Name it by its draws, so that several stand side by side."""
        return f"{self.name}:{self.draws}"

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Solve every problem again and compare."""
        from w2s_align.lab.tasks import TASKS, final_line

        def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
            asked = from_table(Prompt, prompts)
            texts = responses["text"].to_pylist()
            keys = (responses[name].to_pylist() for name in ("prompt_id", "sample", "model"))
            places = [" ".join(map(str, key)) for key in zip(*keys, strict=True)]
            found = [unscored("not a problem of the lab")] * len(asked)
            for task in TASKS:
                rows = [i for i, prompt in enumerate(asked) if prompt.task == task]
                values = self.judge(
                    task, [asked[i] for i in rows], [texts[i] for i in rows], [places[i] for i in rows]
                )
                for row, value in zip(rows, values, strict=True):
                    if value is not None:
                        found[row] = Assessment(value, answer=final_line(texts[row]) or None)
            return found

        yield score_batch
