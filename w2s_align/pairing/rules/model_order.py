"""The model that wrote a response decides: the label of delta learning, without judge, reward model or gold answer."""

from __future__ import annotations

from typing import ClassVar, Unpack

import pyarrow as pa

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.rule import BETTER_AND_WORSE, Input, Rule
from w2s_align.pairing.selection import Selection, by_source


class ModelOrder(Rule):
    """the better model's response beats the worse model's (delta learning)"""

    name: ClassVar[str] = "model_order"
    inputs: ClassVar[tuple[Input, ...]] = BETTER_AND_WORSE

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Pair the k-th usable sample of one side with the k-th of the other."""
        return by_source(candidates)


def model_order(chosen: pa.Table, rejected: pa.Table, prompts: pa.Table, **options: Unpack[Options]) -> Pairs:
    """Let the model that wrote a response decide: every response in ``chosen`` beats the one in ``rejected``.

    With several samples the k-th usable sample of one side meets the k-th of the other. Source: delta learning
    (https://arxiv.org/abs/2507.06187), section 4; docs/methods/delta_learning.md.

    Args:
        chosen: Responses of the better model (:class:`w2s_align.records.Response`).
        rejected: Responses of the worse model.
        prompts: The prompts (:class:`w2s_align.records.Prompt`); their order is the order of the pairs.
        **options: See :class:`Options`. The ``tied`` control needs several samples in ``chosen``.

    Raises:
        UserError: See :class:`Options`.
    """
    return ModelOrder().make([chosen, rejected], prompts, options)
