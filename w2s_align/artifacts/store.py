"""The artifact store: folders that appear whole or not at all, and that two processes never make at the same time.

<root>/artifacts/<kind>/<key>/            a finished artifact
<root>/artifacts/<kind>/<key>.partial/    one being made, or left by a killed process, to go on from
<root>/locks/<kind>-<key>                 held by the process that makes it; freed by the system when it dies
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from w2s_align.artifacts.artifact import MANIFEST, SEAL, Artifact, seal
from w2s_align.artifacts.identity import file_digest
from w2s_align.errors import UserError
from w2s_align.files import storage_error, write_json


class Store:
    """All artifacts below one folder.

    Args:
        root: Folder of the runs; it is made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path(self, kind: str, key: str) -> Path:
        """Return where an artifact is, or will be."""
        return self.root / "artifacts" / kind / key

    def partial(self, kind: str, key: str) -> Path:
        """Return the folder in which an artifact is made."""
        return self.root / "artifacts" / kind / f"{key}.partial"

    def find(self, kind: str, key: str) -> Artifact | None:
        """Return an artifact if it is finished."""
        path = self.path(kind, key)
        return Artifact.open(path) if (path / MANIFEST).is_file() else None

    def refresh(self) -> None:
        """List the folders of artifacts, so that an NFS client sees what other machines have just made.

        It remembers for up to a minute that a file was missing, but asks the server when a folder is opened (nfs(5),
        close-to-open consistency).
        """
        for folder in (self.root / "artifacts").glob("*"):
            list(folder.iterdir())

    def require_writable(self) -> None:
        """Refuse a folder that cannot be written, before any work is done.

        Raises:
            UserError: With the way out.
        """
        probe = self.root / f".probe-{os.getpid()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_text("x")
            probe.unlink()
        except OSError as error:
            raise storage_error(error, self.root) from None

    @contextmanager
    def lock(self, kind: str, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the right to make an artifact; a twin in another process waits here.

        On a folder that machines share, the file system has to pass locks on between them, as NFS (from version 4,
        or with its lock daemon), Lustre mounted with ``flock``, GPFS, CephFS and BeeGFS do; `w2s doctor` looks.

        Args:
            kind: Kind of the step.
            key: Key of the artifact.
            waiting: Called once when another process holds the lock.

        Raises:
            UserError: The file system has no locks.
        """
        path = self._lock_file(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                raise UserError(
                    f"The file system of {self.root} does not support locks: {os.strerror(error.errno)}.",
                    "Locks keep two processes from making the same artifact.",
                    "Mount it with locks (Lustre: -o flock; NFS: without nolock), or use another folder: --runs-dir.",
                ) from None
            yield

    def is_held(self, kind: str, key: str) -> bool:
        """Say whether a process, on any machine that shares locks with this one, is making an artifact."""
        try:
            with self._lock_file(kind, key).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _lock_file(self, kind: str, key: str) -> Path:
        return self.root / "locks" / f"{kind}-{key}"

    def commit(self, kind: str, key: str, manifest: Mapping[str, Any]) -> Path:
        """Turn the partial folder into the artifact: manifest last, then one rename.

        Returns:
            The artifact's folder.
        """
        partial, path = self.partial(kind, key), self.path(kind, key)
        files = _files(partial)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        digests = {name: file_digest(path) for name, path in files.items()}
        content = json.loads(json.dumps({**manifest, "files": sizes, "sha256": digests}))  # as it will be read
        write_json(partial / MANIFEST, {**content, SEAL: seal(content)})
        if path.exists():  # without a manifest, so no artifact: somebody else's left-over
            shutil.rmtree(path)
        partial.rename(path)
        _sync(path.parent)
        return path


def _files(folder: Path) -> dict[str, Path]:
    """Return every file but logs and the manifest by its name in the manifest; see :meth:`.Artifact.whole`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".txt")
    return {name: path for path in files if (name := str(path.relative_to(folder))) != MANIFEST}


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
