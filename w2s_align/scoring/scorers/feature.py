"""A countable feature of the text as a score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from w2s_align.scoring.features import FEATURES
from w2s_align.scoring.scorer import Assessment, BatchScorer, Scorer
from w2s_align.scoring.thoughts import answer_part


class FeatureScorer(Scorer):
    """A countable feature of the text; scores are named ``feature:<feature>``."""

    name: Literal["feature"] = "feature"
    feature: Literal[
        "chars", "words", "lines", "sentences", "sections", "list_items", "repetition", "latin", "capitals"
    ]
    """What to count: see ``w2s_align.scoring.features``."""
    target: float | None = None
    """Score the closeness to this value, ``-|value - target|``, instead of the value itself."""

    @property
    def label(self) -> str:
        """What ``Score.scorer`` says."""
        return f"feature:{self.feature}"

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Count in what follows the thoughts, and compare with the target where there is one."""
        count, target = FEATURES[self.feature], self.target

        def check(text: str) -> Assessment:
            value = float(count(answer_part(text)))
            return Assessment(value) if target is None else Assessment(-abs(value - target), f"{value:g}")

        yield lambda prompts, responses: [check(text) for text in responses["text"].to_pylist()]
