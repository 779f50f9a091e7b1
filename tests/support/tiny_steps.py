"""Steps that need no model and no domain package, for tests of what runs them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Literal

from w2s_align.errors import UserError
from w2s_align.recipe import Recipe, load, parse_document
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources
from w2s_align.shards import FINISHED, shard_folder
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Tiny(Step):
    """A step that takes one core."""

    resources: Resources = Resources(cpus=1, gpus=0)
    writes: ClassVar[ArtifactType] = "prompts"


class Number(Tiny):
    """Write a number and the process that wrote it."""

    kind: Literal["number"] = "number"
    value: int
    shared: bool = False

    def process(self) -> str | None:
        """Share a process when told to."""
        return "numbers" if self.shared else None

    def run(self, work: Work) -> None:
        """Write it."""
        (work.out / "number").write_text(str(self.value))
        work.result["pid"] = os.getpid()
        work.counts["kept"] = 1


class Sum(Tiny):
    """Add numbers up; keeps what it has read, and goes on from there."""

    kind: Literal["sum"] = "sum"
    of: list[PromptsRef]
    waits_for: str | None = None

    def run(self, work: Work) -> None:
        """Read number after number."""
        for index in range(len(self.of)):
            part = work.out / f"part-{index}"
            if not part.exists():
                part.write_text((work.inputs[f"of.{index}"].path / "number").read_text())
                print(f"read {index}", flush=True)
            work.progress(index + 1, len(self.of), "adding")
        while self.waits_for is not None and not Path(self.waits_for).exists():
            time.sleep(0.05)
        (work.out / "number").write_text(str(sum(int(path.read_text()) for path in work.out.glob("part-*"))))


class Broken(Tiny):
    """End in one of the ways in which steps end."""

    kind: Literal["broken"] = "broken"
    how: Literal["refused", "crashed", "killed"]

    def run(self, work: Work) -> None:
        """Break."""
        print("about to break", flush=True)
        if self.how == "refused":
            raise UserError("The number is odd.", fix="Use an even one.")
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a bug")


class Shared(Tiny):
    """A number that several machines make together: each writes its digit."""

    kind: Literal["shared"] = "shared"
    digits: str
    has_shards: ClassVar[bool] = True

    def run(self, work: Work) -> None:
        """Write the digits of the shard, or assemble those of all shards."""
        if work.shard is not None:
            number, count = work.shard
            folder = shard_folder(work.out, number, count)
            (folder / "digits").write_text(self.digits[number - 1 :: count])
            (folder / FINISHED).touch()
            return
        (work.out / "number").write_text("|".join(p.read_text() for p in sorted(work.out.glob("parts/*/digits"))))


CATALOGUE: dict[str, type[Step]] = {kind.model_fields["kind"].default: kind for kind in (Number, Sum, Broken, Shared)}


def tiny_recipe(steps: str, name: str = "tiny") -> Recipe:
    """Return a recipe over the tiny steps; ``steps`` is YAML, one step per line."""
    lines = "".join(f"  {line}\n" for line in steps.strip().splitlines())
    return load(parse_document(f"name: {name}\nsteps:\n{lines}", f"{name}.yaml"), CATALOGUE)
