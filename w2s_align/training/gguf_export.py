"""A model folder as one GGUF file, so that it can be tried in a local app (llama.cpp, Ollama, LM Studio).

Reads a merged model; writes the file with llama.cpp's own writer (the package gguf), opens it again with transformers
and compares weights and tokens. Of adapters and of models of other architectures nothing is written.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from w2s_align.errors import UserError, missing_package
from w2s_align.training.gguf import one_reader
from w2s_align.training.models import load_model, open_start
from w2s_align.training.quiet import quiet

Precision: TypeAlias = Literal["f32", "f16", "q8_0"]
"""How matrices are stored; norms and biases are always in 32 bits."""
ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""``model_type`` of the models that are written, with their names in gguf."""
LARGEST_ERROR = {"f32": 0.0, "f16": 1e-3, "q8_0": 0.02}
"""Largest difference of a stored weight to the model's, as a share of the largest weight of its matrix: half a unit in
the last place of 16 bits, and a step of 8 bits with its own scale per 32 weights, both with a margin."""
PROBE = "The 12 quick brown foxes, don't they\n\n  jump over 3,456 lazy dogs? Größe, 東京!"
"""A text that splits differently under the pre-tokenizers in use."""


@dataclass(frozen=True)
class ExportedModel:
    """A model that was exported.

    Attributes:
        file: Path of the GGUF file.
        precision: How its matrices are stored.
        tensors: Number of tensors.
        bytes: Size of the file.
        largest_error: Largest difference of a weight, as a share of the largest one of its matrix.
    """

    file: str
    precision: Precision
    tensors: int
    bytes: int
    largest_error: float


def export_gguf(
    model: str | os.PathLike[str], file: str | os.PathLike[str], precision: Precision = "f16", *, name: str = ""
) -> ExportedModel:
    """Write a model folder as a GGUF file, open it again and compare.

    Args:
        model: Folder of a merged model, or a hub id.
        file: The file to write.
        precision: How matrices are stored.
        name: Name of the model in the file. Default: that of its folder.

    Raises:
        UserError: The architecture or the tokenizer has no form in GGUF that is known here, or the file does not hold
            the model.
    """
    if importlib.util.find_spec("gguf") is None:
        raise missing_package("gguf", "gguf", "Writing a GGUF file")
    with quiet():
        start = open_start(model)
        config = load_config(start.path)
        _check_architecture(config, str(model))
        weights = {k: v.float().numpy() for k, v in load_model(start.path, "float32").state_dict().items()}
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        target = Path(file)
        tensors = _write(target, config, start.tokenizer, weights, precision, name or Path(start.path).name)
        error = _compare(target, weights, start.tokenizer, precision)
    return ExportedModel(str(target), precision, tensors, target.stat().st_size, error)


def load_config(model: str) -> Any:
    """Return the configuration of a model."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model, trust_remote_code=False)


def _check_architecture(config: Any, model: str) -> None:
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            f"{model} is a {config.model_type} model, which is not exported to GGUF here.",
            f"Exported are {', '.join(ARCHITECTURES)}.",
            "Use llama.cpp's own converter on the model's folder.",
        )
    if (kind := _rope(config).get("rope_type", "default")) != "default":
        raise UserError(
            f"{model} scales its positions ({kind}), which is not exported to GGUF here.",
            fix="Use llama.cpp's own converter on the model's folder.",
        )


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", 10_000.0)})


def _write(file: Path, config: Any, tokenizer: Any, weights: dict[str, Any], precision: Precision, name: str) -> int:
    """Write the file and return the number of its tensors."""
    import gguf
    import numpy as np

    arch = gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    kinds = gguf.GGMLQuantizationType
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    try:
        _describe(writer, config, name, precision)
        _add_tokenizer(writer, tokenizer, config.vocab_size)
        for key, value in weights.items():
            found = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if found is None:
                raise UserError(f"The tensor {key} has no name in GGUF.", fix="Use llama.cpp's own converter.")
            stored = _permuted(key, value, config)
            whole = stored.ndim < 2 or precision == "f32" or (precision == "q8_0" and stored.shape[-1] % 32)
            if whole:
                writer.add_tensor(found, np.ascontiguousarray(stored))
            elif precision == "f16":
                writer.add_tensor(found, stored.astype(np.float16))
            else:
                writer.add_tensor(found, gguf.quants.quantize(stored, kinds.Q8_0), raw_dtype=kinds.Q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return len(weights)


def _permuted(key: str, value: Any, config: Any) -> Any:
    """Return a matrix in the order of llama.cpp, whose Llama rotates neighboring entries of a head."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[part] for part in heads if f".{part}." in key), None)
    if config.model_type != "llama" or count is None:
        return value
    split = value.reshape(count, 2, value.shape[0] // count // 2, *value.shape[1:])
    return split.swapaxes(1, 2).reshape(value.shape)


def _describe(writer: Any, config: Any, name: str, precision: Precision) -> None:
    import gguf

    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", 10_000.0)))
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config.vocab_size)
    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[types[precision]])


def _add_tokenizer(writer: Any, tokenizer: Any, size: int) -> None:
    """Write a byte-level BPE tokenizer, its special tokens and the chat template.

    Raises:
        UserError: It is another kind of tokenizer, or splits texts in a way that llama.cpp has no name for here.
    """
    from gguf import TokenType

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = pre_tokenizer(described)
    if described["model"]["type"] != "BPE" or kind is None:
        raise UserError(
            "The model's tokenizer is not exported to GGUF here.",
            "Written are byte-level BPE tokenizers that split texts as GPT-2, Llama 3, Qwen2 or SmolLM do.",
            "Use llama.cpp's own converter on the model's folder.",
        )
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    added = {entry["id"]: bool(entry["special"]) for entry in described["added_tokens"]}
    tokens, types = [], []
    for index in range(size):
        tokens.append(vocabulary.get(index, f"[PAD{index}]"))
        special = TokenType.CONTROL if added.get(index) else TokenType.USER_DEFINED
        types.append(special if index in added else TokenType.NORMAL if index in vocabulary else TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = described["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    places: dict[str, Callable[[int], None]] = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id,
    }
    for place, add in places.items():
        index = getattr(tokenizer, f"{place}_token_id")
        if index is not None and index < size:  # a tokenizer's class may add tokens that the model has no row for
            add(index)
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(ids) and ids[0] == tokenizer.bos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def pre_tokenizer(described: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of the way in which a tokenizer splits texts, or None.

    Args:
        described: The content of its tokenizer.json.
    """
    steps = list(_steps(described.get("pre_tokenizer")))
    kinds = [step["type"] for step in steps]
    patterns = [step["pattern"].get("Regex", "") for step in steps if step["type"] == "Split"]
    if kinds == ["ByteLevel"]:
        return "gpt-2" if steps[0].get("use_regex", True) else None
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        return "llama-bpe" if r"\p{N}{1,3}" in patterns[0] else "qwen2" if r"|\p{N}|" in patterns[0] else None
    return None


def _steps(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if part is None:
        return
    if part["type"] == "Sequence":
        for inner in part["pretokenizers"]:
            yield from _steps(inner)
    else:
        yield part


def _compare(file: Path, weights: dict[str, Any], tokenizer: Any, precision: Precision) -> float:
    """Return the largest difference of a weight, after opening the file as others do.

    Raises:
        UserError: It does not hold the model.
    """
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with one_reader():
        opened = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        ).state_dict()
        read = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
    worst = 0.0
    for name, value in weights.items():
        scale = float(np.abs(value).max()) or 1.0
        error = float(np.abs(opened[name].numpy() - value).max()) / scale if name in opened else 1.0
        if error > LARGEST_ERROR[precision]:
            raise UserError(
                f"The tensor {name} in {file.name} differs from the model's by {error:.2g} of its largest weight.",
                fix="Use llama.cpp's own converter on the model's folder.",
            )
        worst = max(worst, error)
    ours = [tokenizer.convert_ids_to_tokens(i) for i in tokenizer(PROBE, add_special_tokens=False)["input_ids"]]
    theirs = [read.convert_ids_to_tokens(i) for i in read(PROBE, add_special_tokens=False)["input_ids"]]
    if len("".join(ours)) != len("".join(theirs)) or set(ours) - set(read.get_vocab()):
        raise UserError(f"The tokenizer in {file.name} is not the model's.", fix="Use llama.cpp's own converter.")
    return worst
