"""Shapes: parameter counts against what the model cards say, and against transformers on the same configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w2s_align.families import find_shape, shipped_shapes
from w2s_align.families.shapes import Shape

PUBLISHED = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "allenai/OLMo-2-1124-7B-Instruct": 7_298_617_344,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-xl": 1_557_611_200,
    "Qwen/Qwen1.5-0.5B": 463_987_712,
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_are_those_of_the_files_on_the_hub(model: str) -> None:
    shape = find_shape(model)
    assert shape is not None and shape.parameters == PUBLISHED[model]


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "olmo2", "olmo3"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_that_transformers_makes(model_type: str, tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model_type, vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    shape = Shape.of("made", config.to_dict())
    assert shape is not None
    with torch.device("meta"):
        assert shape.parameters == AutoModelForCausalLM.from_config(config).num_parameters()


def test_adapter_parameters_are_those_that_peft_makes() -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    shape = Shape.of("made", config.to_dict())
    with torch.device("meta"):
        model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=8, target_modules="all-linear"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape is not None and shape.lora_parameters(8) == trained


def test_gpt2_has_names_and_biases_of_its_own() -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(vocab_size=97, n_embd=48, n_layer=3, n_head=4, n_positions=40, bos_token_id=1, eos_token_id=1)
    shape = Shape.of("made", config.to_dict())
    assert shape is not None and shape.context == 40
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        assert shape.parameters == model.num_parameters()
        tuned = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", fan_in_fan_out=True))
    assert shape.lora_parameters(8) == sum(p.numel() for p in tuned.parameters() if p.requires_grad)


def test_a_folder_goes_before_the_name_and_an_unknown_model_has_no_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert find_shape(str(tmp_path)) is None
    assert find_shape("somebody/nothing") is None
    assert all(shape.parameters > 1e8 for shape in shipped_shapes().values())
