"""simpo, cpo, orpo: preference tuning without a reference, by TRL's experimental trainers.

Read pairs and a model; write what dpo writes.
"""

from __future__ import annotations

from typing import Literal

from w2s_align.steps.train import PairsRefs, TrainStep, rows_of
from w2s_align.steps.work import Work
from w2s_align.training.methods.reference_free import CPOSettings, ORPOSettings, SimPOSettings
from w2s_align.training.settings import TrainSettings


class _ReferenceFree(TrainStep):
    pairs: PairsRefs
    """Preference pairs; of a list of steps, all of their pairs together."""

    def _run(self, work: Work, settings: type[TrainSettings]) -> None:
        from w2s_align.training import train_reference_free

        self.fit(work, train_reference_free, rows_of(work, "pairs"), settings)


class Simpo(_ReferenceFree, SimPOSettings):
    """Tune a model on preference pairs by mean log-probabilities and a margin, without a reference."""

    kind: Literal["simpo"] = "simpo"

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        self._run(work, SimPOSettings)


class Cpo(_ReferenceFree, CPOSettings):
    """Tune a model on preference pairs by log-probabilities and a likelihood term, without a reference."""

    kind: Literal["cpo"] = "cpo"

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        self._run(work, CPOSettings)


class Orpo(_ReferenceFree, ORPOSettings):
    """Tune a model on preference pairs by their odds ratio and a likelihood term, without a reference."""

    kind: Literal["orpo"] = "orpo"

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        self._run(work, ORPOSettings)
