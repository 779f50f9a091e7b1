"""Shapes of models: what is needed to count parameters, memory and work without downloading anything.

Reads ``shapes.json`` (the models that shipped recipes name), a model folder's or the hub cache's ``config.json``.
Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent / "shapes.json"
"""Shapes of the models that shipped recipes name."""

PLAIN = "gpt2"
"""The architecture without gates, with biases and learned positions; its configuration has names of its own."""
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
}
"""What GPT-2 calls the entries of its configuration."""
QK_NORMS = {"qwen3": "head", "olmo2": "full", "olmo3": "full"}
"""Architectures that normalize queries and keys, per head or over the whole projection."""


@dataclass(frozen=True)
class Shape:
    """The architecture of a decoder-only model in numbers.

    Attributes:
        model: Hub id or folder that it belongs to.
        model_type: Architecture by its name in transformers.
        hidden_size: Width.
        intermediate_size: Width inside the feed-forward layers.
        layers: Number of layers.
        heads: Attention heads.
        kv_heads: Heads of keys and values (fewer than ``heads`` with grouped queries).
        head_dim: Width of a head.
        vocab_size: Rows of the embedding.
        tied: Whether the output head is the embedding.
        context: Longest sequence in tokens.
        dtype: Format that the weights are stored in.
    """

    model: str
    model_type: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    context: int
    dtype: str = "bfloat16"

    @classmethod
    def of(cls, model: str, config: Mapping[str, Any]) -> Shape | None:
        """Read a shape from the content of a ``config.json``; None unless it is a dense decoder of the usual kind."""
        config = config.get("text_config") or config
        if config.get("model_type") == PLAIN and "n_embd" in config:
            own = {name: config.get(theirs) for name, theirs in GPT2_NAMES.items()}
            inner = {"intermediate_size": config.get("n_inner") or 4 * config["n_embd"], "tie_word_embeddings": True}
            config = {**config, **own, **inner}
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            return cls(
                model=model,
                model_type=str(config["model_type"]),
                hidden_size=hidden,
                intermediate_size=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                vocab_size=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                context=int(config.get("max_position_embeddings") or 0),
                dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
            )
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def layer_parameters(self) -> int:
        """Number of weights of one layer: attention, gated feed-forward, norms and, in Qwen 2, biases."""
        if self.model_type == PLAIN:
            width, inner = self.hidden_size, self.intermediate_size
            return 4 * width * width + 2 * width * inner + 9 * width + inner
        width, queries, keys = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = width * queries * 2 + width * keys * 2
        biases = queries + 2 * keys if self.model_type == "qwen2" else 0
        norms = 2 * width + {"head": 2 * self.head_dim, "full": queries + keys}.get(
            QK_NORMS.get(self.model_type, ""), 0
        )
        return attention + biases + 3 * width * self.intermediate_size + norms

    @property
    def embedding_parameters(self) -> int:
        """Number of weights of the embedding alone."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """Number of all weights."""
        return (
            self.layers * self.layer_parameters
            + self.embedding_parameters * (1 if self.tied else 2)
            + self.hidden_size
            + (self.context * self.hidden_size + self.hidden_size if self.model_type == PLAIN else 0)
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights as they are stored."""
        return self.parameters * (4 if self.dtype == "float32" else 2)

    def lora_parameters(self, r: int) -> int:
        """Return the number of weights of a LoRA adapter of rank ``r`` on every linear layer but the output head."""
        width, queries, keys = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.model_type == PLAIN:  # queries, keys and values are one matrix
            return self.layers * r * (6 * width + 2 * (width + self.intermediate_size))
        sides = 2 * (width + queries) + 2 * (width + keys) + 3 * (width + self.intermediate_size)
        return self.layers * r * sides

    def kv_bytes(self, bytes_per_value: int = 2) -> int:
        """Return the bytes of keys and values of one token, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value

    def forward_flops(self, context: float) -> float:
        """Return the FLOPs of one token's forward pass: two per weight, and attention (arXiv 2001.08361, table 1).

        Args:
            context: Tokens that it attends to, on average.
        """
        weights = self.layers * self.layer_parameters + self.embedding_parameters
        return 2.0 * weights + 4.0 * self.layers * self.heads * self.head_dim * context


@cache
def _shipped() -> dict[str, Shape]:
    listed: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    found: dict[str, Shape] = {}
    for model, config in listed.items():
        config = listed[config["like"]] | config if "like" in config else config
        shape = Shape.of(model, config)
        assert shape is not None, model
        found[model] = shape
    return found


def shipped_shapes() -> Mapping[str, Shape]:
    """Return the shapes that come with the package, by hub id."""
    return _shipped()


def find_shape(model: str) -> Shape | None:
    """Return the shape of a model without a request to the hub.

    Args:
        model: A model folder, or a hub id: looked up in the local hub cache, then among the shipped shapes.

    Returns:
        The shape, or None when it is found in neither, or is not a dense decoder.
    """
    config = model_file(model, "config.json")
    if config is not None:
        try:
            shape = Shape.of(model, json.loads(config.read_text(encoding="utf-8")))
        except ValueError:
            shape = None
        if shape is not None:
            return shape
    return _shipped().get(model)


def model_file(model: str, name: str) -> Path | None:
    """Return a file of a model from its folder or the local hub cache; None when it is in neither."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if model.count("/") != 1:
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(model, name, cache_dir=constants.HF_HUB_CACHE)
    return Path(found) if isinstance(found, str) else None


def in_cache(model: str) -> bool:
    """Return whether a hub model's weights are in the local cache, so that nothing has to be downloaded."""
    config = model_file(model, "config.json")
    return config is not None and any(config.parent.glob("*.safetensors"))
