"""What steps share in which a model is asked: engine, process and place on the machine are those of a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_align.artifacts.identity import model_name
from w2s_align.recipe.schema import Resources
from w2s_align.steps.generate import Generate, GenerateResources
from w2s_align.steps.step import Step

if TYPE_CHECKING:
    from w2s_align.generation.settings import Engine, Sampling
    from w2s_align.steps.work import Work


class AskingStep(Step):
    """A step with a model, sampling, an engine and resources; each kind declares them with a help of its own."""

    if TYPE_CHECKING:
        model: str
        sampling: Sampling
        engine: Engine
        resources: GenerateResources

    def asking(self) -> Generate:
        """Return the generation that the questions are: what concerns engine and model is known there."""
        return Generate(
            model=self.model,
            prompts="$prompts",
            sampling=self.sampling,
            engine=self.engine,
            seed=self.seed,
            resources=self.resources,
        )

    def ways(self, work: Work) -> dict[str, Any]:
        """Return how its questions are asked, as functions that ask a model take it by keyword."""
        from w2s_align.steps.generate import shared_engines

        return {
            "sampling": self.sampling,
            "out": work.out / "asked",
            "model_name": work.sources.get("model", model_name(self.model)),
            "seed": self.seed or 0,
            "engine": self.engine,
            "resources": self.resources,
            "engines": shared_engines(),
            "progress": work.progress,
        }

    def check(self) -> None:
        """Refuse what a generation would refuse."""
        self.asking().check()

    def claims(self) -> Resources:
        """Take what a generation takes."""
        return self.asking().claims()

    def identity(self) -> dict[str, Any]:
        """Return the engine with its version, and the content of a model that no step made."""
        return self.asking().identity()

    def process(self) -> str | None:
        """Share a process with generations."""
        return self.asking().process()
