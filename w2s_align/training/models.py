"""The model that training starts from, and how a trained one is saved.

Reads a model folder or a hub id; writes ``model/`` (safetensors, config, tokenizer with chat template, generation
config) and ``adapter/``. What was saved is checked by verify.py.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from w2s_align.errors import UserError
from w2s_align.training.settings import Lora

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Task: TypeAlias = Literal["generate", "reward"]
"""What a model is trained for."""


@dataclass(frozen=True)
class StartModel:
    """A model that training can start from.

    Attributes:
        path: Local folder, or the hub id, that its weights are loaded from.
        source: What the user gave: the same, or the adapter that was merged into ``path``.
        task: ``generate`` or ``reward`` (one score for a chat).
        tokenizer: Its tokenizer, with a chat template.
        generation_config: Its generation config; an empty one when it has none.
        dtype: Name of the dtype it is stored in, e.g. ``bfloat16``.
        parameters: Number of parameters.
        context: Longest sequence it was made for, in tokens; None when its config does not say.
        layers: Number of layers.
        width: Size of the hidden state.
    """

    path: str
    source: str
    task: Task
    tokenizer: PreTrainedTokenizerBase
    generation_config: GenerationConfig
    dtype: str
    parameters: int
    context: int | None
    layers: int
    width: int

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens at which its generation ends: those of its generation config and its tokenizer's EOS."""
        ids = self.generation_config.eos_token_id
        listed = [ids] if isinstance(ids, int) else list(ids or [])
        eos = self.tokenizer.eos_token_id
        return frozenset([*listed, *([eos] if isinstance(eos, int) else [])])

    def load(self, dtype: str = "float32", **kwargs: Any) -> PreTrainedModel:
        """Load its weights on the CPU in evaluation mode."""
        return load_model(self.path, dtype, self.task, **kwargs)


def open_start(model: str | os.PathLike[str], task: Task = "generate") -> StartModel:
    """Read everything about a start model but its weights.

    Args:
        model: A model folder or a hub id.
        task: What it is trained for.

    Raises:
        UserError: It does not exist, has no config or no tokenizer, is an adapter or quantised, or has no chat
            template.
    """
    path = str(model)
    if Path(path).is_dir():
        _check_folder(Path(path))
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The model {path} cannot be opened.",
            str(error).split("\n")[0],
            "Give a model folder, or a hub id that exists and that you may read.",
        ) from error
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"The model {path} is stored quantised.", "Training starts from full weights.", "Give the original model."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The model {path} has no usable tokenizer.",
            str(error).split("\n")[0],
            "Copy tokenizer.json and tokenizer_config.json of the model into its folder.",
        ) from error
    if not tokenizer.chat_template:
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
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:
        generation = GenerationConfig.from_model_config(config)
    dtype = str(config.dtype or "float32").removeprefix("torch.")
    text = config.get_text_config()
    return StartModel(
        path=path,
        source=path,
        task=task,
        tokenizer=tokenizer,
        generation_config=generation,
        dtype=dtype,
        parameters=_count_parameters(config),
        context=getattr(text, "max_position_embeddings", None),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
    )


def load_model(
    path: str | os.PathLike[str], dtype: str = "float32", task: Task = "generate", **kwargs: Any
) -> PreTrainedModel:
    """Load a model on the CPU in evaluation mode.

    Args:
        path: A model folder or a hub id.
        dtype: Name of the dtype to load it in.
        task: ``generate`` for a causal language model, ``reward`` for one score.
        **kwargs: For ``from_pretrained``.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    opened: Any = AutoModelForCausalLM
    if task == "reward":
        opened, kwargs = AutoModelForSequenceClassification, {"num_labels": 1, **kwargs}
    model: PreTrainedModel = opened.from_pretrained(str(path), dtype=dtype, **kwargs).eval()
    return model


def lora_config(lora: Lora, task: Task = "generate") -> Any:
    """Return the ``peft.LoraConfig`` of an adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type="CAUSAL_LM" if task == "generate" else "SEQ_CLS",
    )


def merge_start(adapter: Path, folder: Path) -> Path:
    """Make a start model of an adapter: its base, in the base's own precision, with the adapter merged into it.

    Args:
        adapter: Folder of a PEFT adapter.
        folder: Where the model goes; a whole one that is there already is used again.

    Raises:
        UserError: Its base is missing or is another one.
    """
    if (folder / "model").is_dir():
        return folder / "model"
    base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UserError(
            f"The adapter {adapter} does not say what its base is.",
            "Its adapter_config.json has no base_model_name_or_path.",
            "Write the base's hub id or folder there, or merge it yourself and give the merged model.",
        )
    start = open_start(base)
    _check_fits(start, adapter)
    save_model(merge_adapter(start, adapter), start, folder, start.dtype)
    return folder / "model"


def _check_fits(start: StartModel, adapter: Path) -> None:
    """Refuse an adapter of another base by the names and shapes of its tensors, without loading a model."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise UserError(
            f"The adapter {adapter} lacks {file.name}.",
            fix="Save it with model.save_pretrained(folder), as safetensors.",
        )
    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(start.path))
            fitting = get_peft_model(empty, PeftConfig.from_pretrained(str(adapter)))
            state = get_peft_model_state_dict(fitting, save_embedding_layers=False)
    except ValueError as error:  # none of its layers is there
        raise _no_fit(start, adapter, str(error).strip().splitlines()[0]) from None
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no dictionary, and cannot be iterated over
            has, wants = list(opened.get_slice(name).get_shape()), list(state[name].shape) if name in state else None
            if has != wants and (wants or "lora_" in name):  # whole layers may be saved beside the adapter
                why = "there is no such layer" if wants is None else f"there it must have {wants}"
                raise _no_fit(start, adapter, f"{name} has the shape {has}; {why}.")


def _no_fit(start: StartModel, adapter: Path, why: str) -> UserError:
    return UserError(
        f"The adapter {adapter} does not fit {start.source}.",
        why,
        "Give the base that it was made for in its adapter_config.json (base_model_name_or_path).",
    )


def save_model(
    model: Any, start: StartModel, out: Path, save_dtype: str, state: dict[str, torch.Tensor] | None = None
) -> None:
    """Write a trained model as ``out/model``, or its adapter, when it has one, as ``out/adapter``.

    Args:
        model: The trained model, or the ``PeftModel`` around it.
        start: What it was trained from; its tokenizer and generation config are kept as they are.
        out: Folder to write into.
        save_dtype: Name of the dtype of the written weights.
        state: The weights, where the processes that trained the model hold a part of them each.
    """
    import torch

    if hasattr(model, "peft_config"):
        adapter = out / "adapter"
        shutil.rmtree(adapter, ignore_errors=True)
        for config in model.peft_config.values():  # a merged start lives in the output folder; its source outlives it
            config.base_model_name_or_path = start.path
        # "auto" asks the hub for the base's vocabulary; the embeddings are not trained here.
        model.save_pretrained(str(adapter), save_embedding_layers=False, **({"state_dict": state} if state else {}))
        _check_adapter(adapter)
        return
    dtype = getattr(torch, save_dtype)
    if state is None:
        model = model.to(dtype)
    else:
        state = {name: value.to(dtype) for name, value in state.items()}
        model.config.dtype = dtype
    if start.task == "generate":
        model.generation_config = start.generation_config
    partial, folder = out / "model.partial", out / "model"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(partial), state_dict=state)
    start.tokenizer.save_pretrained(str(partial))
    partial.replace(folder)


def merge_adapter(start: StartModel, adapter: Path) -> Any:
    """Return the start model in float32 with an adapter merged into it.

    It is never merged into the copy that it was trained on, which may be in lower precision or in 4 bits.
    """
    from peft import PeftModel

    model = PeftModel.from_pretrained(start.load("float32"), str(adapter))
    return model.merge_and_unload(safe_merge=True)


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


def _check_adapter(adapter: Path) -> None:
    """Refuse an adapter that would change nothing, e.g. one that a sharded run saved empty (peft#2892)."""
    from safetensors.torch import load_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    moved = [name for name, value in tensors.items() if "lora_B" in name and bool(value.any())]
    if not moved:
        raise UserError(
            "The trained adapter changes nothing: every LoRA-B matrix is zero.",
            "Either no step had a usable learning rate, or the adapter was saved empty.",
            "Raise learning_rate (adapters usually need ten times that of full training) or the number of steps.",
        )


def _count_parameters(config: Any) -> int:
    """Count parameters without allocating them."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())
