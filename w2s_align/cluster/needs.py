"""What an artifact takes of a cluster, Slurm or Ray: machines, their GPUs, shards."""

from __future__ import annotations

from typing import NamedTuple

from w2s_align.runs.plan import Planned


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
    config = item.node.config
    gpus = config.claims().gpus
    # An evaluation implies many nodes, which run side by side: one machine each is enough.
    machines = config.machines(1 if item.node.implied else nodes)
    return Needs(gpus_per_node if gpus is None else min(gpus, gpus_per_node), machines.together, machines.shards)
