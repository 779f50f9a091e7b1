"""What is outside a recipe and changes what it makes: files, folders, hub revisions, library versions.

A key must change when any of these does, and must not change with a path or a date.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError


def looks_local(value: str) -> bool:
    """Say whether a model or data source is meant as a path: it exists, or is written like one."""
    return value.startswith((".", "/", "~")) or Path(value).expanduser().exists()


def model_name(model: str) -> str:
    """Return how a model that no step made is called in artifacts: its hub id, or the name of its folder."""
    return Path(model).expanduser().resolve().name if looks_local(model) else model


def model_identity(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return what identifies the content of a model that no step made.

    Args:
        model: Folder, or hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        UserError: The folder is missing, or holds no model.
    """
    if looks_local(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise UserError(f"There is no model folder {model}.", fix="Use a folder with a config.json, or a hub id.")
        if (folder / "config.json").is_file():
            return {"folder": folder_digest(folder)}
        if (folder / "adapter_config.json").is_file():
            return {"folder": folder_digest(folder), "base": _base_identity(folder)}
        raise UserError(f"{model} is not a model: it has no config.json.")
    return {"hub": model, "revision": hub_revision(model, "model", revision)}


def _base_identity(adapter: Path) -> dict[str, Any] | None:
    """Return the identity of the model that an adapter was trained on; generation says what is wrong with a None."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
    except json.JSONDecodeError:
        return None
    base = config.get("base_model_name_or_path")
    return model_identity(base, config.get("revision")) if base else None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return a digest over the names and contents of a folder's files.

    A weight file is read once: its digest is remembered under its path, size and time of change.
    """
    known_path = _cache_folder() / "digests.json"
    known: dict[str, str] = json.loads(known_path.read_text()) if known_path.is_file() else {}
    digest, fresh = hashlib.sha256(), False
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        stat = path.stat()
        mark = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if mark not in known:
            known[mark] = file_digest(path)
            fresh = True
        digest.update(f"{path.relative_to(folder)}\0{known[mark]}\n".encode())
    if fresh:
        _remember(known_path, known)
    return digest.hexdigest()


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "w2s_align"


def _remember(path: Path, known: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(known))
        temporary.replace(path)
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else


@cache
def hub_revision(repository: str, repo_type: str, revision: str | None) -> str | None:
    """Return the commit that a hub repository stands at, from the hub or, offline, from the local cache.

    Returns:
        The commit; None when neither knows it: then the step itself will say what is missing.
    """
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        # No network, no such repository, no access: each comes as another class, some from the HTTP library. The local
        # cache may know the repository all the same.
        with contextlib.suppress(Exception):
            return HfApi().repo_info(repository, repo_type=repo_type, revision=revision, timeout=10).sha
    folder = Path(constants.HF_HUB_CACHE) / f"{repo_type}s--{repository.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    if ref.is_file():
        return ref.read_text().strip()
    return revision
