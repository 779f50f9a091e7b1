"""What a step sees while it runs: its inputs as artifacts, the folder it writes into, and where to report progress.

An artifact is a folder: its data, and ``artifact.json``, written last, that says what made it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "artifact.json"
ROWS = {"pairs": "train", "dataset": "train"}
"""Names of the files with the rows of an artifact, where it is not that of its type: a split, as TRL expects."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact, opened for reading.

    Attributes:
        path: Its folder.
        manifest: The content of its ``artifact.json``.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Artifact:
        """Open the artifact in a folder.

        Raises:
            UserError: The folder holds no finished artifact.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path} holds no finished artifact.",
                why=f"There is no {MANIFEST} in it.",
                fix="Run the recipe again: it goes on from where it was.",
            ) from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path / MANIFEST} is damaged: {error}.", fix=f"Delete {path} and run again.") from None
        return cls(path.resolve(), manifest)

    def whole(self) -> Artifact:
        """Return the artifact itself, if its files have the sizes that they were written with.

        Raises:
            UserError: One is missing or of another size: deleted by hand, or cut short by a copy.
        """
        for name, size in self.manifest.get("files", {}).items():
            path = self.path / name
            now = path.stat().st_size if path.is_file() else None
            if now != size:
                raise UserError(
                    f"{self.path} is damaged.",
                    why=f"{name} {'is missing' if now is None else f'has {now:,} bytes in place of {size:,}'}.",
                    fix=f"Delete {self.path} and run the recipe again: it is made anew.",
                )
        return self

    @property
    def kind(self) -> str:
        """Kind of the step that made it."""
        return str(self.manifest["kind"])

    @property
    def type(self) -> str:
        """What it holds: prompts, responses, scores, pairs, model, results, report."""
        return str(self.manifest["type"])

    @property
    def key(self) -> str:
        """Digest of everything that can change its content."""
        return str(self.manifest["key"])

    @property
    def model(self) -> Path:
        """Folder of the model in Hugging Face format."""
        return self.path / "model"

    def files(self, name: str | None = None) -> list[Path]:
        """Return the Parquet files with the rows of the artifact.

        Args:
            name: Files ``data/<name>*.parquet``; by default those with its rows.
        """
        name = name or ROWS.get(self.type, self.type)
        files = sorted((self.path / "data").glob(f"{name}*.parquet"))
        if not files:
            raise FileNotFoundError(f"{self.path}/data has no {name}*.parquet")
        return files

    def table(self, name: str | None = None) -> pa.Table:
        """Read all rows of the artifact; see :meth:`files`."""
        import pyarrow.dataset as ds

        return ds.dataset([str(f) for f in self.files(name)], format="parquet").to_table()

    def inputs(self) -> Iterator[tuple[str, Artifact]]:
        """Yield what it was made from, by the place that read it."""
        root = self.path.parent.parent
        for place, made_by in self.manifest["inputs"].items():
            yield place, Artifact.open(root / made_by["kind"] / made_by["key"])

    def input(self, place: str) -> Artifact:
        """Return the artifact that was read at ``place``."""
        made_by = self.manifest["inputs"][place]
        return Artifact.open(self.path.parent.parent / made_by["kind"] / made_by["key"])

    def prompts(self) -> Artifact:
        """Return the prompts behind responses, also when another step has changed these."""
        return self.input("prompts") if "prompts" in self.manifest["inputs"] else self.input("responses").prompts()


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
        result: Anything else for ``artifact.json``, JSON-serialisable; fill it in.
        warnings: Sentences for the user, shown at once and kept in the artifact.
        cache: Folder of the runs for what later steps may use again, whatever their key; None when there is none.
        part: Number and count, when only this part is to be made; see :attr:`~.step.Step.has_parts`.
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
    part: tuple[int, int] | None = None

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
