"""half: one of two parts of some items, drawn at random with the seed; items of one group are never in both.

Reads items; writes data/prompts.parquet (records.Prompt).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables
from w2s_align.steps.work import Work


class Half(Step):
    """Take the first or the second half of some items: one to teach a weak model, the other for it to label."""

    kind: Literal["half"] = "half"
    items: PromptsRef
    """What is divided. Gold answers are not read."""
    half: Literal["first", "second"]
    """Which part. Two steps with the same items, share and seed have all items between them, each in one."""
    share: float = Field(0.5, gt=0, lt=1)
    """Share of the items in the first part."""
    apart_from: PromptsRef | Annotated[list[PromptsRef], Field(min_length=1)] | None = None
    """Items that neither part may have, nor any of their groups: the test."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "prompts"

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Divide, and write one part."""
        from w2s_align.interchange.halves import first_half, refuse_overlap

        items = work.inputs["items"].table()
        test = [artifact.table() for place, artifact in work.inputs.items() if place.partition(".")[0] == "apart_from"]
        if test:
            refuse_overlap(items, join_tables(test))
        first = first_half(items, self.share, self.seed or 0)
        kept = items.filter([one == (self.half == "first") for one in first])
        work.write(kept, "prompts")
        work.counts.update(
            rows_in=items.num_rows, kept=kept.num_rows, in_the_other_half=items.num_rows - kept.num_rows
        )
