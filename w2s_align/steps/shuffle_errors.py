"""shuffle_errors: the same errors of labels at other items, as a control. Gold answers are read.

Reads items with gold answers, and their labels; writes data/scores.parquet (records.Score).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class ShuffleErrors(Step):
    """Move the errors of labels to random items: as many and as large, but without a rule that could be learned."""

    kind: Literal["shuffle_errors"] = "shuffle_errors"
    labels: ScoresRef
    """Labels of two classes: a step of kind label or ensemble."""
    items: PromptsRef
    """Their items. Gold answers are read, for they say what the errors are: this is a control, not a method."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows."""
        return "rows"

    def run(self, work: Work) -> None:
        """Move the errors; labels of items without a gold answer are left out and counted."""
        from w2s_align.evaluation.budget import with_shuffled_errors

        labels = work.inputs["labels"].table()
        made = with_shuffled_errors(labels, work.inputs["items"].table(), self.seed or 0)
        work.write(made, "scores")
        lost = labels.num_rows - made.num_rows
        work.counts.update(
            rows_in=labels.num_rows,
            kept=made.num_rows,
            dropped={"no label or no gold answer": lost} if lost else {},
        )
