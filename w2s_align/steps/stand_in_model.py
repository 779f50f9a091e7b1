"""stand_in_model: a tiny model with the architecture and chat template of a named one, for rehearsals.

Writes model/ (an ordinary Hugging Face folder).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal

from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class StandInModel(Step):
    """Make a tiny model that is served and tuned like a large one; its responses mean nothing."""

    kind: Literal["stand_in_model"] = "stand_in_model"
    like: str
    """The model that it stands in for: a hub id or a folder. Its weights are not read."""
    reward: bool = False
    """Make a reward model, which gives a chat one number."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "model"
    version: ClassVar[int] = 2
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def identity(self) -> dict[str, Any]:
        """Return the model's own chat template, if it is on this machine."""
        from w2s_align.families import own_family

        own = own_family(self.like)
        return {} if own is None else {"chats": asdict(own)}

    def process(self) -> str | None:
        """Share a process with trainings: importing torch takes longer than the work."""
        return "train"

    def run(self, work: Work) -> None:
        """Make the model."""
        from w2s_align.families import make_stand_in

        made = asdict(make_stand_in(work.out / "model", self.like, reward=self.reward))
        work.result.update({name: value for name, value in made.items() if name != "model"})
        if not made["known"]:
            work.warnings.append(f"The shape of {self.like} is unknown; a plain Llama stands in for it.")
