"""sft, dpo, kto, simpo, cpo, orpo, reward, ...: a step for every kind of training in w2s_align/training/methods.

Reads a model and rows to train on; writes model/ (safetensors), adapter/ for LoRA, metrics.jsonl and training.json.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, create_model, field_validator

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import model_identity
from w2s_align.errors import UserError
from w2s_align.files import installed_version
from w2s_align.recipe.schema import ArtifactType, Machines, ModelRef, Reads, Reference, Resources, Seed, StepConfig
from w2s_align.scoring import scorer_settings
from w2s_align.steps.gold import check_gold
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work
from w2s_align.training.layout import check_launch
from w2s_align.training.method import Method
from w2s_align.training.methods import all_methods
from w2s_align.training.plan import LATER
from w2s_align.training.renamed import RENAMED
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import QuickTask, check_goes_on

if TYPE_CHECKING:
    from w2s_align.training import TrainingReport


class TrainStepResources(TrainResources, Resources):
    """What a training may use of the machine."""

    gpus: int | None = Field(None, ge=0)
    """GPUs of this machine. Default: one for launch single, else all of them."""


class TrainStep(Step):
    """A step that tunes a model; :func:`step_of` adds a method's settings and the option that names its rows."""

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
    method: ClassVar[Method]
    """The kind of training: ``class MyStep(TrainStep, MySettings, method=MY_METHOD)``."""

    def __init_subclass__(cls, method: Method | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if method is not None:
            cls.method = method

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError(f"the seeds {seeds} are not all different")
        return seeds

    def check(self) -> None:
        """Refuse a launch and a scorer that do not exist, and data that is named twice.

        Raises:
            UserError: With what to write instead.
        """
        check_launch(self.launch)
        if task := self._quick_task():
            scorer_settings(task.scorer)
        option = self.method.inputs.option
        value = getattr(self, option)
        if isinstance(value, list) and len(set(value)) < len(value):
            twice = next(one for one in value if value.count(one) > 1)
            raise UserError(f"{option} has {twice} twice.", fix="Use num_train_epochs to see rows more often.")
        check_goes_on(self)  # type: ignore[arg-type]  # it has the fields of the method's settings

    def check_among(self, steps: Mapping[str, StepConfig]) -> None:
        """Refuse a quick task without gold answers."""
        if task := self._quick_task():
            check_gold(task.scorer, task.prompts, steps)

    def references(self) -> Iterator[Reference]:
        """Yield start model and data, and the problems of a quick task."""
        yield from super().references()
        if task := self._quick_task():
            yield Reference(("quick_task", "prompts"), task.prompts, Reads(("prompts",)))

    def _quick_task(self) -> QuickTask | None:
        return getattr(self, "quick_task", None)

    def content(self) -> dict[str, Any]:
        """Return the options that change what is learned: how many processes do the work does not."""
        options = super().content()
        unused = {name for name, default in LATER.items() if name in options and options[name] == default}
        return {name: value for name, value in options.items() if name not in {"launch", *unused}}

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
        reference = getattr(self, "reference", None)
        if reference is not None and not reference.startswith("$"):
            found["reference"] = model_identity(reference)
        if self._quick_task():
            found |= {name: installed_version(name) for name in ("math-verify", "reasoning-gym")}
        return found

    def process(self) -> str | None:
        """Share a process with other trainings where there is no GPU memory to give back."""
        return "train"

    def rows(self, inputs: Mapping[str, Artifact]) -> tuple[Any, Counter[str]]:
        """Return what a training reads of its artifacts, and the rows that none of it can be: by reason, how many.

        Args:
            inputs: Artifacts by the place that names them, as in ``Work.inputs``.
        """
        option = self.method.inputs.option
        return rows_of([found for place, found in inputs.items() if place.partition(".")[0] == option])

    def _start(self, work: Work, merge: bool) -> str:
        """Return the start model; of a step that trained an adapter, the adapter where training goes on with it."""
        if merge or "model" not in work.inputs:
            return work.model("model", self.model)
        adapter = work.inputs["model"].path / "adapter"
        if not adapter.is_dir():
            raise UserError(
                f"merge_start: false needs an adapter to start from, which {self.model} did not train.",
                fix="Leave merge_start out, or train an adapter there: adapter: {r: 64}.",
            )
        return str(adapter)

    def settings_here(self, work: Work, options: Any) -> Any:
        """Return settings whose models are folders and hub ids.

        Args:
            work: The step at work.
            options: The settings, which may name models of other steps.
        """
        if (reference := getattr(options, "reference", None)) is not None:
            return options.model_copy(update={"reference": work.model("reference", reference)})
        return options

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train

        resources = TrainResources.model_validate(self.resources.model_dump(include=set(TrainResources.model_fields)))
        if resources.cache_dir is None and work.cache is not None:
            resources = resources.model_copy(update={"cache_dir": str(work.cache / "reference")})
        settings = self.method.settings
        options = settings.model_validate(self.model_dump(include=set(settings.model_fields), exclude_unset=True))
        if options.quick_task:
            prompts = str(work.inputs["quick_task.prompts"].path / "data")
            options = options.model_copy(
                update={"quick_task": options.quick_task.model_copy(update={"prompts": prompts})}
            )
        options = self.settings_here(work, options)
        rows, left_out = self.rows(work.inputs)
        report = train(
            self._start(work, options.merge_start),
            rows,
            work.out,
            options,
            seed=self.seed or 0,
            resources=resources,
            launch=self.launch,
            progress=work.progress,
        )
        _record(work, report, left_out)


def rows_of(data: Sequence[Artifact]) -> tuple[Any, Counter[str]]:
    """Return what a training reads of its artifacts, and the rows that none of it can be: by reason, how many.

    Args:
        data: Artifacts of pairs, responses or chats, of one step or of several.
    """
    from w2s_align.training.formats import responses_as_chats

    rows: list[Any] = []
    left_out: Counter[str] = Counter()
    for artifact in data:
        if artifact.type == "responses":
            chats, dropped = responses_as_chats(artifact.prompts().table(), artifact.table())
            left_out.update(dropped)
            rows.append(chats)
        else:
            rows.append(artifact.path / "data")
    return rows[0] if len(rows) == 1 else rows, left_out


def _record(work: Work, report: TrainingReport, left_out: Counter[str]) -> None:
    """Put what a training did into its artifact."""
    counts = report.counts
    work.counts.update(
        rows_in=counts.rows + left_out.total(),
        kept=counts.kept,
        held_out=counts.held_out,
        dropped={**counts.dropped, **left_out},
        cut=counts.cut,
    )
    if counts.kept_by_set:
        work.counts["sets"] = {"kept": counts.kept_by_set, "prompt_in_an_earlier_set": counts.shared_prompts}
    if counts.shared_prompts:
        work.warnings.append(f"{counts.shared_prompts:,} rows have a prompt that an earlier set of pairs has too.")
    # Counts are kept once, above; the paths are those of the partial folder and mean nothing later.
    elsewhere = ("counts", "start", "model_dir", "adapter_dir")
    result = json.loads(json.dumps(asdict(report)))
    work.result.update({name: value for name, value in result.items() if name not in elsewhere})
    work.warnings += [*report.notes, *(f"step {a['step']}: {a['message']}" for a in report.alarms)]


def step_of(method: Method) -> type[TrainStep]:
    """Make the step that trains by a method: its settings, and the option that names its rows.

    Args:
        method: The kind of training.
    """
    row_source = Annotated[str, Reads(method.inputs.types)]
    several = Annotated[list[row_source], Field(min_length=1)]
    fields: dict[str, Any] = {
        "kind": (Literal[method.name], method.name),
        method.inputs.option: (row_source | several, Field(description=method.inputs.help)),
    }
    if (reference := method.settings.model_fields.get("reference")) is not None:
        fields["reference"] = (ModelRef | None, Field(None, description=reference.description))
    step = create_model(
        method.name.capitalize(),
        __base__=(TrainStep, method.settings),
        __doc__=method.summary,
        __module__=__name__,
        __cls_kwargs__={"method": method},
        **fields,
    )
    return cast(type[TrainStep], step)


def training_steps() -> list[type[TrainStep]]:
    """Return the step of every kind of training.

    A kind whose options name other steps brings a class of its own: ``STEP`` in ``steps/<name>.py``.
    """
    return [_own_step(method) or step_of(method) for method in all_methods().values()]


def _own_step(method: Method) -> type[TrainStep] | None:
    name = f"{__package__}.{method.name}"
    return importlib.import_module(name).STEP if find_spec(name) else None
