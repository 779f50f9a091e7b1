"""Whether the artifacts of a run are what was written: sizes, and digests of every file where they are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.store import Store
from w2s_align.errors import Problem, UserError
from w2s_align.runs.run import Run


@dataclass(frozen=True)
class Verified:
    """What became of one artifact.

    Attributes:
        name: Its step in the run, or its folder.
        digests: Whether digests were compared; sizes alone for what an earlier version made.
        problems: What is wrong with it.
    """

    name: str
    digests: bool
    problems: tuple[Problem, ...] = ()


def verify(target: Run | Artifact) -> Iterator[Verified]:
    """Yield what became of each finished artifact of a run, or of a single one; every file is read.

    Raises:
        UserError: The run's own file is damaged.
    """
    if isinstance(target, Artifact):
        yield _verified(target.path.name, target)
        return
    store = Store(target.path.parents[2])
    for name, node in target.state["nodes"].items():
        if node["state"] not in ("cached", "done"):
            continue
        try:
            yield _verified(name, Artifact.open(store.path(node["kind"], node["key"])))
        except UserError as error:
            yield Verified(name, digests=False, problems=tuple(error.problems))


def _verified(name: str, artifact: Artifact) -> Verified:
    try:
        artifact.verify()
    except UserError as error:
        return Verified(name, artifact.has_digests, tuple(error.problems))
    return Verified(name, artifact.has_digests)
