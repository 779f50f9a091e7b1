"""oprd: its step, whose teacher may be a model of another step.

Writes what every training writes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from w2s_align.recipe.schema import PromptsRef
from w2s_align.steps.frozen_models import FrozenModelsStep
from w2s_align.training.methods.oprd import METHODS, OPRDSettings


class Oprd(OPRDSettings, FrozenModelsStep, method=METHODS[0]):
    """Reinforcement whose gradient is amplified along what training has changed in a weak teacher."""

    kind: Literal["oprd"] = "oprd"
    prompts: PromptsRef | Annotated[list[PromptsRef], Field(min_length=1)]
    """Prompts that the student responds to in training; of a list of steps, all of them together."""

    version: ClassVar[int] = 1


STEP = Oprd
