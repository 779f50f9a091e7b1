"""items: classification items from a dataset, by one of the shipped formats or a file of yours.

Writes data/prompts.parquet (records.Prompt); the answer of an item is its class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from w2s_align.artifacts.identity import file_digest, hub_revision
from w2s_align.evaluation.item_format import ItemFormat, load_format
from w2s_align.evaluation.items import Balance
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.local_files import beside_the_recipe
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Items(Step):
    """Turn a dataset into items with classes: k options into yes/no items, two responses into a comparison."""

    kind: Literal["items"] = "items"
    format: str
    """sciq, boolq, cosmos_qa, amazon_polarity, anthropic_hh, hellaswag, ... or a YAML file in the same form. A file
    that has items with classes already is read by step prompts."""
    split: str | None = None
    """Split of the dataset. Default: the one that the format names."""
    limit: int | None = Field(None, ge=1)
    """At most so many items, from the front."""
    balance: Balance = "auto"
    """auto: where a class has more than 55% of the items, random ones are left out until all classes have as many.
    exact: in any case. none: never."""
    data_dir: str | None = None
    """Mirror folder with the hub's files. Default: W2S_DATA_DIR, else the hub."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "prompts"

    @field_validator("format")
    @classmethod
    def _beside_the_recipe(cls, name: str, info: ValidationInfo) -> str:
        """Find a file beside the recipe when there is none in the current folder."""
        return beside_the_recipe(name, info)

    def definition(self) -> ItemFormat:
        """Return the format with its settings."""
        return load_format(self.format)

    def check(self) -> None:
        """Refuse a format that does not exist."""
        load_format(self.format)

    def content(self) -> dict[str, Any]:
        """Return the definition of the format in place of its name, and not where its data lie."""
        return {**super().content(), "format": self.definition().content(), "data_dir": None}

    def identity(self) -> dict[str, Any]:
        """Return the digest of a local file, or the revision of a dataset on the hub."""
        data = self.definition().data
        if data.source is not None:
            return {"file": file_digest(Path(data.source).expanduser())}
        return {"revision": hub_revision(data.repo or "", "dataset", None)}

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows."""
        return "rows"

    def run(self, work: Work) -> None:
        """Make the items and write them."""
        from w2s_align.evaluation.items import load_items

        loaded = load_items(
            self.definition(),
            split=self.split,
            limit=self.limit,
            balance=self.balance,
            seed=self.seed or 0,
            data_dir=self.data_dir,
        )
        work.write(loaded.table, "prompts")
        work.counts.update(loaded.counts)
        work.result["classes"] = loaded.classes
