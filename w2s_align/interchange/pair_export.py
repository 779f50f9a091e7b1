"""Write pairs as a dataset folder that ``datasets.load_dataset`` opens and any TRL script trains on.

Writes ``data/train-*.parquet`` in one of TRL's conversational formats, and ``README.md``, the dataset card with its
YAML header. The prompt is always explicit: a prompt guessed from the common beginning of two answers can end inside a
word (https://github.com/huggingface/trl/pull/6472).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.errors import UserError
from w2s_align.interchange.to_trl import to_sft, to_unpaired
from w2s_align.pairing.audit import Audit, several_turns
from w2s_align.pairing.counts import Counts
from w2s_align.records import PAIR_TERMS, Pair, Settings

Format: TypeAlias = Literal["preference", "unpaired", "sft"]

SHARD_ROWS = 200_000
"""Rows of a file: with chats of a few thousand characters well below the hub's recommended 1 GB."""
ROW_GROUP_ROWS = 10_000
"""Rows of a Parquet row group: what a reader of a few rows, `w2s show` or the hub's viewer, has to load."""
TAGS: dict[Format, list[str]] = {
    "preference": ["preference", "dpo", "weak-to-strong"],
    "unpaired": ["preference", "kto", "weak-to-strong"],
    "sft": ["sft", "weak-to-strong"],
}
"""Tags of the card, by which datasets are found on the hub."""
WHAT: dict[Format, str] = {
    "preference": "preference pairs, made by the rule `{rules}`, in TRL's conversational format with an explicit "
    "prompt: `prompt`, `chosen` and `rejected` are lists of messages. The other columns say where each pair comes "
    "from.",
    "unpaired": "completions of preference pairs made by the rule `{rules}`, in TRL's unpaired format (KTO): `prompt` "
    "and `completion` are lists of messages, `label` is true for chosen responses.",
    "sft": "chats, one side of preference pairs made by the rule `{rules}`, in TRL's conversational format for "
    "supervised fine-tuning: `messages` is the prompt and the response.",
}
"""What the card says the rows are."""
_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
"""The hub's size categories, by the number of rows that each stays below."""


class CardFacts(Settings):
    """What the dataset card says that the pairs themselves do not tell."""

    name: str = "Preference pairs"
    """Title of the card."""
    license: str = "other"
    """License of the dataset, as the hub writes it, e.g. ``apache-2.0``."""
    generator_licenses: Mapping[str, str] = {}
    """License of every model that wrote responses, by its name."""
    language: list[str] = []
    """Languages as ISO 639-1 codes."""
    made_by: str = ""
    """How the pairs were made, in Markdown: a recipe, a command."""


def export_pairs(
    pairs: pa.Table,
    folder: Path | str,
    facts: CardFacts | None = None,
    *,
    audit: Audit | None = None,
    counts: Counts | None = None,
    split: str = "train",
    format: Format = "preference",
    side: Literal["chosen", "rejected"] = "chosen",
) -> list[Path]:
    """Write pairs and their card.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        folder: Where to write; made when it does not exist.
        facts: Title, licenses and origin for the card.
        audit: Shown on the card: the delta, lengths and warnings.
        counts: Shown on the card: what was kept and dropped (``Pairs.counts``).
        split: Name of the split.
        format: ``preference``, ``unpaired`` (KTO: two rows per pair) or ``sft`` (messages).
        side: Which side of the pairs ``sft`` shows.

    Returns:
        The Parquet files.

    Raises:
        UserError: There are no pairs, or the table is not of the Pair schema.
    """
    check_pairs(pairs)
    if not pairs.num_rows:
        raise UserError("No pairs to write.", fix="Look at the counts of dropped rows for the reason.")
    table = pairs if format == "preference" else to_unpaired(pairs) if format == "unpaired" else to_sft(pairs, side)
    card = dataset_card(pairs, facts or CardFacts(), audit, counts, split, format, table.num_rows)
    return _write(table, Path(folder), split, card)


def export_chats(
    chats: pa.Table, folder: Path | str, facts: CardFacts | None = None, *, counts: Mapping[str, int] | None = None
) -> list[Path]:
    """Write chats and their card, in TRL's conversational format for supervised fine-tuning.

    Args:
        chats: One column, ``messages``.
        folder: Where to write; made when it does not exist.
        facts: Title, license and origin for the card.
        counts: Shown on the card: numbers of rows by name.

    Returns:
        The Parquet files.
    """
    facts = facts or CardFacts()
    parts = [
        _header(facts, "sft", "train", chats.num_rows),
        f"{chats.num_rows:,} chats, with what tools say in them, in TRL's conversational format: `messages`. TRL puts "
        "the loss on every turn, unless `assistant_only_loss` is set and the template marks those of the assistant.\n",
    ]
    if counts:
        lines = "\n".join(f"| {_cell(name)} | {number:,} |" for name, number in counts.items())
        parts.append(f"## Rows\n\n| rows | number |\n|---|---|\n{lines}\n")
    return _write(chats, Path(folder), "train", "\n".join(parts))


def _write(table: pa.Table, folder: Path, split: str, card: str) -> list[Path]:
    """Write rows as shards of Parquet, and their card."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shards = -(-table.num_rows // SHARD_ROWS)
    files = []
    for shard in range(shards):
        path = folder / "data" / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
        pq.write_table(table.slice(shard * SHARD_ROWS, SHARD_ROWS), path, row_group_size=ROW_GROUP_ROWS)
        files.append(path)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return files


def check_pairs(pairs: pa.Table) -> None:
    """Refuse a table that TRL would not read as conversational preference pairs with an explicit prompt.

    Raises:
        UserError: Columns or types differ from the Pair schema, or messages carry keys besides role and content.
    """
    own = pa.schema([field for field in pairs.schema if field.name not in PAIR_TERMS.names])
    if not own.equals(Pair.SCHEMA):
        raise UserError(
            "This is not a table of pairs.",
            why=f"Its columns are: {', '.join(f'{f.name}: {f.type}' for f in pairs.schema)}.",
            fix="Use the table of a pair rule, or one of w2s_align.records.Pair.SCHEMA.",
        )


def dataset_card(
    pairs: pa.Table,
    facts: CardFacts,
    audit: Audit | None,
    counts: Counts | None,
    split: str,
    format: Format,
    rows: int,
) -> str:
    """Return the card of a dataset made of pairs as Markdown with a YAML header.

    Args:
        pairs: The pairs.
        facts: What they do not tell.
        audit: Shown when given.
        counts: Shown when given.
        split: Name of the split.
        format: What the rows of the dataset are.
        rows: How many of them there are.
    """
    models = sorted({*pairs["chosen_model"].unique().to_pylist(), *pairs["rejected_model"].unique().to_pylist()})
    licenses = [f"| {_cell(model)} | {_cell(facts.generator_licenses.get(model, 'not stated'))} |" for model in models]
    rules = ", ".join(sorted(pairs["rule"].unique().to_pylist()))
    parts = [
        _header(facts, format, split, rows),
        f"{rows:,} {WHAT[format].format(rules=rules)}\n",
        "```python\nfrom datasets import load_dataset\n\n"
        f'data = load_dataset("path/to/this/folder", split="{split}")\n```\n',
        "## Models that wrote the responses\n\n| model | license |\n|---|---|\n" + "\n".join(licenses) + "\n",
    ]
    if facts.made_by:
        parts.append(f"## How it was made\n\n{facts.made_by}\n")
    if several := several_turns(pairs):
        share = f"{several:,} of {pairs.num_rows:,} pairs"
        parts.append(
            f"## Responses of several turns\n\n{share} have a response of several turns, with messages of users or "
            "tools between those of the assistant. Learn the assistant's alone: TRL's trainers put the loss on "
            "everything after the prompt.\n"
        )
    if audit:
        parts.append(f"## Audit\n\n```text\n{str(audit).replace('```', '` ` `')}\n```\n")
    if counts:
        lines = "\n".join(f"| {_cell(name)} | {number:,} |" for name, number in counts.lines().items())
        parts.append(f"## Rows\n\n| rows | number |\n|---|---|\n{lines}\n")
    return "\n".join(parts)


def _header(facts: CardFacts, format: Format, split: str, rows: int) -> str:
    """Return the YAML header and the title of a card."""
    from huggingface_hub import DatasetCardData

    size = next((name for limit, name in _SIZES if rows < limit), "n>10M")
    header: dict[str, Any] = {
        "license": facts.license,
        "task_categories": ["text-generation"],
        "tags": TAGS[format],
        "size_categories": [size],
        "pretty_name": facts.name,
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}]}],
    }
    if facts.language:
        header["language"] = facts.language
    return f"---\n{DatasetCardData(**header).to_yaml()}\n---\n\n# {facts.name}\n"


def _cell(text: str) -> str:
    """Return text that cannot break out of a table cell: names in imported data are untrusted."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
