"""From the rows of a dataset to classification items: prompts whose answer is a class. What is left out is counted."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.errors import UserError
from w2s_align.evaluation.item_format import ItemFormat
from w2s_align.evaluation.task_rows import task_rows
from w2s_align.evaluation.templates import Templates
from w2s_align.records import Prompt, to_table, valid_unicode

if TYPE_CHECKING:
    import pyarrow as pa

UNBALANCED = 0.55
"""Share of a class above which items are balanced, as Burns et al. do (arXiv 2312.09390, appendix A.2)."""

Balance = Literal["auto", "exact", "none"]
"""auto: where a class has more than 55% of the items, random ones of it are left out until all have as many. exact: in
any case."""


@dataclass(frozen=True)
class LoadedItems:
    """Items, and what became of the rows.

    Attributes:
        table: Rows of ``Prompt.SCHEMA``; ``answer`` is the class.
        counts: ``rows_in``, ``items`` that they made, ``kept``, and ``dropped`` by reason.
        classes: Items of each class.
    """

    table: pa.Table
    counts: dict[str, Any]
    classes: dict[str, int]


def load_items(
    form: ItemFormat,
    *,
    split: str | None = None,
    limit: int | None = None,
    balance: Balance = "auto",
    seed: int = 0,
    data_dir: str | None = None,
) -> LoadedItems:
    """Make the items of a format.

    Args:
        form: The format.
        split: Split of its dataset; by default the one that the format names.
        limit: At most so many items, from the front; all items of a row or none.
        balance: Whether classes are brought to the same number.
        seed: Seed of coins, of random options and of what is left out for balance.
        data_dir: Mirror folder; by default the one of the environment, else the hub.

    Raises:
        UserError: The data are not there, do not fit the format, or give no item.
    """
    maker, rng = _Maker(form, random.Random(seed)), random.Random(seed)
    found: dict[str, Prompt] = {}
    dropped: Counter[str] = Counter()
    rows_in = made = 0
    split = split or form.data.split
    for number, row in enumerate(task_rows(form, split, data_dir)):
        items = maker.items(row, f"{form.name}/{split}/{number}")
        if limit is not None and made + len(items) > limit:
            break
        rows_in += 1
        made += len(items)
        for item in items:
            if item.id in found:
                dropped["duplicate"] += 1
            found.setdefault(item.id, item)
    kept = _balanced(list(found.values()), balance, rng)
    if not kept:
        raise UserError(f"The format {form.name} gives no items: its split {split} is empty.")
    dropped["for balance"] = len(found) - len(kept)
    counts = {"rows_in": rows_in, "items": made, "kept": len(kept), "dropped": {k: n for k, n in dropped.items() if n}}
    return LoadedItems(to_table(kept, Prompt), counts, dict(sorted(Counter(str(i.answer) for i in kept).items())))


def _balanced(items: list[Prompt], balance: Balance, rng: random.Random) -> list[Prompt]:
    """Leave out random items of the larger classes, in place."""
    counts = Counter(item.answer for item in items)
    if balance == "none" or not items or (balance == "auto" and max(counts.values()) <= UNBALANCED * len(items)):
        return items
    least = min(counts.values())
    kept: set[int] = set()
    for name in counts:
        places = [place for place, item in enumerate(items) if item.answer == name]
        kept.update(rng.sample(places, least))
    return [item for place, item in enumerate(items) if place in kept]


class _Maker:
    """Makes the items of one row after another; what it draws depends on the rows before alone."""

    def __init__(self, form: ItemFormat, rng: random.Random) -> None:
        self.form, self.rng = form, rng
        self.templates = Templates(f"The format {form.name}")

    def items(self, row: dict[str, Any], place: str) -> list[Prompt]:
        """Return the items of a row, which is one group where the format names no other."""
        form, fields = self.form, {**row, "row": row}
        group = self.templates.text(form.group, fields) if form.group else place
        if form.label is not None:
            return [self._item(fields, self.templates.value(form.label, fields), group)]
        options = [str(option) for option in self.templates.value(form.options or "", fields)]
        gold = int(self.templates.value(form.gold or "", fields))
        if not 0 <= gold < len(options) or len(options) < 2:
            raise UserError(
                f"The format {form.name}: {gold} is not a place among {len(options)} options.",
                f"The options are {options}.",
            )
        wrong = self.rng.choice([at for at in range(len(options)) if at != gold])
        coin = self.rng.random() < 0.5
        if form.rows == "both":
            first, second = (gold, wrong) if coin else (wrong, gold)
            shown = fields | {"first": options[first], "second": options[second]}
            return [self._item(shown, int(second == gold), group)]
        asked = {"all": range(len(options)), "pair": sorted((gold, wrong)), "coin": [gold if coin else wrong]}[
            form.rows
        ]
        if form.rows == "coin" and options[gold].strip() == (form.never_right or "").strip():
            asked = [wrong]
        return [self._item(fields | {"option": options[at]}, int(at == gold), group) for at in asked]

    def _item(self, fields: dict[str, Any], label: Any, group: str) -> Prompt:
        text = valid_unicode(self.templates.text(self.form.text, fields))
        answer = str(int(label)) if isinstance(label, bool) else str(label)
        return Prompt.of(text, answer=answer, task=self.form.name, group=group)
