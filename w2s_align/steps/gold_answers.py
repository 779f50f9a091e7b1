"""gold_answers: the gold answers of prompts as responses, for a model to learn: of a first half, or for a ceiling.

Reads prompts with answers; writes data/responses.parquet (records.Response).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class GoldAnswers(Step):
    """Take the gold answers of prompts as responses: what `sft` learns, or what scores are compared with."""

    kind: Literal["gold_answers"] = "gold_answers"
    prompts: PromptsRef
    """Prompts with gold answers."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "responses"
    uses_seed: ClassVar[bool] = False

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Write one response for each prompt that has an answer.

        Raises:
            UserError: None has one.
        """
        from w2s_align.records import Response, to_table

        prompts = work.inputs["prompts"].table()
        rows = zip(prompts["id"].to_pylist(), prompts["answer"].to_pylist(), strict=True)
        made = [Response(prompt, 0, "gold", answer) for prompt, answer in rows if answer]
        if not made:
            raise UserError(
                f"None of the {prompts.num_rows:,} prompts has a gold answer.",
                fix="Name its column in the step that loads them: columns: {answer: <column>}.",
            )
        work.write(to_table(made), "responses")
        missing = prompts.num_rows - len(made)
        work.counts.update(rows_in=prompts.num_rows, kept=len(made))
        if missing:
            work.counts["dropped"] = {"without_answer": missing}
            work.warnings.append(f"{missing:,} prompts have no gold answer.")
