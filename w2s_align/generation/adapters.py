"""LoRA adapters: what a PEFT folder says about itself, and whether it belongs to its base.

Reads ``adapter_config.json`` and the headers of safetensors files, no weights; writes nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's description of an adapter: a folder that has it, and no ``config.json``, is an adapter."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""PEFT's weights of an adapter."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as PEFT saves it.

    Attributes:
        folder: Where its files are.
        config: ``adapter_config.json``.
    """

    folder: Path
    config: Mapping[str, Any]

    @property
    def base(self) -> str:
        """Name of the model that it was trained on: a folder or a hub id."""
        return str(self.config["base_model_name_or_path"])

    @property
    def base_revision(self) -> str | None:
        """Branch, tag or commit of the base on the hub."""
        revision = self.config.get("revision")
        return None if revision is None else str(revision)

    @property
    def rank(self) -> int:
        """Largest rank of its matrices."""
        return max([int(self.config["r"]), *map(int, (self.config.get("rank_pattern") or {}).values())])


def open_adapter(folder: Path) -> Adapter:
    """Read what an adapter's folder says about it.

    Raises:
        UserError: It is not a LoRA adapter, has no safetensors weights, or does not name its base.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
    except ValueError as error:
        raise UserError(
            f"{folder / ADAPTER_CONFIG} is not valid JSON.", why=str(error), fix="Download or save the adapter again."
        ) from error
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(
            f"The adapter {folder} is of type {kind}.",
            why="Generation supports only LoRA adapters.",
            fix="Merge it into its base and give the merged model.",
        )
    if not config.get("base_model_name_or_path"):
        raise UserError(
            f"The adapter {folder} does not name its base.",
            fix=f"Set base_model_name_or_path in {folder / ADAPTER_CONFIG}.",
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"The adapter {folder} has no {ADAPTER_WEIGHTS}.",
            why="Pickled adapter_model.bin files are not loaded.",
            fix="Save it again with save_pretrained() of a current peft version.",
        )
    return Adapter(folder, config)


def check_fit(adapter: Adapter, name: str, base: Path) -> None:
    """Check that the shapes of an adapter's matrices fit the weights that they change.

    A base that stores its weights quantized has other shapes and is not checked.

    Args:
        adapter: The adapter.
        name: What the user called it.
        base: Folder of the base.

    Raises:
        UserError: The adapter was trained on another model.
    """
    if "quantization_config" in json.loads((base / "config.json").read_text()):
        return
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for file in base.glob("*.safetensors"):
        for weight, tensor in read_header(file).items():
            shapes.setdefault(_place(weight.removesuffix(".weight")), set()).add(tuple(tensor["shape"]))
    for module, shape in _changed(adapter):
        known = shapes.get(_place(module), set())
        if shape not in known and shape[::-1] not in known:  # GPT-2's layers are transposed (Conv1D)
            found = f"the base has {' or '.join(map(str, sorted(known)))}" if known else "the base has no such layer"
            raise UserError(
                f"The adapter {name} was not trained on {adapter.base}, which it names as its base.",
                why=f"It changes {module} of shape {shape}, but {found}.",
                fix=f"Set base_model_name_or_path in {adapter.folder / ADAPTER_CONFIG} to the model it belongs to.",
            )


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return dtype and shape of each tensor in a safetensors file, by its name.

    Raises:
        UserError: It is not a safetensors file.
    """
    try:
        with path.open("rb") as file:  # its length as 8 bytes, then JSON
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except (ValueError, struct.error, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is damaged.", why=f"It does not begin like a safetensors file: {error}") from error
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _changed(adapter: Adapter) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each linear layer that an adapter changes, with its shape (out, in)."""
    header = read_header(adapter.folder / ADAPTER_WEIGHTS)
    for name, tensor in header.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            width = header[name.replace(".lora_A.", ".lora_B.")]["shape"][0]
            yield module, (width, tensor["shape"][1])


def _place(module: str) -> str:
    """A layer's name from its number on: what stands before differs between versions of transformers."""
    _, layers, rest = module.rpartition("layers.")
    return layers + rest
