"""What a step leaves: a folder with its data, and ``artifact.json``, written last, that says what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.artifacts.identity import file_digest
from w2s_align.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "artifact.json"
ROWS = {"pairs": "train", "dataset": "train"}
"""Names of the files with the rows of an artifact, where it is not that of its type: a split, as TRL expects."""


SEAL = "seal"
"""Where the manifest holds the digest of its own content."""
NEEDED = {"kind": str, "type": str, "key": str, "inputs": dict}
"""What every manifest holds, and as which type."""


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
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"{MANIFEST} is not readable: {error}.") from None
        if not isinstance(manifest, dict):
            raise _damaged(path, f"{MANIFEST} does not hold a mapping.")
        wrong = [name for name, kind in NEEDED.items() if not isinstance(manifest.get(name), kind)]
        if wrong:
            raise _damaged(path, f"{MANIFEST} does not say its {', '.join(wrong)}.")
        return cls(path.resolve(), manifest)

    def whole(self) -> Artifact:
        """Return the artifact itself, if its files have the sizes that they were written with.

        Raises:
            UserError: One is missing or of another size: deleted by hand, or cut short by a copy.
        """
        files = self.manifest.get("files", {})
        if not isinstance(files, dict):
            raise _damaged(self.path, f"{MANIFEST} does not say its files.")
        for name, size in files.items():
            path = self.path / name
            now = path.stat().st_size if path.is_file() else None
            if now != size:
                found = "is missing" if now is None else f"has {now:,} bytes instead of {size:,}"
                raise _damaged(self.path, f"{name} {found}.")
        return self

    @property
    def has_digests(self) -> bool:
        """Whether the digests of its files are known; earlier versions noted sizes alone."""
        return isinstance(self.manifest.get("sha256"), dict)

    def verify(self, chosen: Callable[[str], bool] = lambda name: True) -> Artifact:
        """Return the artifact itself, if its manifest and files have the digests that they were written with.

        Args:
            chosen: Which files are read, by their path below the folder. Sizes are always compared.

        Raises:
            UserError: One has changed.
        """
        self.whole()
        if not self.has_digests:
            return self
        if self.manifest.get(SEAL) != seal(self.manifest):
            raise _damaged(self.path, f"{MANIFEST} has changed since it was written.")
        for name, digest in self.manifest["sha256"].items():
            if chosen(name) and file_digest(self.path / name) != digest:
                raise _damaged(self.path, f"{name} has changed since it was written.")
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
            raise _damaged(self.path, f"data/{name}*.parquet is missing.")
        return files

    def table(self, name: str | None = None) -> pa.Table:
        """Read all rows of the artifact; see :meth:`files`."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        try:
            return ds.dataset([str(f) for f in self.files(name)], format="parquet").to_table()
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, f"Its rows are not readable: {str(error)[:200]}") from None

    def text(self, name: str) -> str:
        """Return the content of a file with numbers that are shown.

        Raises:
            UserError: It has changed since it was written.
        """
        try:
            return (self.verify(lambda file: file == name).path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(self.path, f"{name} is not readable: {error}.") from None

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


def seal(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a manifest's content, without the seal itself."""
    content = json.dumps({name: value for name, value in manifest.items() if name != SEAL}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged.", why=why, fix=f"Delete {path} and run the recipe again: it is made again.")
