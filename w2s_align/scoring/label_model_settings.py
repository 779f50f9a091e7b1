"""The options of a label model, as a typed group. Imports nothing heavy: a recipe is checked in an instant."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from w2s_align.records import Settings

Normalize: TypeAlias = Literal["percentiles", "min_max", "ranks"]
"""Ways to bring the values of a scorer to the range 0 to 1."""
Binarize: TypeAlias = Literal["balance", "threshold", "top", "labels"]
"""Ways to make votes of values."""
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class LabelModelSettings(Settings):
    """How votes are made of scores, and what a label model is told."""

    prior: Share | None = None
    """Share of right responses, where it is known. Default: from labels where there are any, else from the votes'
    third moments. 0 and 1 leave nothing to decide."""
    normalize: Normalize = "percentiles"
    """percentiles: the 5th percentile becomes 0, the 95th becomes 1. min_max: the lowest and the highest value do.
    ranks: a value's place among all. Values that lie between 0 and 1 already stay as they are."""
    scope: Literal["all", "prompt"] = "all"
    """Whether values are brought to one scale, and cut by their balance, over all responses or within each prompt."""
    binarize: Binarize = "balance"
    """When a score is a yes. balance: as many yes as the prior says. threshold: from `threshold` on. top: the highest
    15% of a scorer. labels: from the threshold on that fits the labels best. Scores of 0 and 1 are votes already."""
    threshold: float = Field(0.5, ge=0, le=1)
    """From which normalized value on a score is a yes (threshold)."""
    majority: bool = True
    """Let the majority answer of a prompt vote too, where scores keep answers: the share of its responses that agree,
    stretched from the rarest answer (0) to the most frequent one (1)."""
    least_yes: float = Field(0.2, ge=0, lt=1)
    """A scorer that says yes less often is left out, unless right responses are as rare."""
    most_yes: float = Field(0.8, gt=0, le=1)
    """A scorer that says yes more often is left out, unless right responses are as frequent."""
    most_correlated: float = Field(0.7, gt=0, le=1)
    """Of two scorers whose votes correlate this much the weaker one is left out: a copy of another is no further
    witness. Three are kept in any case, unless they are the same within 0.05."""
