"""The student's own responses beat those of a weaker model: the self-improvement experiment of delta learning."""

from __future__ import annotations

from typing import ClassVar, Unpack

import pyarrow as pa

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import BETTER_AND_WORSE, Input, Rule
from w2s_align.pairing.selection import Selection, by_source


class SelfOverWeaker(Rule):
    """the student's own response beats a weaker model's"""

    name: ClassVar[str] = "self_over_weaker"
    inputs: ClassVar[tuple[Input, ...]] = BETTER_AND_WORSE

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair the k-th usable sample of one side with the k-th of the other."""
        return by_source(candidates)


def self_over_weaker(own: pa.Table, weaker: pa.Table, prompts: pa.Table, **options: Unpack[Options]) -> Pairs:
    """Let the student's own responses beat those of a weaker model.

    Source: delta learning (https://arxiv.org/abs/2507.06187), section 3; docs/methods/delta_learning.md.

    Args:
        own: Responses of the student itself.
        weaker: Responses of a weaker model.
        prompts: The prompts.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`.
    """
    return SelfOverWeaker().make([own, weaker], prompts, options)
