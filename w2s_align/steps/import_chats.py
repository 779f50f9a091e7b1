"""import_chats: chats of several turns, with tool messages, for supervised fine-tuning.

Writes data/chats.parquet, with the column messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from w2s_align.artifacts.identity import file_digest, hub_revision, looks_local
from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.local_files import beside_the_recipe
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class ImportChats(Step):
    """Read chats of several turns; `sft` learns the assistant's last turn of each, or all of them."""

    kind: Literal["import_chats"] = "import_chats"
    source: str
    """A file (.jsonl, .json, .parquet) or a dataset id on the hub, with a column of messages; or lab/arguments."""
    column: str | None = None
    """Column of the messages. Default: messages, conversations, conversation, chat or dialog."""
    split: str = "train"
    """Split of a hub dataset."""
    config: str | None = None
    """Configuration of a hub dataset."""
    revision: str | None = None
    """Commit, tag or branch of a hub dataset."""
    limit: int | None = Field(None, ge=1)
    """Read this many rows."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "chats"
    uses_seed: ClassVar[bool] = False

    @field_validator("source")
    @classmethod
    def _beside_the_recipe(cls, source: str, info: ValidationInfo) -> str:
        """Find a file beside the recipe when there is none in the current folder."""
        return beside_the_recipe(source, info)

    def content(self) -> dict[str, Any]:
        """Leave out where a file lies: its digest says the content."""
        path = Path(self.source).expanduser()
        return super().content() | ({"source": path.name} if path.exists() else {})

    def check(self) -> None:
        """Refuse a file that is not there."""
        path = Path(self.source).expanduser()
        if not path.is_file() and (looks_local(self.source) or path.suffix in (".jsonl", ".json", ".parquet")):
            raise UserError(
                f"The file {self.source} does not exist.",
                fix="Paths are relative to the current folder, or to the recipe's.",
            )

    def identity(self) -> dict[str, Any]:
        """Return the digest of a local file, or the revision of a hub dataset."""
        path = Path(self.source).expanduser()
        if self.source.startswith("lab/"):
            return {}
        return (
            {"file": file_digest(path)}
            if path.is_file()
            else {"revision": hub_revision(self.source, "dataset", self.revision)}
        )

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Read the chats and write them."""
        from w2s_align.interchange.chats import import_chats

        chats = import_chats(
            self.source,
            column=self.column,
            split=self.split,
            config_name=self.config,
            revision=self.revision,
            limit=self.limit,
        )
        work.write(chats.table, "chats")
        work.counts.update(chats.counts)
        work.result.update(assistant_turns=chats.turns, roles=chats.roles)
        work.warnings += chats.warnings
