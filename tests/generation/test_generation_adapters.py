"""LoRA adapters: a real one with random weights, put on a tiny model by both engines, and those that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, EngineResources, Generation, Sampling, generate
from w2s_align.generation.adapters import open_adapter
from w2s_align.generation.models import find_model

PROMPTS = [f"{i}+{7 * i}=" for i in range(12)]
GREEDY = Sampling(temperature=0, max_tokens=24)
RESOURCES = EngineResources(kv_cache_gib=0.25, max_num_seqs=16, batch_size=16)
VLLM = Engine(name="vllm")
TRANSFORMERS = Engine(name="transformers")


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def build_adapter(base: Path, folder: Path, **options: object) -> Path:
    """Write a LoRA adapter of rank 4 whose matrices are large enough to change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_adapter(tiny_model, tmp_path_factory.mktemp("adapters") / "lora")


@pytest.fixture
def adapter_copy(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "lora"))


def texts(result: Generation) -> list[str]:
    return list(result.table()["text"].to_pylist())


def test_both_engines_write_the_same_with_an_adapter_and_not_as_the_base(
    adapter: Path, tiny_model: Path, transformers_engines: EngineCache
) -> None:
    arguments = {"resources": RESOURCES}
    one = generate(adapter, PROMPTS, GREEDY, engine=VLLM, **arguments)
    other = generate(adapter, PROMPTS, GREEDY, engine=TRANSFORMERS, **arguments)
    base = generate(tiny_model, PROMPTS, GREEDY, engine=TRANSFORMERS, engines=transformers_engines, **arguments)
    assert texts(one) == texts(other)
    assert all(a != b for a, b in zip(texts(one), texts(base), strict=True))
    assert (one.model, other.model) == (str(adapter), str(adapter))


def test_an_adapter_finds_its_base_and_may_bring_its_own_template(adapter_copy: Path, tiny_model: Path) -> None:
    files = find_model(adapter_copy)
    assert (files.folder, files.name, files.tokenizer_folder) == (tiny_model, str(adapter_copy), tiny_model)
    assert files.adapter is not None
    assert files.adapter.rank == 4
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, adapter_copy)
    assert find_model(adapter_copy).tokenizer_folder == adapter_copy


def test_an_adapter_written_again_is_loaded_again(adapter_copy: Path) -> None:
    before = find_model(adapter_copy).fingerprint()
    edit_json(adapter_copy / "adapter_config.json", lora_alpha=16)
    assert find_model(adapter_copy).fingerprint() != before


def test_an_adapter_of_another_model_is_refused_with_both_names(
    adapter_copy: Path, tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    wider = tmp_path / "wider"
    config = LlamaConfig.from_pretrained(tiny_model, hidden_size=96, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(wider)
    edit_json(adapter_copy / "adapter_config.json", base_model_name_or_path=str(wider))
    with pytest.raises(
        UserError, match=rf"{adapter_copy}.*was not trained on {wider}.*shape \(64, 128\).*\(96, 128\)"
    ):
        find_model(adapter_copy)


def test_an_adapter_for_layers_that_are_not_there_is_refused(
    adapter_copy: Path, tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shallow = tmp_path / "shallow"
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_model, num_hidden_layers=2)).save_pretrained(shallow)
    edit_json(adapter_copy / "adapter_config.json", base_model_name_or_path=str(shallow))
    with pytest.raises(UserError, match=r"base has no such layer"):
        find_model(adapter_copy)


def no_base(folder: Path) -> None:
    edit_json(folder / "adapter_config.json", base_model_name_or_path=None)


def moved_base(folder: Path) -> None:
    edit_json(folder / "adapter_config.json", base_model_name_or_path="./gone")


def other_kind(folder: Path) -> None:
    edit_json(folder / "adapter_config.json", peft_type="PREFIX_TUNING")


def no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def damaged(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nothing")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_base, r"does not name its base.*base_model_name_or_path"),
        (moved_base, r"The base model ./gone of the adapter .* was not found.*If it has moved"),
        (other_kind, r"of type PREFIX_TUNING.*Merge it"),
        (no_weights, r"has no adapter_model.safetensors"),
        (damaged, r"adapter_model.safetensors is damaged"),
    ],
)
def test_adapters_that_cannot_be_used(adapter_copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(adapter_copy)
    with pytest.raises(UserError, match=message):
        find_model(adapter_copy)


def test_an_adapter_that_vllm_cannot_apply_is_refused_before_loading(tiny_model: Path, tmp_path: Path) -> None:
    from w2s_align.generation.engines.vllm import _lora_room

    dora = open_adapter(build_adapter(tiny_model, tmp_path / "dora", use_dora=True))
    with pytest.raises(UserError, match=r"vLLM cannot apply the adapter dora.*DoRA.*merge_and_unload"):
        _lora_room(dora, "dora")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"q_proj": 600}}))
    with pytest.raises(UserError, match=r"Its rank is 600; vLLM takes at most 512"):
        _lora_room(type(dora)(tmp_path, {**config, "rank_pattern": {"q_proj": 600}}), "large")
