"""cut: responses cut to a number of sentences, so that pairs of them differ in exactly one countable property.

Reads responses; writes data/responses.parquet (records.Response).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Cut(Step):
    """Cut responses to their first sentences; those that have fewer are left out."""

    kind: Literal["cut"] = "cut"
    responses: ResponsesRef
    """What is cut."""
    sentences: int = Field(ge=1)
    """Sentences that are kept."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "responses"
    uses_seed: ClassVar[bool] = False

    def run(self, work: Work) -> None:
        """Cut the responses and count those that are too short."""
        from w2s_align.responses.cut import cut_to_sentences

        table, dropped = cut_to_sentences(work.inputs["responses"].table(), self.sentences)
        work.write(table, "responses")
        rows_in = table.num_rows + sum(dropped.values())
        work.counts.update(rows_in=rows_in, kept=table.num_rows, dropped=dropped)
