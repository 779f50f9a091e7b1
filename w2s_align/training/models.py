"""The model that training starts from, and how a trained one is saved.

Reads a model folder or a hub id; writes ``model/`` (safetensors, config, tokenizer with chat template, generation
config) and ``adapter/``. What was saved is checked by verify.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Head:
    """What a model ends in.

    Attributes:
        auto_class: Class of transformers that opens such a model.
        peft_task: Its name in PEFT's ``TaskType``.
        pipeline_tag: Its tag on the hub.
        labels: Number of outputs; None for one per token of the vocabulary.
        config: Entries of the model's configuration that say what the outputs mean, and how the input is read.
        chats: Whether a chat template renders the input.
    """

    auto_class: str
    peft_task: str
    pipeline_tag: str
    labels: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    chats: bool = True


LM_HEAD = Head("AutoModelForCausalLM", "CAUSAL_LM", "text-generation")
"""The next token's logits."""
SCORE_HEAD = Head("AutoModelForSequenceClassification", "SEQ_CLS", "text-classification", labels=1)
"""One score for a chat."""
CLASS_HEAD = Head("AutoModelForSequenceClassification", "SEQ_CLS", "text-classification", labels=2)
"""One score for each class; how many there are is a setting."""


@dataclass(frozen=True)
class StartModel:
    """A model that training can start from.

    Attributes:
        path: Local folder, or the hub id, that its weights are loaded from.
        source: What the user gave: the same, or an adapter.
        head: What it ends in.
        tokenizer: Its tokenizer, with a chat template.
        generation_config: Its generation config; an empty one when it has none.
        dtype: Name of the dtype it is stored in, e.g. ``bfloat16``.
        parameters: Number of parameters.
        context: Longest sequence it was made for, in tokens; None when its config does not say.
        layers: Number of layers.
        width: Size of the hidden state.
        adapter: Folder of the adapter on ``path`` that training goes on with; None where an adapter was merged into
            ``path``, or none was given.
    """

    path: str
    source: str
    head: Head
    tokenizer: PreTrainedTokenizerBase
    generation_config: GenerationConfig
    dtype: str
    parameters: int
    context: int | None
    layers: int
    width: int
    adapter: str | None = None

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens at which its generation ends: those of its generation config and its tokenizer's EOS."""
        ids = self.generation_config.eos_token_id
        listed = [ids] if isinstance(ids, int) else list(ids or [])
        eos = self.tokenizer.eos_token_id
        return frozenset([*listed, *([eos] if isinstance(eos, int) else [])])

    def load(self, dtype: str = "float32", **kwargs: Any) -> PreTrainedModel:
        """Load its weights on the CPU in evaluation mode, with its adapter merged into them.

        A score is read at the last token that is no padding: the configuration must name that token.
        """
        model = load_model(self.path, "float32" if self.adapter else dtype, self.head, **kwargs)
        if self.adapter is not None:
            import torch
            from peft import PeftModel

            merged: Any = PeftModel.from_pretrained(model, self.adapter).merge_and_unload(safe_merge=True)
            model = merged.to(getattr(torch, dtype)).eval()
        if self.head.labels is not None and self.tokenizer.pad_token_id is not None:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        return model


def open_start(model: str | os.PathLike[str], head: Head = LM_HEAD) -> StartModel:
    """Read everything about a start model but its weights.

    Args:
        model: A model folder or a hub id.
        head: What it ends in, or is to end in.

    Raises:
        UserError: It does not exist, has no config or no tokenizer, is an adapter or quantized, or has no chat
            template.
    """
    path = str(model)
    if Path(path).is_dir():
        _check_folder(Path(path))
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The model {path} cannot be opened.",
            str(error).split("\n")[0],
            "Give a model folder, or a hub id that exists and that you may read.",
        ) from error
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"The model {path} is stored quantized.", "Training starts from full weights.", "Give the original model."
        )
    tokenizer = _open_tokenizer(path, head.chats)
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:
        generation = GenerationConfig.from_model_config(config)
    dtype = str(config.dtype or "float32").removeprefix("torch.")
    text = config.get_text_config()
    return StartModel(
        path=path,
        source=path,
        head=head,
        tokenizer=tokenizer,
        generation_config=generation,
        dtype=dtype,
        parameters=_count_parameters(config),
        context=getattr(text, "max_position_embeddings", None),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
    )


def _open_tokenizer(path: str, chats: bool) -> PreTrainedTokenizerBase:
    """Open a tokenizer that can turn chats (or plain texts) into tokens and end them."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The model {path} has no usable tokenizer.",
            str(error).split("\n")[0],
            "Copy tokenizer.json and tokenizer_config.json of the model into its folder.",
        ) from error
    if chats and not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer of {path} has no chat template.",
            "Data are chats; without a template they cannot be turned into tokens.",
            "Start from an instruction-tuned model, or put a chat_template.jinja into the model's folder.",
        )
    if tokenizer.eos_token is None:
        raise UserError(
            f"The tokenizer of {path} has no EOS token.",
            "Batches could not be padded, and answers would have no end.",
            "Set eos_token in its tokenizer_config.json.",
        )
    opened: PreTrainedTokenizerBase = tokenizer
    return opened


def load_model(
    path: str | os.PathLike[str], dtype: str = "float32", head: Head = LM_HEAD, **kwargs: Any
) -> PreTrainedModel:
    """Load a model on the CPU in evaluation mode.

    Args:
        path: A model folder or a hub id.
        dtype: Name of the dtype to load it in.
        head: What it ends in.
        **kwargs: For ``from_pretrained``.
    """
    import transformers

    if head.labels is not None:
        kwargs = {"num_labels": head.labels, **kwargs}
    if head.config:
        config = transformers.AutoConfig.from_pretrained(str(path), trust_remote_code=False)
        for name, value in head.config.items():
            setattr(config, name, value)
        kwargs = {"config": config, **{name: value for name, value in kwargs.items() if name != "num_labels"}}
    auto_class: Any = getattr(transformers, head.auto_class)
    model: PreTrainedModel = auto_class.from_pretrained(
        str(path), dtype=dtype, trust_remote_code=False, **kwargs
    ).eval()
    return model


def weights_digest(model: str | os.PathLike[str]) -> str:
    """Return a digest of a model's weights and configuration: of the files' content, wherever they are.

    The hub's cache names each large file after its SHA-256, so that it need not be read.

    Args:
        model: A folder, also of an adapter, or a hub id that the local cache holds.
    """
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(model), allow_patterns=["*.safetensors", "config.json"]))
    digest = hashlib.sha256()
    config = "config.json" if (folder / "config.json").is_file() else "adapter_config.json"
    for file in sorted([*folder.glob("*.safetensors"), folder / config]):
        stored = file.resolve().name
        if not re.fullmatch(r"[0-9a-f]{64}", stored):
            with file.open("rb") as content:
                stored = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.name}\0{stored}\n".encode())
    return digest.hexdigest()


def save_model(
    model: Any, start: StartModel, out: Path, save_dtype: str, state: dict[str, torch.Tensor] | None = None
) -> None:
    """Write a trained model as ``out/model``.

    Args:
        model: The trained model.
        start: What it was trained from; its tokenizer and generation config are kept as they are.
        out: Folder to write into.
        save_dtype: Name of the dtype of the written weights.
        state: The weights, where the processes that trained the model hold a part of them each.
    """
    import torch

    dtype = getattr(torch, save_dtype)
    if state is None:
        model = model.to(dtype)
    else:
        state = {name: value.to(dtype) for name, value in state.items()}
        model.config.dtype = dtype
    if start.head == LM_HEAD:
        model.generation_config = start.generation_config
    partial, folder = out / "model.partial", out / "model"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(partial), state_dict=state)
    start.tokenizer.save_pretrained(str(partial))
    partial.replace(folder)


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise UserError(
            f"{folder} is an adapter, not a model.",
            "The reference of a training is the model it starts from, which an adapter alone is not.",
            "Give it as the model of a training: it is merged into its base first.",
        )
    missing = [name for name in ("config.json",) if not (folder / name).exists()]
    if not list(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        missing.append("tokenizer.json")
    if missing:
        raise UserError(
            f"The model folder {folder} lacks {', '.join(missing)}.",
            "A start model has weights as safetensors, a config and a tokenizer.",
            "Save it with model.save_pretrained(folder) and tokenizer.save_pretrained(folder).",
        )


def _count_parameters(config: Any) -> int:
    """Count parameters without allocating them."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())
