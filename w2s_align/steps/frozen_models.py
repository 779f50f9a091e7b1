"""What the steps of trainings share whose settings name frozen models: a teacher, contrasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from w2s_align.artifacts.identity import model_identity
from w2s_align.recipe.schema import MODEL, Reference
from w2s_align.steps.train import TrainStep
from w2s_align.steps.work import Work


class FrozenModelsStep(TrainStep):
    """A training beside frozen models; its settings give them by ``models()`` and take others by ``with_models()``."""

    def models(self) -> dict[str, str]:
        """Return the frozen models by the place that names them."""
        raise NotImplementedError

    def references(self) -> Iterator[Reference]:
        """Yield start model, prompts, and the frozen models."""
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
