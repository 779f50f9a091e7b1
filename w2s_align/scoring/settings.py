"""The options of every scorer, one class each; ``name`` says which scorer a group of options belongs to.

Imports nothing heavy: recipes are checked against these classes before anything runs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from w2s_align.records import Settings


class ExactSettings(Settings):
    """The final answer equals the gold answer as text, after normalisation."""

    name: Literal["exact"] = "exact"


class NumericSettings(Settings):
    """The final answer is the gold number."""

    name: Literal["numeric"] = "numeric"
    tolerance: float = Field(default=1e-6, ge=0)
    """Relative difference up to which two numbers are the same; whole numbers are compared exactly."""


class ChoiceSettings(Settings):
    """The final answer is the letter of the gold choice (multiple choice)."""

    name: Literal["choice"] = "choice"


class MathSettings(Settings):
    """The final answer is mathematically equal to the gold answer (math-verify)."""

    name: Literal["math"] = "math"
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one answer may take; one that takes longer is unscored."""
    processes: int | None = Field(default=None, ge=1)
    """Worker processes; null for one per core."""


class ReasoningGymSettings(Settings):
    """The reasoning-gym data set that made the prompt scores the final answer exactly 1."""

    name: Literal["reasoning_gym"] = "reasoning_gym"
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one answer may take; one that takes longer is unscored."""
    processes: int | None = Field(default=None, ge=1)
    """Worker processes; null for one per core."""


class LabSettings(Settings):
    """The lab task's own exact checker."""

    name: Literal["lab"] = "lab"


class AutoSettings(Settings):
    """For each prompt the answer check that fits it: see ``w2s_align.scoring.auto``."""

    name: Literal["auto"] = "auto"
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one answer may take where a library checks it."""
    processes: int | None = Field(default=None, ge=1)
    """Worker processes; null for one per core."""


class FeatureSettings(Settings):
    """A countable feature of the text; scores are named ``feature:<feature>``."""

    name: Literal["feature"] = "feature"
    feature: Literal["chars", "words", "lines", "sentences", "sections", "list_items", "repetition", "latin"]
    """What to count: see ``w2s_align.scoring.features``."""
    target: float | None = None
    """Score the closeness to this value, ``-|value - target|``, instead of the value itself."""


class SelfConsistencySettings(Settings):
    """The share of a model's samples for the same prompt that have the same final answer; reads no gold answer."""

    name: Literal["self_consistency"] = "self_consistency"
    answer: Literal["number", "text"] = "number"
    """What final answers look like."""


ScorerSettings = Annotated[
    ExactSettings
    | NumericSettings
    | ChoiceSettings
    | MathSettings
    | ReasoningGymSettings
    | LabSettings
    | AutoSettings
    | FeatureSettings
    | SelfConsistencySettings,
    Field(discriminator="name"),
]
"""Options of any one scorer, told apart by ``name``."""
