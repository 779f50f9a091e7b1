"""What the failures of vLLM to start mean for its user, and what to do about them."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from w2s_align.errors import UserError
from w2s_align.generation.models import ModelFiles

MEMORY_HINTS = (
    "kv cache",
    "cache blocks",
    "out of memory",
    "free memory on device",
    "memory utilization",
    "available memory",
)
"""Parts of vLLM's messages about too little memory; it raises ValueError and RuntimeError for many things."""


def explain(error: Exception, model: ModelFiles, options: dict[str, Any]) -> Exception:
    """Return a user's error for what vLLM raised, where the user can do something about it; else the error itself.

    Args:
        error: What vLLM raised.
        model: The model that it was to load.
        options: The arguments of the engine.
    """
    text = str(error)
    if any(hint in text.lower() for hint in MEMORY_HINTS):
        return UserError(
            f"vLLM does not have enough memory for {model.name}.",
            why=text.splitlines()[0],
            fix="Lower engine.max_model_len, raise resources.kv_cache_gib or resources.gpu_memory_utilization, "
            "spread the model with resources.tensor_parallel_size, or stop other processes that use memory.",
        )
    if "max_model_len" in text and options["max_model_len"] is not None:
        return UserError(
            f"vLLM does not accept max_model_len {options['max_model_len']} for {model.name}.",
            why=text.splitlines()[0],
            fix="Leave engine.max_model_len out, or give at most the model's own context.",
        )
    if "Engine core initialization failed" in text:
        return UserError(
            f"vLLM's engine process could not start with {model.name}.",
            why="See vLLM's own log above for the cause.",
            fix="If it is out of memory, lower engine.max_model_len or resources.gpu_memory_utilization, "
            "or raise resources.tensor_parallel_size.",
        )
    if model.adapter is not None and "lora" in text.lower():
        return UserError(
            f"vLLM cannot apply the adapter {model.name} to {model.adapter.base}.",
            why=text.splitlines()[0],
            fix="Merge it into its base (peft: merge_and_unload), or set engine.name: transformers.",
        )
    if isinstance(error, ValidationError | NotImplementedError):
        return UserError(
            f"vLLM does not accept these options for {model.name}.",
            why=" ".join(text.split())[:500],
            fix="Change or leave out the option named above, under engine or resources.",
        )
    if "architectures" in text and "not supported" in text:
        return UserError(
            f"vLLM does not support the architecture of {model.name}.",
            why=text.splitlines()[0],
            fix="Set engine.name: transformers, which is slower.",
        )
    return error
