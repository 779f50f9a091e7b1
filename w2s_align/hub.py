"""Push a folder to the Hugging Face hub, private by default.

Reads a folder and the token (HF_TOKEN, or `hf auth login`). Files that the hub already has with the same content are
not sent again, so that an interrupted push resumes, and a repeated one changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from w2s_align.errors import UserError


def check_push(repository: str) -> None:
    """Refuse a push that cannot work, before anything is made.

    Args:
        repository: ``owner/name`` on the hub.

    Raises:
        UserError: The name is not valid, the machine is set offline, or there is no token.
    """
    from huggingface_hub import constants, get_token

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repository):
        raise UserError(f"{repository} is not the name of a repository on the hub.", fix="Write owner/name.")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"Cannot push to {repository}: HF_HUB_OFFLINE is set.", fix="Unset it for this command.")
    if not get_token():
        raise UserError(
            f"Cannot push to {repository} without a token.",
            why="The environment variable HF_TOKEN is not set, and nobody is logged in.",
            fix="Create a token with write access at https://huggingface.co/settings/tokens, then export HF_TOKEN=...",
        )


def push_folder(
    folder: Path,
    repository: str,
    kind: Literal["model", "dataset"],
    *,
    private: bool = True,
    files: Sequence[str] | None = None,
    message: str = "Upload",
) -> str:
    """Upload a folder as one commit; the repository is created if it does not exist.

    Args:
        folder: What is uploaded; links are followed.
        repository: ``owner/name`` on the hub.
        kind: What the repository holds.
        private: Whether only its owner may see a new repository. If this is set, an existing public repository is
            refused, so that nothing private becomes public by accident.
        files: Patterns of the files that are uploaded. Default: all.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        UserError: See :func:`check_push`; or the hub refuses the push or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_push(repository)
    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repository, repo_type=kind).private:
            raise UserError(
                f"{repository} exists and is public.",
                why="The push is meant to be private.",
                fix="Make it private on the hub, choose another name, or set private: false.",
            )
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type=kind,
            allow_patterns=None if files is None else list(files),
            delete_patterns=["data/*.parquet", "model*.safetensors"],  # left of an earlier version with more files
            commit_message=message,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no reply"
        raise UserError(
            f"The hub refuses the push to {repository}: {_reason(error)} ({status}).",
            fix=f"Check that the token may write to {repository.split('/')[0]}."
            if status in (401, 403, 404)
            else "Run the same command again; it resumes with what is missing.",
        ) from None
    except OSError as error:
        raise _unreachable(repository, error) from None
    except Exception as error:  # the HTTP library has many error classes, and the hub's client changed it
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise _unreachable(repository, error) from None
    return str(commit.commit_url)


def _unreachable(repository: str, error: Exception) -> UserError:
    return UserError(
        f"The hub could not be reached to push to {repository}: {type(error).__name__}.",
        fix="Check the network, then run the same command again; it resumes with what is missing.",
    )


def _reason(error: Exception) -> str:
    """Return the hub's message, without the request that it repeats."""
    said = getattr(error, "server_message", None) or str(error).splitlines()[0]
    return str(said).strip().rstrip(".")
