"""One training as it is decided before its trainer is made: batch sizes, precision, steps, number of processes.

Reads settings, resources, the start model and prepared data; :meth:`TrainingPlan.save` writes the decision for other
processes. The effective batch is a setting; how it is shared among processes and micro batches is not, and changes
nothing but the order of floating-point sums.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.files import write_json
from w2s_align.records import PAIR_TERMS
from w2s_align.training.batching import held_out_choice, held_out_rows, micro_batch, optimizer_steps, recomputes
from w2s_align.training.counts import RowCounts
from w2s_align.training.data import TrainingData
from w2s_align.training.layout import Layout, on_cpu
from w2s_align.training.method import Method
from w2s_align.training.models import StartModel, open_start, weights_digest
from w2s_align.training.padding_free import why_padded
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset

EVALUATIONS = 10
"""Measurements of the held-out loss in a training by default: enough to see where it turns."""


LATER: dict[str, Any] = {
    "reference": None,
    "turns": "last",
    "merge_start": True,
    "shots": 0,
    "examples": [],
    "keep": "last",
    "conflict": None,
    "soft_labels": False,
    "diagnostic": False,
}
"""Options that came after the first version, with their defaults: where one is not used, it is no part of what makes a
training this training, and older ones stay valid."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything about a training that is decided before its trainer is made."""

    method: Method
    start: StartModel
    data: TrainingData
    out: Path
    settings: TrainSettings
    resources: TrainResources
    seed: int
    layout: Layout
    micro_batch_size: int
    accumulation: int
    dtype: str

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.out / "checkpoints"

    @property
    def save_dtype(self) -> str:
        """Precision of the saved model, resolved."""
        wanted = self.settings.save_dtype
        return self.start.dtype if wanted == "auto" else wanted

    @property
    def held_out(self) -> int:
        """Number of rows that are measured, not trained on."""
        return held_out_rows(self.settings, self.data.rows)

    @property
    def rows(self) -> int:
        """Number of rows that are trained on."""
        return self.data.rows - self.held_out

    @property
    def counts(self) -> RowCounts:
        """What becomes of all rows; of an epoch's, some come twice to fill up its last batch."""
        repeated = -self.rows % self.rows_per_batch
        return dataclasses.replace(self.data.counts, held_out=self.held_out, repeated=repeated)

    @property
    def rows_per_batch(self) -> int:
        """Rows of the data in a batch; fewer than its size where each counts several times."""
        return self.settings.batch_size // self.settings.responses_per_prompt

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return optimizer_steps(self.settings, self.rows)

    @property
    def evaluate_every(self) -> int:
        """Optimizer steps between two measurements of the held-out loss."""
        return self.settings.evaluate_every or max(1, self.steps // EVALUATIONS)

    @property
    def recompute(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return recomputes(self.resources, self.start.parameters)

    @property
    def padded_because(self) -> str | None:
        """Why micro batches are padded, or None when they are not."""
        return why_padded(self.method, self.start.path, self.resources)

    @property
    def pair_terms(self) -> list[str]:
        """What the pairs bring to their loss besides their responses: columns of ``records.PAIR_TERMS``."""
        return [name for name in self.data.dataset().column_names if name in PAIR_TERMS.names]

    def split(self) -> tuple[Dataset, Dataset | None]:
        """Return the rows to train on and the held-out rows; the choice does not depend on the seed."""
        rows = self.data.dataset()
        if not self.held_out:
            return rows, None
        chosen = held_out_choice(self.settings, len(rows))
        return rows.select([i for i in range(len(rows)) if i not in chosen]), rows.select(sorted(chosen))

    def whole_batches(self, rows: Dataset) -> Dataset:
        """Fill up the last batch of an epoch with rows from its beginning.

        Any number of processes and any micro batch then see the same rows in the same steps.
        """
        spare = -len(rows) % self.rows_per_batch
        return rows.select([*range(len(rows)), *(i % len(rows) for i in range(spare))]) if spare else rows

    def identity(self) -> dict[str, Any]:
        """Return what makes this training this training; another one must not go on from its checkpoints."""
        start = Path(self.start.path)
        files = sorted((f.name, f.stat().st_size) for f in start.glob("*.safetensors")) if start.is_dir() else []
        adapter = self.start.adapter
        return {
            "method": self.method.name,
            "start": self.start.source,
            "start_files": [list(file) for file in files],
            **({"start_adapter": weights_digest(adapter)} if adapter is not None else {}),
            "data": self.data.digest,
            # An option that came later is not there unless it is used: older trainings go on.
            "settings": {
                name: value
                for name, value in self.settings.model_dump(mode="json").items()
                if name not in LATER or value != LATER[name]
            },
            "seed": self.seed,
            "dtype": self.dtype,
        }

    def save(self, file: Path) -> None:
        """Write what another process needs to rebuild this plan."""
        data = {**dataclasses.asdict(self.data), "file": str(self.data.file), "row_tokens": []}
        write_json(
            file,
            {
                "method": self.method.name,
                "model": self.start.path,
                "source": self.start.source,
                "adapter": self.start.adapter,
                "data": data,
                "out": str(self.out.absolute()),
                "settings": self.settings.model_dump(mode="json"),
                "resources": self.resources.model_dump(mode="json"),
                "seed": self.seed,
                "layout": dataclasses.asdict(self.layout),
                "micro_batch_size": self.micro_batch_size,
                "accumulation": self.accumulation,
                "dtype": self.dtype,
            },
            sync=False,
        )

    @classmethod
    def load(cls, file: Path, methods: Mapping[str, Method]) -> TrainingPlan:
        """Rebuild a plan from :meth:`save`.

        Args:
            file: What was written.
            methods: Kinds of training, by name.
        """
        found = json.loads(file.read_text())
        method = methods[found["method"]]
        settings = method.settings.model_validate(found["settings"])
        start = open_start(found["model"], method.head_for(settings))
        start = dataclasses.replace(start, source=found["source"], adapter=found["adapter"])
        data = {**found["data"], "file": Path(found["data"]["file"]), "counts": RowCounts(**found["data"]["counts"])}
        return cls(
            method=method,
            start=start,
            data=TrainingData(**data),
            out=Path(found["out"]),
            settings=settings,
            resources=TrainResources.model_validate(found["resources"]),
            seed=found["seed"],
            layout=Layout(**found["layout"]),
            micro_batch_size=found["micro_batch_size"],
            accumulation=found["accumulation"],
            dtype=found["dtype"],
        )


def plan_training(
    method: Method,
    start: StartModel,
    data: TrainingData,
    out: Path,
    settings: TrainSettings,
    resources: TrainResources,
    seed: int,
    layout: Layout,
) -> TrainingPlan:
    """Decide batch sizes and precision.

    Args:
        method: The kind of training.
        start: The start model.
        data: The prepared rows.
        out: Output folder.
        settings: What changes the result.
        resources: What does not.
        seed: Seed of the training.
        layout: The processes that train together.

    Raises:
        UserError: The effective batch cannot be made of equal micro batches, a row exceeds the model's context, or
            nothing is left to train on.
    """
    if start.context is not None and data.longest > start.context:
        raise UserError(
            f"The longest row has {data.longest} tokens; the context of {start.source} is {start.context}.",
            "The model has never seen positions beyond its context.",
            f"Set max_length to {start.context} or less.",
        )
    packed = why_padded(method, start.path, resources) is None
    micro, accumulation = _share(method, data, settings, resources, layout.processes, packed=packed)
    settings.check_micro_batch(micro, layout.processes)
    plan = TrainingPlan(
        method=method,
        start=start,
        data=data,
        out=out,
        settings=settings,
        resources=resources,
        seed=seed,
        layout=layout,
        micro_batch_size=micro,
        accumulation=accumulation,
        dtype=_resolve_dtype(settings.dtype, resources),
    )
    if plan.rows < 1:
        raise UserError(
            f"held_out takes {plan.held_out} of {data.rows} rows.",
            "No row is left to train on.",
            "Lower held_out, or give more rows.",
        )
    return plan


def _share(
    method: Method,
    data: TrainingData,
    settings: TrainSettings,
    resources: TrainResources,
    processes: int,
    *,
    packed: bool,
) -> tuple[int, int]:
    """Return the rows of a micro batch, and how many of them each process accumulates for a step."""
    per_process, rest = divmod(settings.batch_size, processes)
    if rest:
        fitting = [n for n in range(1, processes + 1) if settings.batch_size % n == 0]
        raise UserError(
            f"batch_size {settings.batch_size} cannot be shared by {processes} processes.",
            "The effective batch does not depend on the number of processes; each takes an equal part of it.",
            f"Use a batch_size that is a multiple of {processes}, or {', '.join(map(str, fitting))} processes.",
        )
    micro = micro_batch(settings, resources, processes, data.sizes, method.sides, packed=packed)
    if per_process % micro:
        divisors = [n for n in range(1, per_process + 1) if per_process % n == 0]
        raise UserError(
            f"batch_size {settings.batch_size} on {processes} processes cannot be made of micro batches of {micro}.",
            fix=f"Use a micro_batch_size of {', '.join(map(str, divisors))}.",
        )
    return micro, per_process // micro


def _resolve_dtype(wanted: str, resources: TrainResources) -> str:
    import torch

    if wanted != "auto":
        return wanted
    return "bfloat16" if not on_cpu(resources) and torch.cuda.is_bf16_supported() else "float32"


def is_main() -> bool:
    """Say whether this is the first of the processes that train together, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0
