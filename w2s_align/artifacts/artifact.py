"""What a step leaves: a folder with its data, and ``artifact.json``, written last, that says what made it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
                f"{path} is not a finished artifact.",
                why=f"There is no {MANIFEST} in it.",
                fix="Run the recipe again: it resumes where it stopped.",
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
                    why=f"{name} {'is missing' if now is None else f'has {now:,} bytes instead of {size:,}'}.",
                    fix=f"Delete {self.path} and run the recipe again: it is made again.",
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
