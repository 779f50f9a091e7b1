"""Find a model's files and read from them what generation must know, without loading a weight.

Reads a local folder, or a hub id through the hub's cache; writes nothing of its own. A LoRA adapter is a model like
any other: its base is found through its ``adapter_config.json`` (see ``adapters.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError
from w2s_align.generation.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Adapter,
    check_fit,
    open_adapter,
    read_header,
)

HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py"]
"""What is downloaded of a model on the hub: no pickles, no copies of the weights in other formats."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)
"""A folder with one of these has a tokenizer, in any of the formats that transformers loads."""

STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Names of dtypes in safetensors files, and in torch."""


@dataclass(frozen=True)
class ModelFiles:
    """A model in the ordinary Hugging Face layout, on this machine.

    Attributes:
        name: What the user called it: a folder or a hub id.
        folder: Where its files are; for an adapter, those of its base.
        config: ``config.json``.
        generation_config: ``generation_config.json``; empty when there is none.
        adapter: The LoRA adapter to put on the model, if any.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    adapter: Adapter | None = None

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of the tokenizer and the chat template: the adapter's, when it was saved with them."""
        if self.adapter is not None and any((self.adapter.folder / name).exists() for name in TOKENIZER_FILES):
            return self.adapter.folder
        return self.folder

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The part of the configuration that describes the language model (all of it, for a text-only model)."""
        return self.config.get("text_config") or self.config

    def stored_dtype(self) -> str:
        """Return the dtype that the weights are stored in: ``float32``, ``bfloat16`` or ``float16``.

        Engines are always given a dtype, because vLLM's ``auto`` casts float32 to half precision.
        """
        for config in (self.config, self.text_config):
            dtype = config.get("dtype") or config.get("torch_dtype")
            if dtype in STORED_DTYPES.values():
                return str(dtype)
        return self._dtype_of_weights()

    def _dtype_of_weights(self) -> str:
        header = read_header(min(self.folder.glob("*.safetensors")))
        dtypes = [STORED_DTYPES.get(tensor["dtype"]) for tensor in header.values()]
        return next((dtype for dtype in dtypes if dtype is not None), "bfloat16")

    def eos_token_ids(self) -> set[int]:
        """Return the ids that end a text according to ``generation_config.json`` and ``config.json``."""
        ids: set[int] = set()
        for config in (self.generation_config, self.text_config, self.config):
            eos = config.get("eos_token_id")
            ids.update([eos] if isinstance(eos, int) else eos or [])
        return ids

    def fingerprint(self) -> list[tuple[str, int, int]]:
        """Return path, size and time of each file: they change when the model in a folder is replaced."""
        folders = [self.folder] if self.adapter is None else [self.folder, self.adapter.folder]
        files = (path for folder in folders for path in sorted(folder.resolve().iterdir()) if path.is_file())
        stats = ((str(path), path.stat()) for path in files)
        return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def find_model(model: str | Path, revision: str | None = None, *, weights: bool = True) -> ModelFiles:
    """Return the files of a model.

    Args:
        model: A folder with ``config.json``, safetensors weights and a tokenizer; or a folder with a LoRA adapter
            (``adapter_config.json``), which names its base; or a hub id of either, such as
            ``Qwen/Qwen2.5-0.5B-Instruct``, taken from the hub's cache or downloaded into it.
        revision: Branch, tag or commit, for a hub id.
        weights: Whether they are needed; for a server's model, the tokenizer and the configuration are enough.

    Raises:
        UserError: There is no such folder or hub model, a file that is needed is not in it, or an adapter does not fit
            the base that it names.
    """
    name = str(model)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        looks_like_path = isinstance(model, Path) or name.startswith(("/", ".", "~")) or name.count("/") > 1
        if folder.exists():
            raise UserError(
                f"The model {name} is a file, not a folder.", fix="Give the folder that holds config.json."
            )
        if looks_like_path:
            raise UserError(f"There is no model folder {name}.", fix="Check the path, or give a hub id (owner/name).")
        folder = _from_hub(name, revision, weights)
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        return _with_base(name, folder, weights)
    config = _read_json(folder / "config.json")
    if config is None:
        raise UserError(
            f"The model folder {folder} has no config.json.",
            why="It is not a model in the Hugging Face layout.",
            fix=f"Give the folder that holds config.json and *.safetensors, or {ADAPTER_CONFIG} of a LoRA adapter.",
        )
    if weights and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"The model folder {folder} has no *.safetensors weights.",
            why="Other formats (pickled .bin files, GGUF) are not loaded.",
            fix="Save the model with save_pretrained() of a current transformers version.",
        )
    return ModelFiles(name, folder, config, _read_json(folder / "generation_config.json") or {})


def _with_base(name: str, folder: Path, weights: bool) -> ModelFiles:
    adapter = open_adapter(folder)
    try:
        base = find_model(adapter.base, adapter.base_revision, weights=weights)
    except UserError as error:
        raise UserError(
            f"The base model {adapter.base} of the adapter {name} was not found.",
            why=str(error),
            fix=f"If it has moved, correct base_model_name_or_path in {folder / ADAPTER_CONFIG}.",
        ) from error
    if base.adapter is not None:
        raise UserError(
            f"The base model {adapter.base} of the adapter {name} is an adapter itself.",
            fix="Merge that one into its base first, and name the merged model in base_model_name_or_path.",
        )
    if weights:
        check_fit(adapter, name, base.folder)
    return replace(base, name=name, adapter=adapter)


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = HUB_FILES if weights else [ADAPTER_WEIGHTS, *(p for p in HUB_FILES if p != "*.safetensors")]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds: no such id, gated, no network, offline mode
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name}{f' (revision {revision})' if revision else ''} is not a local folder and could not be downloaded "
            "from the hub.",
            why=f"{type(error).__name__}: {reason}",
            fix="Check the spelling and the network (HF_HUB_OFFLINE), log in with `hf auth login` for a gated model, "
            "or give a local folder.",
        ) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON.", why=str(error), fix="Download the model again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object.", fix="Download the model again.")
    return content
