"""What the steps that train have in common: seeds, resources, and how a training's report becomes an artifact's."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from w2s_align.recipe.schema import ArtifactType, ModelRef, Resources
from w2s_align.steps.identity import model_identity
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work
from w2s_align.training.settings import RENAMED, TrainResources

if TYPE_CHECKING:
    from w2s_align.training import TrainingReport


class TrainStepResources(TrainResources, Resources):
    """What a training may use of the machine."""

    gpus: int | None = Field(1, ge=0)
    """GPUs of this machine. A training is one process on one device."""


class TrainStep(Step):
    """A step that tunes a model."""

    model: ModelRef
    """The model that training starts from: a hub id, a folder, or $step."""
    seeds: list[int] | None = Field(None, min_length=1)
    """Train once for each of these seeds; `$step` then stands for all the models, `$step@1` for one."""
    resources: TrainStepResources = TrainStepResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "model"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "trl", "peft")
    renamed = RENAMED

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError(f"the seeds {seeds} are not all different")
        return seeds

    def identity(self) -> dict[str, Any]:
        """Return the content of a start model that no step made."""
        return {} if self.model.startswith("$") else {"model": model_identity(self.model)}

    def process(self) -> str | None:
        """Share a process with other trainings where there is no GPU memory to give back."""
        return "train"


def take_report(work: Work, report: TrainingReport) -> None:
    """Put what a training did into its artifact."""
    account = json.loads(json.dumps(asdict(report)))
    counts = account.pop("counts")
    work.counts.update(
        rows_in=counts["rows"],
        kept=counts["kept"],
        dropped={name.removeprefix("dropped_"): n for name, n in counts.items() if name.startswith("dropped_")},
        cut={name.removeprefix("cut_"): n for name, n in counts.items() if name.startswith("cut_")},
    )
    for path in ("start", "model_dir", "adapter_dir"):
        account.pop(path)  # paths of the partial folder mean nothing later
    work.result.update(account)
    work.warnings += [*report.notes, *(f"step {a['step']}: {a['message']}" for a in report.alarms)]
