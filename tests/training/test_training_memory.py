"""Memory: what autograd keeps against the formula, ZeRO against its paper, and measured peaks of real trainings."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from w2s_align.families import find_shape
from w2s_align.families.shapes import Shape
from w2s_align.training import DPOSettings, SFTSettings
from w2s_align.training.batching import RowSizes, largest_micro_batch, micro_batch, recomputes, trained_tokens
from w2s_align.training.memory import Setup, activation_bytes, training_memory
from w2s_align.training.resources import TrainResources

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_memory.py"
WIDTH, PROMPT, ANSWER, ROWS = 64, 20, 100, 2


def kept_by_autograd(family: str, layers: int, setup: Setup) -> tuple[float, Shape]:
    """Return the bytes that a real forward pass leaves for its backward pass, and the model's shape."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from w2s_align.training.padding_free import pack_forward

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=97, hidden_size=WIDTH, intermediate_size=160, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    frozen_half = setup.rank is not None and setup.half
    half_weights = setup.kind == "deepspeed" and setup.half
    model: Any = AutoModelForCausalLM.from_config(config)
    model = model.to(torch.bfloat16 if frozen_half or half_weights else torch.float32).train()
    add_fused_lm_head(model)
    if setup.packed:
        pack_forward(model, pairs=setup.sides == 2)
    if setup.recompute:
        model.gradient_checkpointing_enable()
    called = model
    if setup.rank is not None:
        from peft import LoraConfig, get_peft_model

        called = get_peft_model(model, LoraConfig(r=setup.rank, target_modules="all-linear"))
    ids = torch.randint(3, 97, (2 * ROWS, PROMPT + ANSWER))
    ids[ROWS:, :PROMPT] = ids[:ROWS, :PROMPT]
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        if saved.untyped_storage().data_ptr() not in known:
            kept[saved.untyped_storage().data_ptr()] = saved  # held, so that no address comes twice
        return saved

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved),
        torch.autocast("cpu", torch.bfloat16, enabled=setup.autocast),
    ):
        called(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True)
    shape = Shape.of("made", config.to_dict())
    assert shape is not None
    return float(sum(saved.untyped_storage().nbytes() for saved in kept.values())), shape


HALF = {"dtype": "bfloat16"}
FULL = {"dtype": "float32"}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(
    "how",
    [
        FULL | {"packed": True},
        FULL,
        HALF | {"packed": True},
        HALF | {"kind": "deepspeed", "packed": True},
        FULL | {"rank": 4},
        HALF | {"rank": 4, "packed": True},
        FULL | {"recompute": True},
    ],
)
def test_a_token_leaves_behind_what_autograd_saves(family: str, how: dict[str, Any]) -> None:
    """The difference of two models that differ in their number of layers, so that a layer's bytes are compared."""
    tokens = ROWS * (PROMPT + 2 * (ANSWER - 1)) if how.get("packed") else 2 * ROWS * (PROMPT + ANSWER)
    targets = 2 * ROWS * (ANSWER - 1)
    setup = Setup(tokens=tokens, targets=targets, **how)
    few, shape = kept_by_autograd(family, 2, setup)
    many, larger = kept_by_autograd(family, 4, setup)
    expected = (activation_bytes(larger, setup) - activation_bytes(shape, setup)) / 2
    counted = (many - few) / 2 / tokens
    if setup.autocast:  # copies of weights, which the estimate counts as weights
        weights = sum((64 * 64 * 2, 64 * 32 * 2, 3 * 64 * 160)) if setup.rank is None else 4 * (2 * 128 + 2 * 96 + 672)
        counted -= 2 * weights / tokens
    assert expected == pytest.approx(counted, rel=0.03)


def test_zero_shares_what_its_stage_says() -> None:
    """P = 8.03e9 weights on 8 GPUs (arXiv 1910.02054, section 3.1): 2 bytes of a working copy, 4 of master weights and
    8 of moments; gradients are there in DeepSpeed's bucket of 5e8, and under stage 3 in parts that stay."""
    shape = find_shape("meta-llama/Llama-3.1-8B-Instruct")
    assert shape is not None
    p, head = 8.030261248, 128_256 * 4096 / 1e9
    held = {}
    for stage in (1, 2, 3):
        setup = Setup(tokens=16_384, targets=9000, kind="deepspeed", stage=stage, processes=8, recompute=True)
        memory = training_memory(shape, setup)
        held[stage] = (memory.weights / 1e9, memory.gradients / 1e9, memory.optimizer / 1e9)
    assert held[2] == pytest.approx((2 * p + 4 * p / 8, 1 + 4 * head, p))
    assert held[3] == pytest.approx(((2 + 4) * p / 8 + 2 * head, (2 + 4) * p / 8 + 1 + 4 * head, p))
    assert held[1] == pytest.approx((2 * p + 4 * p / 8, 2 * p + 4 * p / 8, p))  # at the update


def test_an_adapter_and_four_bits_make_it_small() -> None:
    shape = find_shape("meta-llama/Llama-3.1-8B-Instruct")
    assert shape is not None
    full = Setup(tokens=2048, targets=1500, recompute=True)
    lora = replace(full, rank=64)
    sizes = [training_memory(shape, setup).total / 1e9 for setup in (full, lora, replace(lora, four_bits=True))]
    assert sizes[0] > 96 and 18 < sizes[1] < 22 and 6 < sizes[2] < 10


def test_moments_that_cannot_meet_are_not_added() -> None:
    """Gradients are given back after an update: they meet activations only where passes are accumulated."""
    shape = Shape("m", "llama", 512, 1536, 8, 8, 4, 64, 261, tied=True, context=4096, dtype="float32")
    alone = Setup(tokens=3748, targets=3600, packed=True, dtype="float32", cpu=True)
    weights = 4 * shape.parameters
    memory = training_memory(shape, alone)
    assert memory.gradients == 4 * shape.embedding_parameters
    accumulated = training_memory(shape, replace(alone, accumulation=2))
    assert accumulated.total - memory.total == pytest.approx(weights)
    small = training_memory(shape, replace(alone, tokens=8, targets=4))
    assert small.total == 4 * weights + 4 * shape.embedding_parameters  # the end of a backward pass, or the update


SIZES = RowSizes(mean=400.0, spread=100.0, largest=900, longest=500, targets=0.7)


def test_a_pass_is_filled_by_the_rule_of_the_training() -> None:
    settings, auto = DPOSettings(learning_rate=1e-6, batch_size=32), TrainResources()
    assert micro_batch(settings, auto, 1, SIZES, 2, packed=True) == 8  # 4096 / 400 = 10 rows at most
    assert micro_batch(settings, auto, 8, SIZES, 2, packed=True) == 4
    assert micro_batch(settings, auto, 1, SIZES, 2, packed=False) == 16  # 16384 / (2 x 500)
    assert micro_batch(settings, TrainResources(optimize_for="memory"), 1, SIZES, 2, packed=True) == 1
    assert micro_batch(settings, TrainResources(micro_batch_size=2), 1, SIZES, 2, packed=True) == 2
    assert micro_batch(settings.model_copy(update={"loss": "aot"}), auto, 1, SIZES, 2, packed=True) == 32
    assert not recomputes(auto, 135_000_000) and recomputes(auto, 1_235_814_400)
    assert recomputes(TrainResources(optimize_for="memory"), 1) and not recomputes(
        TrainResources(gradient_checkpointing=False), 8_000_000_000
    )


def test_the_largest_micro_batch_is_no_larger_than_its_largest_rows() -> None:
    assert largest_micro_batch(SIZES, 8, 2, 1000, packed=False) == 8000
    assert largest_micro_batch(SIZES, 1, 2, 1000, packed=True) == 900
    assert largest_micro_batch(SIZES, 8, 2, 1000, packed=True) == pytest.approx(3200 + 100 * (2 * 8 * 6.907755) ** 0.5)
    assert largest_micro_batch(replace(SIZES, spread=0.0), 8, 2, 1000, packed=True) == 900 + 7 * 400


def test_tokens_of_whole_epochs_need_no_order() -> None:
    settings = SFTSettings(learning_rate=1e-6, batch_size=4, num_train_epochs=2)
    assert trained_tokens(settings, [1, 2, 3, 4, 5, 6], 0, shuffled=True) == 2 * (21 + 1 + 2)


@pytest.fixture(scope="module")
def check_memory() -> Any:
    spec = importlib.util.spec_from_file_location("check_memory", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_estimate_is_near_a_measured_peak(check_memory: Any, tmp_path: Path) -> None:
    measured, estimated = check_memory.measure(check_memory.cases()["lab, DPO"], tmp_path)
    assert estimated == pytest.approx(measured, rel=check_memory.LIMIT)


@pytest.mark.slow
def test_every_estimate_is_near_its_measured_peak(check_memory: Any, tmp_path: Path) -> None:
    """SFT and DPO, full and LoRA, alone and under ZeRO-2 and ZeRO-3; lab-sized models and SmolLM2."""
    ratios = {}
    for name, case in check_memory.cases().items():
        measured, estimated = check_memory.measure(case, tmp_path)
        ratios[name] = estimated / measured
    assert all(abs(ratio - 1) <= check_memory.LIMIT for ratio in ratios.values()), ratios
