"""Low-rank adapters: as a start that is merged first, while they train, and merged into what is saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.training.models import LM_HEAD, Head, StartModel, open_start, save_model
from w2s_align.training.settings import Lora

if TYPE_CHECKING:
    import torch


def lora_config(lora: Lora, head: Head = LM_HEAD) -> Any:
    """Return the ``peft.LoraConfig`` of an adapter on a model with this head."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type=head.peft_task,
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
            empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(start.path, trust_remote_code=False))
            fitting = get_peft_model(empty, PeftConfig.from_pretrained(str(adapter)))
            state = get_peft_model_state_dict(fitting, save_embedding_layers=False)
    except ValueError as error:  # none of its layers is there
        raise _no_fit(start, adapter, str(error).strip().splitlines()[0]) from None
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - not a dictionary; it cannot be iterated over
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


def save_adapter(model: Any, start: StartModel, out: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained adapter of a model as ``out/adapter``.

    Args:
        model: The ``PeftModel``.
        start: Its base.
        out: Folder to write into.
        state: The adapter's weights, where the processes that trained it hold a part of them each.

    Raises:
        UserError: The adapter would change nothing.
    """
    adapter = out / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    for config in model.peft_config.values():  # a merged start lives in the output folder; its source outlives it
        config.base_model_name_or_path = start.path
    # "auto" asks the hub for the base's vocabulary; the embeddings are not trained here.
    model.save_pretrained(str(adapter), save_embedding_layers=False, **({"state_dict": state} if state else {}))
    _check_moved(adapter)


def merge_adapter(start: StartModel, adapter: Path) -> Any:
    """Return the start model in float32 with an adapter merged into it.

    It is never merged into the copy that it was trained on, which may be in lower precision or in 4 bits.
    """
    from peft import PeftModel

    model = PeftModel.from_pretrained(start.load("float32"), str(adapter))
    return model.merge_and_unload(safe_merge=True)


def _check_moved(adapter: Path) -> None:
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
