"""What the steps that train have in common: seeds, launch, resources; how a training's report is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from pydantic import Field, field_validator

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import model_identity
from w2s_align.errors import UserError
from w2s_align.files import installed_version
from w2s_align.recipe.schema import ArtifactType, Machines, ModelRef, PairsRef, Reads, Reference, Resources, Seed
from w2s_align.scoring import scorer_settings
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work
from w2s_align.training.launch import check_launch
from w2s_align.training.renamed import RENAMED
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import QuickTask, TrainSettings

if TYPE_CHECKING:
    from w2s_align.training import TrainingReport


class TrainStepResources(TrainResources, Resources):
    """What a training may use of the machine."""

    gpus: int | None = Field(None, ge=0)
    """GPUs of this machine. Default: one for launch single, else all of them."""


PairsRefs: TypeAlias = PairsRef | Annotated[list[PairsRef], Field(min_length=1)]
"""Pairs of one step, or of several, which are put together."""


class TrainStep(Step):
    """A step that tunes a model."""

    model: ModelRef
    """The model that training starts from: a hub id, a folder (of an adapter, too), or $step."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """Train once for each of these seeds; `$step` then stands for all the models, `$step@1` for one."""
    launch: str = "single"
    """Processes that share the work: single, ddp, zero1, zero2, zero3, zero3_offload, fsdp2, or the path of an
    accelerate YAML of your own. It changes nothing in what is learned: batch_size is shared among the processes."""
    resources: TrainStepResources = TrainStepResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "model"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "trl", "peft")
    renamed = RENAMED

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError(f"the seeds {seeds} are not all different")
        return seeds

    def check(self) -> None:
        """Refuse a launch and a scorer that do not exist, and data that is named twice."""
        check_launch(self.launch)
        if task := self._quick_task():
            scorer_settings(task.scorer)
        for name in ("pairs", "data"):
            value = getattr(self, name, None)
            if isinstance(value, list) and len(set(value)) < len(value):
                twice = next(one for one in value if value.count(one) > 1)
                raise UserError(f"{name} has {twice} twice.", fix="Use num_train_epochs to see rows more often.")

    def references(self) -> Iterator[Reference]:
        """Yield start model and data, and the problems of a quick task."""
        yield from super().references()
        if task := self._quick_task():
            yield Reference(("quick_task", "prompts"), task.prompts, Reads(("prompts",)))

    def _quick_task(self) -> QuickTask | None:
        return getattr(self, "quick_task", None)

    def content(self) -> dict[str, Any]:
        """Return the options that change what is learned: how many processes do the work does not."""
        return {name: value for name, value in super().content().items() if name != "launch"}

    def claims(self) -> Resources:
        """Take one GPU for one process, and all of them for several, unless the recipe says otherwise."""
        gpus = self.resources.gpus
        if gpus is None and self.launch == "single":
            gpus = 1
        return Resources(cpus=self.resources.cpus, gpus=gpus)

    def machines(self, nodes: int) -> Machines:
        """Spread the processes of a launch over machines that work together."""
        return Machines() if self.launch == "single" else Machines(together=self.resources.machines or nodes)

    def identity(self) -> dict[str, Any]:
        """Return the content of a start model that no step made, and what checks the answers of a quick task."""
        found: dict[str, Any] = {} if self.model.startswith("$") else {"model": model_identity(self.model)}
        if self._quick_task():
            found |= {name: installed_version(name) for name in ("math-verify", "reasoning-gym")}
        return found

    def process(self) -> str | None:
        """Share a process with other trainings where there is no GPU memory to give back."""
        return "train"

    def fit(
        self, work: Work, train: Callable[..., TrainingReport], rows: Any, settings: type[TrainSettings]
    ) -> TrainingReport:
        """Train, going on from the last checkpoint of an earlier try, and fill in the artifact.

        Args:
            work: The step at work.
            train: Function of the training library.
            rows: What it trains on.
            settings: Class of its settings.
        """
        resources = TrainResources.model_validate(self.resources.model_dump(include=set(TrainResources.model_fields)))
        if resources.cache_dir is None and work.cache is not None:
            resources = resources.model_copy(update={"cache_dir": str(work.cache / "reference")})
        options = settings.model_validate(self.model_dump(include=set(settings.model_fields)))
        if options.quick_task:
            prompts = str(work.inputs["quick_task.prompts"].path / "data")
            options = options.model_copy(
                update={"quick_task": options.quick_task.model_copy(update={"prompts": prompts})}
            )
        report = train(
            work.model("model", self.model),
            rows,
            work.out,
            options,
            seed=self.seed or 0,
            resources=resources,
            launch=self.launch,
            progress=work.progress,
        )
        take_report(work, report)
        return report


def rows_of(work: Work, field: str, read: Callable[[Artifact], Any] = lambda artifact: artifact.path / "data") -> Any:
    """Return what a field names to train on: the rows of one artifact, or a list of those of several.

    Args:
        work: The step at work.
        field: Name of the field.
        read: Gives the rows of an artifact.
    """
    several = [read(artifact) for place, artifact in work.inputs.items() if place.startswith(f"{field}.")]
    return several or read(work.inputs[field])


def take_report(work: Work, report: TrainingReport) -> None:
    """Put what a training did into its artifact."""
    account = json.loads(json.dumps(asdict(report)))
    counts = account.pop("counts")
    work.counts.update(
        rows_in=counts["rows"],
        kept=counts["kept"],
        held_out=counts["held_out"],
        dropped={name.removeprefix("dropped_"): n for name, n in counts.items() if name.startswith("dropped_")},
        cut={name.removeprefix("cut_"): n for name, n in counts.items() if name.startswith("cut_")},
    )
    for path in ("start", "model_dir", "adapter_dir"):
        account.pop(path)  # paths of the partial folder mean nothing later
    if sets := [n for name, n in counts.items() if name.startswith("kept_of_set_")]:
        shared = counts["prompt_in_an_earlier_set"]
        work.counts["sets"] = {"kept": sets, "prompt_in_an_earlier_set": shared}
        if shared:
            work.warnings.append(f"{shared:,} rows have a prompt that an earlier set of pairs has too.")
    work.result.update(account)
    work.warnings += [*report.notes, *(f"step {a['step']}: {a['message']}" for a in report.alarms)]
