"""What a step is: a configuration that can run. Each file beside this one adds one kind (or two that are twins)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from w2s_align.recipe.schema import StepConfig
from w2s_align.steps.work import Work


class Step(StepConfig):
    """A kind of step: its options are the fields, what it does is :meth:`run`."""

    has_parts: ClassVar[bool] = False
    """Whether machines that share a folder can make an artifact of this kind together: :meth:`run` then makes the part
    that ``work.part`` names, and without one puts together what is there."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Do the work: read ``work.inputs``, write into ``work.out``, fill in ``work.counts``.

        Called again with the same folder after a kill; must then go on, and end with the same data.

        Raises:
            UserError: The user's data or options cannot work.
        """

    def process(self) -> str | None:
        """Return a name that steps share when one process may run them in turn, or None for a process of its own.

        Starting an engine or importing a trainer costs more than the work of a tiny model. On a GPU a process of its
        own is what gives the memory back.
        """
        return None
