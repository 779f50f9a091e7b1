"""Atomic JSON files, disk errors in words, and versions of installed packages."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Write JSON so that a reader never sees half of it, and a power cut leaves the old or the new file.

    Args:
        path: The file.
        value: JSON-serializable content.
        sync: Wait until it is on the disk. Progress that is written many times a second does without.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def is_storage_error(error: BaseException) -> bool:
    """Say whether the disk refused to take more; libraries in C wrap the system's error into their own."""
    full = "No space left on device" in str(error) or "Disk quota exceeded" in str(error)
    return full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


@contextmanager
def storage_errors(root: Path, why: str = "") -> Iterator[None]:
    """Turn the errors of a disk that is full or cannot be written into a :class:`UserError` about ``root``.

    Args:
        root: The folder that is written to.
        why: What becomes of the work so far, e.g. that it is kept.

    Raises:
        UserError: The disk refuses to take more.
    """
    try:
        yield
    except OSError as error:
        if not is_storage_error(error):
            raise
        raise storage_error(error, root, why) from None


def storage_error(error: BaseException, path: Path, why: str = "") -> UserError:
    """Return in words why a file could not be written; ``why`` says what becomes of the work so far."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and is_storage_error(error)):
        return UserError(
            f"The disk that holds {path} is full.",
            why=why,
            fix="Free some space, or use another folder (--runs-dir), and run the same command again: it "
            "resumes where it stopped.",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            f"{path} cannot be written: {os.strerror(number)}.", fix="Use a folder that you can write to: --runs-dir."
        )
    return UserError(f"{path} cannot be written: {error}.", fix="Use another folder: --runs-dir.")


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None when it is not installed or its metadata is damaged."""
    try:
        return metadata.version(distribution) or None
    except (metadata.PackageNotFoundError, KeyError):
        return None
