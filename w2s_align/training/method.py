"""What a kind of training declares: its settings, its rows, its trainer, and what a plan must know of it.

A kind is one file in ``methods/`` with a ``METHODS`` tuple of :class:`Method`. All else follows from it: the step of
recipes (steps/train.py), the estimate of a plan (estimates/training.py), batches and memory (batching.py). The
trainer may be one of TRL's or any other subclass of ``transformers.Trainer``; rows may be pairs, chats, labels or
prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.training.health import Health
from w2s_align.training.models import LM_HEAD, Head
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder


@dataclass(frozen=True)
class Inputs:
    """The option of a recipe's step that names the rows.

    Attributes:
        option: Its name.
        types: Types of the artifacts that it takes: ``pairs``, ``responses``, ``prompts``, ...
        help: What it means, for ``w2s steps``.
    """

    option: str
    types: tuple[str, ...]
    help: str


PAIRS = Inputs("pairs", ("pairs",), "Preference pairs; of a list of steps, all of their pairs together.")
"""What most kinds are trained on."""


def plain_health(plan: TrainingPlan) -> Health:
    """Return the rules for a loss whose value before the first step is not known."""
    return Health(exact=plan.dtype == "float32")


@dataclass(frozen=True)
class Method:
    """One kind of training.

    Attributes:
        name: Its name in recipes.
        title: Its name in a model card.
        summary: What it does, in a sentence, for ``w2s steps``.
        settings: Class of its settings; each kind has one of its own.
        prepare: Checks, filters and stores rows: ``prepare(rows, encoder, settings, folder, seed)``.
        trainer: Makes the trainer of a plan with the callbacks that it is given.
        inputs: The option of its step that names the rows.
        health: Makes the rules that every step is held against.
        head: What the model ends in, where its settings do not say.
        sides: Sequences per row in a forward pass: 2 for pairs, 1 for chats.
        rows_per_input: Rows that a row of the data becomes; 2 where pairs are taken apart.
        shuffled: Whether each epoch has an order of its own. Otherwise rows come as ``prepare`` has stored them: in
            :func:`~w2s_align.training.batching.fixed_order`.
        padding_free: Whether its trainer is made inside :func:`~w2s_align.training.padding_free.without_padding`.
        logits: Memory of the output head: ``tiles`` where log-probabilities are computed tile by tile, ``whole`` where
            all logits are kept, ``none`` without such a head.
        library: Distribution that its trainer comes from.
        frozen_as_trained: Whether frozen models are loaded in the precision of trained weights, where all are trained;
            otherwise in that of the arithmetic.
        frozen_passes: Forward passes of frozen models (a reference, a teacher) for each row of a training.
        complete: Fills in settings that depend on the rows: ``complete(rows, settings, seed)``.
    """

    name: str
    title: str
    summary: str
    settings: type[TrainSettings]
    prepare: Callable[[Rows, ChatEncoder, Any, Path, int], TrainingData]
    trainer: Callable[[TrainingPlan, list[Any]], Any]
    inputs: Inputs = PAIRS
    health: Callable[[TrainingPlan], Health] = plain_health
    head: Head = LM_HEAD
    sides: int = 2
    rows_per_input: int = 1
    shuffled: bool = True
    padding_free: bool = False
    logits: Literal["tiles", "whole", "none"] = "tiles"
    library: str = "trl"
    frozen_as_trained: bool = False
    frozen_passes: int = 0
    complete: Callable[[Rows, Any, int], Any] = lambda rows, settings, seed: settings

    def head_for(self, settings: TrainSettings) -> Head:
        """Return what a model with these settings ends in."""
        return settings.head or self.head
