"""What a format of classification items is: where its rows come from, and how one becomes items with classes.

Each format is one YAML file in ``item_formats/`` beside this file, or a file of yours in the same form. Texts are
Jinja templates over the columns of a row, values are Jinja expressions; both run in a sandbox. Importing this file is
cheap.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from w2s_align.errors import UserError, did_you_mean
from w2s_align.evaluation.task import TaskData
from w2s_align.records import Settings

FOLDER = Path(__file__).parent / "item_formats"
"""The shipped formats, one YAML file each."""


class ItemFormat(Settings):
    """How rows of a dataset become items."""

    name: str = ""
    """Name of the format: that of its file."""
    title: str = Field("", exclude=True)
    """What the items are, and their source."""
    data: TaskData
    """Where the rows come from; `split` is the one that is read where the step names none."""
    text: str
    """Text of an item. Of a question with options it may show ``option``, or ``first`` and ``second`` (rows: both)."""
    options: str | None = None
    """Expression for the list of options of a question."""
    gold: str | None = None
    """Expression for the place of the right option, from 0."""
    rows: Literal["all", "pair", "coin", "both"] = "all"
    """Which items a question with options makes. all: one for each option. pair: the right one and a random wrong one.
    coin: one of these two, by a coin. both: one that shows two options in random order, and asks which is right."""
    never_right: str | None = None
    """An option that is never asked as the right one: its item takes a wrong option."""
    label: str | None = None
    """Expression for the class of a row without options."""
    group: str | None = None
    """Items with the same text here stay on one side of a split. Default: those of one row."""

    @model_validator(mode="after")
    def _has_a_class(self) -> ItemFormat:
        if (self.label is None) == (self.options is None):
            raise ValueError("an item has its class from label, or from options and gold: give one of the two")
        if self.options is not None and self.gold is None:
            raise ValueError("gold says which of the options is right")
        return self

    def items_of(self, rows: int) -> int:
        """Return how many items so many rows make at most; of a format that asks every option, at least."""
        return 2 * rows if self.options is not None and self.rows in ("all", "pair") else rows

    def content(self) -> dict[str, Any]:
        """Return what decides the items."""
        return self.model_dump(mode="json")


@cache
def shipped_formats() -> tuple[str, ...]:
    """Return the names of the formats that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_format(name: str) -> ItemFormat:
    """Return a format by its name, or by the path of a file.

    Raises:
        UserError: There is none, or it is not as it must be.
    """
    path = FOLDER / f"{name}.yaml" if name in shipped_formats() else Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise UserError(
            f"{name} is not a format of items.",
            f"Shipped: {', '.join(shipped_formats())}. A file of yours ends in .yaml.",
            did_you_mean(name, shipped_formats()),
        )
    try:
        return ItemFormat.model_validate({**yaml.safe_load(path.read_text(encoding="utf-8")), "name": path.stem})
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {place or 'the file'}: {first['msg']}.") from None
