"""distill: its step, whose teacher and contrasts may be models of other steps.

Writes what every training writes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from w2s_align.recipe.schema import PromptsRef
from w2s_align.steps.frozen_models import FrozenModelsStep
from w2s_align.training.methods.distill import METHODS, DistillSettings


class Distill(DistillSettings, FrozenModelsStep, method=METHODS[0]):
    """Let a model write responses, and teach it a target on each of their tokens."""

    kind: Literal["distill"] = "distill"
    prompts: PromptsRef | Annotated[list[PromptsRef], Field(min_length=1)]
    """Prompts that the student responds to in training; of a list of steps, all of them together."""

    version: ClassVar[int] = 1


STEP = Distill
