"""lab_model: a tiny model with a known weakness, trained from scratch on a CPU in about a minute.

Writes model/ (an ordinary Hugging Face folder) and metrics.jsonl.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar, Literal

from w2s_align.lab.settings import LabModel, LabResources
from w2s_align.recipe.schema import ArtifactType, Resources, Seed
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class LabStepResources(LabResources, Resources):
    """What a lab training may use of the machine."""


class LabModelStep(Step, LabModel):
    """Train a tiny Llama on arithmetic written by an author who forgets the carry, with an exact check."""

    kind: Literal["lab_model"] = "lab_model"
    seed: Seed | None = None  # type: ignore[assignment]
    """Seed of the initial weights and of the training problems. Default: the recipe's."""
    resources: LabStepResources = LabStepResources(cpus=1, gpus=0)
    """What the step may use of the machine; does not change what it writes."""

    writes: ClassVar[ArtifactType] = "model"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def run(self, work: Work) -> None:
        """Train, resuming from the last checkpoint of an earlier attempt."""
        from w2s_align.lab import train_lab_model

        options = self.model_dump(include=set(LabModel.model_fields)) | {"seed": self.seed or 0}
        training = train_lab_model(work.out, **options, resources=self.resources, progress=work.progress)
        work.result.update({name: value for name, value in asdict(training).items() if name != "model"})
        work.counts.update(kept=training.examples)
