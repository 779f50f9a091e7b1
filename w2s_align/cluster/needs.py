"""What an artifact takes of a cluster, whichever kind: machines, their GPUs, shards."""

from __future__ import annotations

from typing import Any, NamedTuple

from w2s_align.runs.plan import Planned
from w2s_align.steps.train import TrainStep


class Needs(NamedTuple):
    """The machines that an artifact takes.

    Attributes:
        gpus: GPUs of each.
        nodes: Machines that work on it together, all at the same time: a training.
        shards: Machines that work on it one by one: a generation.
    """

    gpus: int
    nodes: int
    shards: int


def needs(item: Planned, nodes: int, gpus_per_node: int) -> Needs:
    """Return the machines that an artifact takes.

    Args:
        item: The artifact.
        nodes: Machines of a training on several processes, and of a generation, where the recipe does not say.
        gpus_per_node: GPUs of a machine.
    """
    config: Any = item.node.config
    gpus = config.claims().gpus
    gpus = gpus_per_node if gpus is None else min(gpus, gpus_per_node)
    if isinstance(config, TrainStep) and config.launch != "single":
        return Needs(gpus, config.resources.machines or nodes, 1)
    if config.has_parts and config.engine.name not in ("openai", "ray"):  # these have machines of their own
        implied = item.node.name != item.node.step  # by an evaluation, which has many of them side by side
        return Needs(gpus, 1, config.resources.machines or (1 if implied else nodes))
    return Needs(gpus, 1, 1)
