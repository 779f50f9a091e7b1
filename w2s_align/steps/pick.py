"""pick: a number of items, at random or by what a classifier says of them.

Reads items and labels; writes data/prompts.parquet (records.Prompt), in the order of the items.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources, ScoresRef
from w2s_align.scoring.pick import By
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Pick(Step):
    """Take a number of items: at random, those that a classifier is sure of, or those that it is not."""

    kind: Literal["pick"] = "pick"
    items: PromptsRef
    """What is picked from. Gold answers are not read."""
    number: int | None = Field(None, ge=1)
    """How many."""
    least: float | None = Field(None, gt=0, le=1)
    """In place of number: every item whose most probable class has more than this probability (confidence). 0.75 in
    the open sandbox for weak-to-strong research."""
    by: By = "random"
    """random; confidence: the highest probability of a class first; uncertainty: the highest entropy first, as exact
    labels are bought where a model is least sure."""
    labels: ScoresRef | None = None
    """Labels of the items, for confidence and uncertainty."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the highest; above it items are drawn, the more evenly the higher it is."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "prompts"

    def check(self) -> None:
        """Refuse labels that are missing or do nothing.

        Raises:
            UserError: See above.
        """
        if self.by != "random" and self.labels is None:
            raise UserError(f"by: {self.by} needs labels.", fix="labels: $step of kind label, or by: random.")
        if (self.number is None) == (self.least is None):
            raise UserError("pick takes number or least.", fix="Give one of the two: number: 1000, or least: 0.75.")
        if self.least is not None and (self.by != "confidence" or self.temperature):
            raise UserError("least is a probability.", fix="Write by: confidence, without a temperature, or number.")
        if self.by == "random" and (self.labels is not None or self.temperature):
            raise UserError(
                "by: random reads no labels and has no temperature.", fix="by: uncertainty, or leave them out."
            )

    def content(self) -> dict[str, Any]:
        """Leave out an option that came later where it is not used."""
        content = super().content()
        return {name: value for name, value in content.items() if name != "least" or value is not None}

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows."""
        return "rows"

    def run(self, work: Work) -> None:
        """Pick, and count what is left."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from w2s_align.scoring.pick import pick_items, sure_items

        items = work.inputs["items"].table()
        labels = work.inputs["labels"].table() if "labels" in work.inputs else None
        if self.least is not None:
            chosen = sure_items(items, labels, self.least)
        else:
            number = self.number or 0
            chosen = pick_items(items, labels, number, self.by, temperature=self.temperature, seed=self.seed or 0)
        kept = items.filter(pc.is_in(items["id"], value_set=pa.array(sorted(chosen))))
        work.write(kept, "prompts")
        dropped = {"not_picked": items.num_rows - kept.num_rows}
        work.counts.update(rows_in=items.num_rows, kept=kept.num_rows, dropped={k: n for k, n in dropped.items() if n})
