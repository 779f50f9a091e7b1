"""prompts: questions for the models, from the hub, a local file, reasoning-gym or the lab.

Writes data/prompts.parquet (records.Prompt).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from w2s_align.artifacts.identity import file_digest, hub_revision
from w2s_align.errors import UserError
from w2s_align.files import installed_version
from w2s_align.interchange.prompt_sources import Glance, check_generated, glance
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.local_files import beside_the_recipe
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Prompts(Step):
    """Load prompts, with their gold answers where there are any."""

    kind: Literal["prompts"] = "prompts"
    source: str
    """A file (.jsonl, .json, .csv, .parquet), lab/<task>, reasoning_gym/<dataset>, or a dataset id on the hub."""
    split: str = "train"
    """Split of a hub dataset or of a lab task."""
    config: str | None = None
    """Configuration of a hub dataset."""
    revision: str | None = None
    """Commit, tag or branch of a hub dataset."""
    columns: dict[str, str] = {}
    """Which column holds what: {prompt: question, answer: answer, group: topic}. A prompt is a text or messages.
    Also system, history (earlier turns), input (what completes an instruction), and id: rows with ids of their own
    stay apart where they ask the same question. Default: the usual names, and no id."""
    template: str | None = None
    """Text around each prompt, with {prompt} in it."""
    limit: int | None = Field(None, ge=1)
    """Keep this many prompts."""
    shuffle: bool = False
    """Draw them at random with the seed instead of taking the first."""
    hold_out: float = Field(0.0, ge=0, lt=1)
    """Share of the groups that belongs to the part `test`; prompts of one group are never on both sides."""
    part: Literal["all", "train", "test"] = "all"
    """train leaves out the held-out share, test takes only it."""
    task: str | None = None
    """Name of the task, which also names the default answer check. Default: from the source."""
    options: dict[str, Any] = {}
    """Options of a reasoning-gym dataset, or of lab/carry: {noise: 0.4, draws: 1}."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "prompts"
    version: ClassVar[int] = 2

    @field_validator("source")
    @classmethod
    def _beside_the_recipe(cls, source: str, info: ValidationInfo) -> str:
        """Find a file beside the recipe when there is none in the current folder."""
        return beside_the_recipe(source, info)

    def content(self) -> dict[str, Any]:
        """Leave out where a file lies: its name says the task, its digest the content."""
        path = Path(self.source).expanduser()
        return super().content() | ({"source": path.name} if path.is_file() else {})

    def check(self) -> None:
        """Refuse a part without a held-out share, a file that is not there, and a task that cannot be generated."""
        if self.part == "test" and self.hold_out == 0:
            raise UserError("part: test needs a held-out share.", fix="Add hold_out: 0.1, for example.")
        check_generated(self.source, self.split, self.limit, self.options)
        path = Path(self.source).expanduser()
        if not path.is_file() and (path.suffix in (".jsonl", ".json", ".csv", ".parquet") or self.source[:1] in "./~"):
            raise UserError(
                f"The file {self.source} does not exist.",
                fix="Paths are relative to the current folder, or to the recipe's.",
            )

        self._glance()

    def _glance(self) -> Glance | None:
        """Return what the first rows of a local file tell; None for any other source.

        Raises:
            UserError: The file cannot be read, or it has no such column.
        """
        path = Path(self.source).expanduser()
        return glance(path, self.columns) if path.is_file() else None

    def notes(self) -> list[str]:
        """Say which columns of a local file are not read, and which one is taken for the answer."""
        found = self._glance()
        return found.warnings if found else []

    def without_gold(self) -> str | None:
        """Say why no answer to these prompts can be checked; None where it can, or nobody knows yet."""
        found = self._glance()
        if found is None or not found.prompts or found.answers:
            return None
        return f"{self.source} has no gold answers; its columns are {', '.join(found.columns)}."

    def identity(self) -> dict[str, Any]:
        """Return the digest of a local file, the revision of a hub dataset, or the version of a generator."""
        path = Path(self.source).expanduser()
        if path.is_file():
            return {"file": file_digest(path)}
        if self.source.startswith("reasoning_gym/"):
            return {"reasoning-gym": installed_version("reasoning-gym")}
        if self.source.startswith("lab/"):
            return {}
        return {"revision": hub_revision(self.source, "dataset", self.revision)}

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Load the prompts and write them."""
        from w2s_align.interchange.prompt_sources import load_prompts

        loaded = load_prompts(
            self.source,
            split=self.split,
            config_name=self.config,
            revision=self.revision,
            columns=self.columns,
            template=self.template,
            limit=self.limit,
            shuffle=self.shuffle,
            seed=self.seed or 0,
            hold_out=self.hold_out,
            part=self.part,
            task=self.task,
            options=self.options,
        )
        work.write(loaded.table, "prompts")
        work.counts.update(loaded.counts)
        work.warnings += loaded.warnings
        if self.limit is not None and loaded.table.num_rows < self.limit:
            work.warnings.append(
                f"{self.source} gave {loaded.table.num_rows} prompts; the limit of {self.limit} was not reached."
            )
