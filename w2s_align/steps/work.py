"""What a step sees while it runs: its inputs as artifacts, the folder it writes into, and where to report progress."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.artifacts.artifact import Artifact

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Work:
    """One step at work.

    Attributes:
        name: Name of the node, for messages and for what records who made a row.
        out: Folder to write into; it becomes the artifact when the step ends. What is in it already was left by an
            earlier try that was killed, and is there to go on from.
        inputs: The artifacts that the step reads, by the place in its options that names them.
        sources: Names of the nodes behind ``inputs``, by the same places.
        recipe: The resolved recipe and the text it came from; only for steps that show it.
        progress: Report ``progress(done, total, note)``; cheap, call it often.
        counts: Rows in, kept and dropped by reason; fill it in.
        result: Anything else for ``artifact.json``, JSON-serializable; fill it in.
        warnings: Sentences for the user, shown at once and kept in the artifact.
        cache: Folder of the runs for what later steps may use again, whatever their key; None when there is none.
        shard: Number and count, when only this shard is to be made; see ``has_shards`` of a step.
    """

    name: str
    out: Path
    inputs: Mapping[str, Artifact]
    sources: Mapping[str, str]
    progress: Callable[[int, int, str], None]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cache: Path | None = None
    shard: tuple[int, int] | None = None

    @property
    def data(self) -> Path:
        """Folder for the Parquet files."""
        folder = self.out / "data"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, table: pa.Table, name: str) -> Path:
        """Write rows as ``data/<name>.parquet``."""
        import pyarrow.parquet as pq

        path = self.data / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd")
        return path

    def model(self, place: str, value: str) -> str:
        """Return the model that a field names: the folder of the step's model, or the value itself."""
        return str(self.inputs[place].model) if place in self.inputs else value


def in_words(counts: Mapping[str, int]) -> str:
    """Return counts as a user reads them, those that are not 0."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items() if count) or "no rows at all"


def merge_warnings(warnings: Iterable[tuple[str, str]]) -> list[str]:
    """Return warnings as lines; the seeds of one step, and the answers of its arms, say the same with other numbers.

    Args:
        warnings: Name of the node, and what it warned about.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, text in warnings:
        found.setdefault((re.split(r"[@/]", name)[0], re.sub(r"[\d.]+", "", text)), []).append(f"{name}: {text}")
    return [texts[0] + (f" (and {len(texts) - 1} more like it)" if texts[1:] else "") for texts in found.values()]
