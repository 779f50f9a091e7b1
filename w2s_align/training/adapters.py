"""Low-rank adapters: as a start that is merged first or goes on, while they train, and merged into what is saved."""

from __future__ import annotations

import dataclasses
import json
import os
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


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter and no model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def adapter_folder(model: str | os.PathLike[str]) -> Path | None:
    """Return the folder of the adapter that a start is, fetched where it is one of the hub; None for a model.

    Args:
        model: A folder or a hub id.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder if is_adapter(folder) else None
    from transformers.utils import cached_file
    from transformers.utils.peft_utils import find_adapter_config_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    try:
        if cached_file(str(model), "config.json", **quiet) or find_adapter_config_file(str(model)) is None:
            return None
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(model), allow_patterns=["adapter_*"]))
    except (OSError, ValueError):  # it does not exist, or may not be read: opening the model says so
        return None


def lora_of(adapter: Path) -> Lora:
    """Return the settings of an adapter.

    Args:
        adapter: Its folder.

    Raises:
        UserError: It is another kind of adapter than LoRA.
    """
    found = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if found.get("peft_type", "LORA") != "LORA":
        raise UserError(
            f"The adapter {adapter} is of the kind {found['peft_type']}, not LoRA.",
            "Training goes on with LoRA adapters alone.",
            "Leave merge_start out: it is merged into its base.",
        )
    return Lora(
        r=found["r"],
        alpha=found["lora_alpha"],
        dropout=found.get("lora_dropout") or 0.0,
        target_modules=found["target_modules"],
        use_rslora=found.get("use_rslora", False),
        use_dora=found.get("use_dora", False),
    )


def open_base(adapter: Path, head: Head) -> StartModel:
    """Open the base of an adapter as a start from which training goes on with the adapter.

    Args:
        adapter: Folder of the adapter.
        head: What the model ends in.

    Raises:
        UserError: Its base is missing or is another one, or the training needs another head than the adapter's.
    """
    if head != LM_HEAD:
        raise UserError(
            "merge_start: false does not fit a training that gives the model another head.",
            "The adapter was trained with the head of a language model.",
            "Leave merge_start out: the adapter is merged into its base.",
        )
    start = open_start(base_of(adapter), head)
    _check_fits(start, adapter)
    return dataclasses.replace(start, adapter=str(adapter.resolve()))


def adapter_on_base(start: StartModel, arguments: dict[str, Any]) -> Any:
    """Return the base of a start with its adapter on it, ready to be trained.

    Args:
        start: A start with an adapter.
        arguments: How the base is loaded.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert start.adapter is not None
    base = AutoModelForCausalLM.from_pretrained(start.path, trust_remote_code=False, **arguments)
    return PeftModel.from_pretrained(base, start.adapter, is_trainable=True)


def resume_adapter(model: Any, checkpoint: Path) -> None:
    """Load a checkpoint's adapter into a model that has a second one, its frozen reference.

    transformers (5.14) loads the adapters in subfolders of a checkpoint, and then leaves the one beside them out.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"), adapter_name="default")


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
    start = open_start(base_of(adapter))
    _check_fits(start, adapter)
    save_model(merge_adapter(start, adapter), start, folder, start.dtype)
    return folder / "model"


def base_of(adapter: Path) -> str:
    """Return the folder or the hub id of an adapter's base.

    Raises:
        UserError: Its configuration does not say.
    """
    base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UserError(
            f"The adapter {adapter} does not say what its base is.",
            "Its adapter_config.json has no base_model_name_or_path.",
            "Write the base's hub id or folder there, or merge it yourself and give the merged model.",
        )
    return str(base)


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
    given: dict[str, Any] = {"state_dict": state} if state else {}
    # The reference of a start that was an adapter is one more adapter on the model.
    model.save_pretrained(str(adapter), save_embedding_layers=False, selected_adapters=["default"], **given)
    _check_moved(adapter)


def merge_adapter(start: StartModel, adapter: Path) -> Any:
    """Return the start model, without its own adapter, in float32 with an adapter merged into it.

    It is never merged into the copy that it was trained on, which may be in lower precision or in 4 bits.
    """
    from peft import PeftModel

    base = dataclasses.replace(start, adapter=None)
    model = PeftModel.from_pretrained(base.load("float32"), str(adapter))
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
