"""What a step is: a configuration that can run. Each file beside this one adds one kind (or two that are twins)."""

from __future__ import annotations

from abc import abstractmethod

from w2s_align.recipe.schema import StepConfig
from w2s_align.steps.work import Work


class Step(StepConfig):
    """A kind of step: its options are the fields, what it does is :meth:`run`."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Do the work: read ``work.inputs``, write into ``work.out``, fill in ``work.counts``.

        Called again with the same folder after a kill; must then go on, and end with the same data.

        Raises:
            UserError: The user's data or options cannot work.
        """
