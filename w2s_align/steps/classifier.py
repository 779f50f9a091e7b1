"""classifier: its step, which reads items and, where it does not learn from gold answers, their labels.

Writes what every training writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.artifact import Artifact
from w2s_align.recipe.schema import PromptsRef, ScoresRef
from w2s_align.steps.tables import join_tables
from w2s_align.steps.train import TrainStep
from w2s_align.training.methods.classifier import METHODS, ClassifierSettings


class Classifier(TrainStep, ClassifierSettings, method=METHODS[0]):
    """Train a classifier on gold labels, or on the labels of a weaker one."""

    kind: Literal["classifier"] = "classifier"
    items: PromptsRef | Annotated[list[PromptsRef], Field(min_length=1)]
    """Items to learn from; of a list of steps, all of their items together."""
    labels: ScoresRef | Annotated[list[ScoresRef], Field(min_length=1)] | None = None
    """Labels to learn: a step of kind label. Default: the gold answers of the items. Items without a label are left
    out and counted."""

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")

    def rows(self, inputs: Mapping[str, Artifact]) -> tuple[Any, Counter[str]]:
        """Return items with labels; see ``TrainStep.rows``."""
        from w2s_align.scoring.labels import training_rows

        items, labels = (
            [artifact.table() for place, artifact in inputs.items() if place.partition(".")[0] == option]
            for option in ("items", "labels")
        )
        weak = join_tables(labels) if labels else None
        return training_rows(join_tables(items), weak, self.classes, self.view, gold=self.diagnostic), Counter()


STEP = Classifier
