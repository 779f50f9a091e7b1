"""distill: its step, whose teacher and contrasts may be models of other steps.

Writes what every training writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.identity import model_identity
from w2s_align.recipe.schema import PromptsRef, Reads, Reference
from w2s_align.steps.train import TrainStep
from w2s_align.steps.work import Work
from w2s_align.training.methods.distill import METHODS, DistillSettings

MODEL = Reads(("model",), literal=True)


class Distill(TrainStep, DistillSettings, method=METHODS[0]):
    """Let a model write responses, and teach it a target on each of their tokens."""

    kind: Literal["distill"] = "distill"
    prompts: PromptsRef | Annotated[list[PromptsRef], Field(min_length=1)]
    """Prompts that the student responds to in training; of a list of steps, all of them together."""

    version: ClassVar[int] = 1

    def references(self) -> Iterator[Reference]:
        """Yield start model, prompts, and the models of the target."""
        yield from super().references()
        for place, model in self.models().items():
            yield Reference(tuple(place.split(".")), model, MODEL)

    def identity(self) -> dict[str, Any]:
        """Return the content of the models that no step made."""
        named = {place: model for place, model in self.models().items() if not model.startswith("$")}
        return super().identity() | {place: model_identity(model) for place, model in named.items()}

    def settings_here(self, work: Work, options: Any) -> Any:
        """Return the settings with the folders of the steps' models."""
        return options.with_models({place: work.model(place, model) for place, model in self.models().items()})


STEP = Distill
