"""What a recipe is made of: steps with typed options, and references from one step to another.

A field that may name another step says so in its type: ``prompts: PromptsRef`` reads an artifact of type ``prompts``.
Everything else that the loader and the planner need to know about a step is a class variable of its configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import Field
from pydantic.fields import FieldInfo

from w2s_align.records import Settings

ArtifactType: TypeAlias = Literal[
    "prompts", "responses", "scores", "pairs", "dataset", "model", "results", "report", "file", "chats"
]
"""What an artifact holds; a reference names a step that writes the type its field reads."""


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""Names of recipes, steps and arms: they are names of folders, and no `.`, `/` or `@` may be in them.
File systems take 255 bytes, of which a node's name needs several parts."""


@dataclass(frozen=True)
class Reads:
    """Marks a field that takes a reference to another step.

    Attributes:
        types: Artifact types that fit.
        literal: The field also takes a value of its own (a hub id, a folder).
        many: A step with several seeds fits, and stands for all its models.
        named: The name of the step is written into the artifact, so it is part of the key.
    """

    types: tuple[ArtifactType, ...]
    literal: bool = False
    many: bool = False
    named: bool = False


PromptsRef: TypeAlias = Annotated[str, Reads(("prompts",))]
ResponsesRef: TypeAlias = Annotated[str, Reads(("responses",))]
ScoresRef: TypeAlias = Annotated[str, Reads(("scores",))]
PairsRef: TypeAlias = Annotated[str, Reads(("pairs",))]
ResultsRef: TypeAlias = Annotated[str, Reads(("results",))]
MODEL = Reads(("model",), literal=True)
"""A model: a hub id, a folder, or $step."""
ModelRef: TypeAlias = Annotated[str, MODEL]


Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy, PyTorch and vLLM all take."""


class Resources(Settings):
    """What a step may use of the machine. Never part of an artifact's key."""

    cpus: int | None = Field(None, ge=1)
    """CPU cores (and threads). Default: all of them; steps that need fewer run side by side."""
    gpus: int | None = Field(None, ge=0)
    """GPUs of this machine. Default: all of them."""


class Machines(NamedTuple):
    """The machines of a cluster that an artifact takes.

    Attributes:
        together: Machines that work on it at the same time, connected with each other: a training.
        shards: Machines that work on it one by one, each on its own shard: a generation.
    """

    together: int = 1
    shards: int = 1


class StepConfig(Settings):
    """Options that every step has; each kind of step adds its own."""

    kind: str
    """Kind of step; `w2s steps` lists them."""
    seed: Seed | None = None
    """Seed of this step. Default: the recipe's."""
    resources: Resources = Resources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType]
    version: ClassVar[int] = 1
    """Raised when the same options begin to give another content."""
    uses_seed: ClassVar[bool] = True
    """Whether the seed can change the content; if not, it is not part of the key."""
    shows_recipe: ClassVar[bool] = False
    """Whether the recipe itself, with the names of its steps, is part of what it writes."""
    has_shards: ClassVar[bool] = False
    """Whether machines that share a folder can make an artifact of this kind together. Running the step then makes the
    shard that it is told to make, and without one assembles those that are there."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version is part of the key."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Option names that users know from elsewhere, with what to write instead."""

    def implied(self, members: Callable[[str], list[str]]) -> dict[str, StepConfig]:
        """Return further steps that this one needs, by a name that is unique within the step.

        One of them names another that comes before it with ``$/`` and its name.

        Args:
            members: Gives the references that a reference stands for: one for each seed of the step it names.
        """
        return {}

    def identity(self) -> dict[str, Any]:
        """Return what is outside the recipe and changes the content: file digests, hub revisions, versions."""
        return {}

    def content(self) -> dict[str, Any]:
        """Return the options that can change what the step writes; they are part of the key."""
        return self.model_dump(mode="json", exclude={"resources"} | (set() if self.uses_seed else {"seed"}))

    @classmethod
    def default_seed(cls, seed: int, options: Mapping[str, Any]) -> int:
        """Return the seed of a step that gives none.

        Args:
            seed: The recipe's.
            options: The step's options as they stand in the recipe, not checked yet.
        """
        return seed

    def check(self) -> None:
        """Refuse what cannot work before anything runs, beyond what the types say.

        Raises:
            UserError: With the way out.
        """

    def check_among(self, steps: Mapping[str, StepConfig]) -> None:
        """Refuse what does not go together with the steps that this one reads.

        Args:
            steps: All steps of the recipe by name.

        Raises:
            UserError: With the way out.
        """

    def notes(self) -> list[str]:
        """Return sentences on what the step has to guess of local data, to be said before anything runs."""
        return []

    def claims(self) -> Resources:
        """Return what the step itself takes of the machine while it runs."""
        return self.resources

    def process(self) -> str | None:
        """Return a name that steps share when one process may run them in turn, or None for a process of its own.

        Starting an engine or importing a trainer costs more than the work of a tiny model. On a GPU a process of its
        own is what gives the memory back.
        """
        return None

    def machines(self, nodes: int) -> Machines:
        """Return the machines of a cluster that an artifact of this step takes.

        Args:
            nodes: Machines that share its work, where the recipe does not say and it can be shared.
        """
        return Machines()

    def references(self) -> Iterator[Reference]:
        """Yield every reference to another step, in the order of the fields."""
        for name, info in type(self).model_fields.items():
            reads = reads_of(info)
            if reads is not None:
                yield from _references(reads, (name,), getattr(self, name))


@dataclass(frozen=True)
class Reference:
    """One reference: where it stands in the step, what it says, and what fits there."""

    path: tuple[str, ...]
    value: str
    reads: Reads

    @property
    def step(self) -> str | None:
        """Name of the step, or None for a value of its own."""
        return self.value[1:] if self.value.startswith("$") else None


def reads_of(info: FieldInfo) -> Reads | None:
    """Return what a field reads, or None for a field that takes no reference."""
    return next((m for m in info.metadata if isinstance(m, Reads)), None) or _find(info.annotation)


def _find(annotation: Any) -> Reads | None:
    """Find the marker inside ``dict[str, ModelRef]``, ``list[...]`` or ``... | None``."""
    for part in getattr(annotation, "__metadata__", ()):
        if isinstance(part, Reads):
            return part
    for argument in getattr(annotation, "__args__", ()):
        found = _find(argument)
        if found is not None:
            return found
    return None


def _references(reads: Reads, path: tuple[str, ...], value: Any) -> Iterator[Reference]:
    if isinstance(value, str):
        yield Reference(path, value, reads)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _references(reads, (*path, str(key)), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _references(reads, (*path, str(index)), item)


@dataclass(frozen=True)
class Node:
    """One artifact to make: a step with one seed, and the nodes it reads."""

    name: str
    config: StepConfig
    inputs: Mapping[str, str]
    """Node read, by the place that reads it: ``chosen``, ``arms.weak``, ``implied.weak.0.greedy``."""
    step: str
    """Name of the step in the recipe that this node belongs to."""

    @property
    def implied(self) -> bool:
        """Whether the recipe does not name it: a step needs it. Its name is the step's, ``/`` and more."""
        return "/" in self.name


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been read, checked and laid out as a graph.

    Attributes:
        name: Name of the recipe; also the folder of its runs.
        seed: Seed of every step that does not give its own.
        description: What it is for, in a sentence.
        nodes: What there is to make, by name, each after everything it reads.
        text: The recipe as the user wrote it.
        resolved: The recipe with every default, override and seed filled in.
        path: The file it came from.
    """

    name: str
    seed: int
    description: str
    nodes: Mapping[str, Node]
    text: str
    resolved: Mapping[str, Any]
    path: str = ""
