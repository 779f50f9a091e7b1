"""gold_answers: the gold answers of prompts as responses, to train on them by supervised fine-tuning.

Reads prompts; writes data/responses.parquet (records.Response) with the model name ``gold``.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

MODEL = "gold"
"""Who wrote these responses."""


class GoldAnswers(Step):
    """Take the gold answers (whole solutions, where there are some) of prompts as responses to learn from."""

    kind: Literal["gold_answers"] = "gold_answers"
    prompts: PromptsRef
    """Prompts with gold answers; those without one are left out and counted."""
    remove: str | None = None
    """Regular expression of what is removed from each answer, e.g. the calculator's notes of GSM8K."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "responses"
    uses_seed: ClassVar[bool] = False

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def check(self) -> None:
        """Refuse an expression that cannot be read.

        Raises:
            UserError: See above.
        """
        try:
            re.compile(self.remove or "")
        except re.error as error:
            raise UserError(
                f"remove is no regular expression: {error}.", fix="Escape signs such as ( and [."
            ) from None

    def run(self, work: Work) -> None:
        """Write one response for each prompt that has an answer.

        Raises:
            UserError: No prompt has one.
        """
        from w2s_align.records import Response, to_table

        table = work.inputs["prompts"].table()
        expression = re.compile(self.remove) if self.remove else None
        found = []
        for prompt_id, answer in zip(table["id"].to_pylist(), table["answer"].to_pylist(), strict=True):
            text = expression.sub("", answer or "") if expression else answer or ""
            if text.strip():
                found.append(Response(prompt_id, 0, MODEL, text.strip()))
        if not found:
            raise UserError(
                f"None of the {table.num_rows} prompts has a gold answer.",
                fix="Say which column holds it, in the step of the prompts: columns: {answer: <column>}",
            )
        work.write(to_table(found), "responses")
        lost = table.num_rows - len(found)
        work.counts.update(rows_in=table.num_rows, kept=len(found), dropped={"without_answer": lost} if lost else {})
