"""Every shipped recipe loads, plans offline and fits its machine; published settings name their sources and agree."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.estimates.estimate import Costs, estimate
from w2s_align.estimates.gpus import hardware
from w2s_align.generation import Sampling
from w2s_align.recipe import parse_document, read_document
from w2s_align.recipe.document import Document, Place
from w2s_align.recipe.sweep import read_points
from w2s_align.runs import load_recipe
from w2s_align.steps.train import TrainStep
from w2s_align.terminal.catalogue import recipes_folder, shipped_recipes
from w2s_align.terminal.plan_view import number

RECIPES = shipped_recipes()
FOLDERS = ("delta_learning", "tulu3", "olmo3", "small")
CLASSIFIERS = (
    *("w2sg/budget", "w2sg/debate_qwen", "w2sg/qwen05b_llama8b", "w2sg/sciq_gpt2"),
    *("w2sg/safety", "w2sg/legal"),
)
"""Published experiments on weak labels of items, for one GPU."""
OTHERS = ("w2sg/deception", "w2sg/toxicity")
"""Published experiments on weak labels of pairs and on what weak models write."""
REASONING = tuple(name for name in RECIPES if name.startswith("reasoning/") and not name.endswith("lab"))
"""Published systems that reason from weak supervision."""
PUBLISHED = [name for name in RECIPES if name.split("/")[0] in FOLDERS or name in (*CLASSIFIERS, *OTHERS, *REASONING)]
SWEEPS = sorted(str(path.relative_to(recipes_folder())) for path in recipes_folder().rglob("*.sweep.yaml"))
MACHINES = {
    **dict.fromkeys(CLASSIFIERS, "1xH100"),
    "reasoning/w2sr_qwen1b5_7b": "4xH100",
    "tulu3/dpo_70b": "64xH100",
    "olmo3/think_7b": "32xH100",
    "olmo3/think_32b": "128xH100",
    "olmo3/instruct_7b": "32xH100",
    "small/student_8b": "1xRTX4090",
    "small/student_3b": "1xRTX3060",
    "small/student_1b5": "1xRTX4060",
}
"""What a recipe asks for, where it is not 8xH100."""
UNCOUNTED = ("delta_learning/ultrafeedback_weak_3b", "delta_learning/ultrafeedback_weak_8b")
"""Recipes over a dataset whose number of rows was not found."""
TAGS = (
    *("R", "N", "T", "C", "OI", "O3", "TRL", "OAI", "EAI", "SE", "D", "B", "PEFT", "DEC", "WTS"),
    *("LF", "M", "L", "I", "A", "ours"),
)
"""Sources of settings; each recipe explains its own at the top."""
SOURCE = re.compile(rf"\[({'|'.join(TAGS)})\b[^\]]*\]")


@cache
def costs_of(name: str) -> Costs:
    """What a recipe costs where nothing is there yet; the plan takes a while, and several tests ask for it."""
    with tempfile.TemporaryDirectory() as folder:
        planned = load_recipe(RECIPES[name]).plan(Path(folder))
        return estimate(planned, Store(Path(folder)), hardware(MACHINES.get(name, "8xH100")))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_says_what_it_is_for(name: str) -> None:
    recipe = load_recipe(RECIPES[name]).recipe
    assert len(recipe.description) > 20
    if not name.startswith("theory"):
        assert any(node.config.writes == "report" for node in recipe.nodes.values())
    if name.startswith(("theory", "w2sg", "reasoning", *FOLDERS)):
        assert read_document(RECIPES[name]).data["w2s_align"] == ">=0.1"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_plans_offline_and_fits_the_machine_that_it_names(name: str) -> None:
    nodes, costs = load_recipe(RECIPES[name]).recipe.nodes, costs_of(name)
    assert not costs.unknown and costs.downloads
    for node, found in costs.steps.items():
        assert found.fits is not False and not found.advice, f"{node}: {found.parts}, {found.advice}"
        if isinstance(nodes[node].config, TrainStep):
            assert found.memory and (name in UNCOUNTED or (found.steps and found.seconds)), node
    low, high = costs.gpu_hours
    assert 0 < low < high


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_file_fits_its_recipe_and_its_points_fit_the_machine(sweep: str, tmp_path: Path) -> None:
    name, points = recipe_of(sweep), read_points(recipes_folder() / sweep)
    loaded = [load_recipe(RECIPES[name], point.overrides) for point in points]
    for point, recipe in [*zip(points, loaded, strict=True)][
        :: max(1, len(points) - 1)
    ]:  # the first, and the last with 72B
        planned = recipe.plan(tmp_path)
        costs = estimate(planned, Store(tmp_path), hardware(MACHINES.get(name, "8xH100")))
        assert not [node for node, found in costs.steps.items() if found.fits is False or found.advice], point.label


def recipe_of(sweep: str) -> str:
    name = sweep.removesuffix(".sweep.yaml")
    return "small/student_3b" if name == "small/learning_rate" else name


# Every setting names its source.

NO_SETTINGS = {"kind", "task", "title", "baseline", "arms", "roles"}
"""Keys whose values are names of this toolkit, or of things within the recipe."""


def settings(document: Document) -> Iterator[tuple[Place, int]]:
    """Yield every scalar setting of the steps with the line that it stands on: its own, or that of its anchor."""

    def walk(value: Any, place: Place) -> Iterator[tuple[Place, int]]:
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in items:
                if key not in NO_SETTINGS:
                    yield from walk(item, (*place, str(key)))
        elif not (isinstance(value, str) and value.startswith("$")):
            yield place, document.lines[place]

    for name, step in document.data["steps"].items():
        yield from walk(step, ("steps", name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_of_a_published_recipe_names_its_source_or_says_that_it_is_ours(name: str) -> None:
    document = read_document(RECIPES[name])
    lines = document.text.splitlines()
    header = document.text.partition("\nname: ")[0]
    defined = {tag for tag in TAGS if f"[{tag}] " in header}
    found = list(settings(document))
    assert len(found) > 25
    for place, line in [*found, (("seed",), document.lines[("seed",)])]:
        tags = SOURCE.findall(lines[line - 1].rpartition("# ")[2] if " # " in lines[line - 1] else "")
        assert tags, f"{name}:{line}  {'.'.join(place)} has no source"
        assert set(tags) <= defined, f"{name}:{line}  {tags} is not explained at the top"


def test_a_setting_without_a_source_is_found_also_behind_an_anchor() -> None:
    text = """\
name: x
steps:
  a: &a {kind: dpo, beta: 5, pairs: $p}  # [R]
  b:
    <<: *a
    learning_rate: 1.0e-8
    resources: {gpus: 8}
"""
    found = dict(settings(parse_document(text, "x.yaml")))
    assert found == {
        ("steps", "a", "beta"): 3,
        ("steps", "b", "beta"): 3,
        ("steps", "b", "learning_rate"): 6,
        ("steps", "b", "resources", "gpus"): 7,
    }


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_file_says_where_its_points_come_from(sweep: str) -> None:
    first = (recipes_folder() / sweep).read_text(encoding="utf-8").partition("\n- ")[0]
    assert SOURCE.search(first) or "is ours" in first


# And the settings are these, with the section of the sources that gives them (spec: delta_learning).

Table = dict[str, dict[str, dict[str, Any]]]
AUTHORS = {  # 2.1
    **{"loss": "sigmoid_norm", "batch_size": 32, "num_train_epochs": 1, "max_length": 2048, "too_long": "truncate"},
    **{"lr_scheduler_type": "cosine_with_min_lr", "scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": 0.03},
    **{"adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0, "max_grad_norm": 1.0, "seeds": 42, "adapter": None},
    **{"label_smoothing": 0, "launch": "zero2", "gpus": 8, "micro_batch_size": 1, "gradient_checkpointing": True},
}
AUTHORS_SFT = {  # 2.2
    **{name: AUTHORS[name] for name in ("lr_scheduler_type", "scheduler_kwargs", "warmup_steps", "adam_beta1")},
    **{name: AUTHORS[name] for name in ("adam_beta2", "weight_decay", "max_grad_norm", "seeds", "max_length")},
    **{"batch_size": 256, "micro_batch_size": 2, "num_train_epochs": 1},
}
AI2 = {  # 5.1 and 9.1
    **{"loss": "sigmoid_norm", "beta": 5, "batch_size": 128, "num_train_epochs": 1, "lr_scheduler_type": "linear"},
    **{"scheduler_kwargs": {}, "warmup_steps": 0.1, "weight_decay": 0, "adam_beta1": 0.9, "adam_beta2": 0.999},
    **{"max_grad_norm": 1.0, "launch": "zero3", "gradient_checkpointing": True, "gpus": 8, "micro_batch_size": 1},
}
TULU_SFT, LLAMA_8B = "allenai/Llama-3.1-Tulu-3-8B-SFT", "meta-llama/Llama-3.1-8B-Instruct"
LLAMA_3B, LLAMA_1B = "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-1B-Instruct"
MIXTURE = "allenai/llama-3.1-tulu-3-8b-preference-mixture"
QWEN = "Qwen/Qwen2.5-{}-Instruct"
EVERYTHING = {"filters.identical": False, "filters.truncated": False, "filters.special_tokens": False}  # 7.1
GREEDY = {"sampling.temperature": 0, "sampling.max_tokens": 2048, "sampling.n": 1, "sampling.top_p": 1}  # 7.1


def post_training(
    better: str, worse: str, rows: int, rate: float, beta: float, sft_rate: float, sft_epochs: int
) -> dict[str, dict[str, Any]]:
    """3.4 for the pairs, 4.2 for SFT."""
    return {
        "prompts": {"source": MIXTURE, "limit": rows, "shuffle": False},
        "better": {"model": better, **GREEDY},
        "worse": {"model": worse, **GREEDY},
        "pairs": {"rule": "model_order", "chosen": "$better", "rejected": "$worse", **EVERYTHING},
        "reversed_pairs": {"control": "reversed"},
        "dpo": {**AUTHORS, "model": TULU_SFT, "learning_rate": rate, "beta": beta},
        "reversed": {**AUTHORS, "model": TULU_SFT, "learning_rate": rate, "beta": beta, "pairs": "$reversed_pairs"},
        "sft": {**AUTHORS_SFT, "model": TULU_SFT, "learning_rate": sft_rate, "num_train_epochs": sft_epochs},
        "scores": {"suite": "tulu3"},
    }


def ultrafeedback(model: str, rate: float) -> dict[str, dict[str, Any]]:
    """3.1."""
    return {
        "pairs": {"source": "scottgeng00/delta_learning_ufweak", "limit": None, **EVERYTHING},
        "dpo": {**AUTHORS, "model": model, "learning_rate": rate, "beta": 5},
        "sft": {**AUTHORS_SFT, "model": model, "learning_rate": 1e-7},
    }


def think(size: str, machines: int, rows: int, rate: float, longest: int) -> dict[str, dict[str, Any]]:
    """9.1."""
    data, student = f"allenai/Dolci-Think-DPO-{size}", f"allenai/Olmo-3-{size}-Think-SFT"
    return {
        "prompts": {"source": data, "limit": rows},
        "better": {"model": "Qwen/Qwen3-32B", "engine.chat_template_kwargs": {}, "engine.thinking": "keep"},
        "worse": {"model": "Qwen/Qwen3-0.6B", "engine.chat_template_kwargs": {}, "engine.thinking": "keep"},
        "pairs": {"rule": "model_order", "filters.sides": "chosen", "filters.repetition": True},  # 7.4, 9.1
        "dpo": {**AI2, "model": student, "learning_rate": rate, "max_length": longest, "machines": machines},
        "scores": {"tasks.1.sampling.n": 32, "tasks.1.sampling.max_tokens": 32768},
    }


def small(student: str, rate: float, rule: str) -> dict[str, dict[str, Any]]:
    """Ours, but for the method (2.1)."""
    method = {name: AUTHORS[name] for name in ("loss", "batch_size", "lr_scheduler_type", "scheduler_kwargs")}
    return {
        "better": {"model": QWEN.format("1.5B"), "sampling.temperature": 0},
        "worse": {"model": QWEN.format("0.5B"), "sampling.temperature": 0},
        "pairs": {"rule": rule},
        "dpo": {**method, "beta": 5, "model": student, "learning_rate": rate, "adapter.load_in_4bit": True},
        "sft": {"model": student, "learning_rate": 1e-5, "adapter.load_in_4bit": True},
    }


def weak_labels(weak: str, strong: str, rates: tuple[float, float], **shared: Any) -> dict[str, dict[str, Any]]:
    """w2s_generalization 1.6 and 1.9."""
    student = {**shared, "model": strong, "learning_rate": rates[1]}
    return {
        "weak": {
            **shared,
            "model": weak,
            "learning_rate": rates[0],
            "loss": "xent",
            "labels": None,
            "items": "$first",
        },
        "xent": {**student, "loss": "xent", "labels": "$labels", "items": "$second"},
        "logconf": {**student, "loss": "logconf", "labels": "$labels", "items": "$second", "alpha": 0.5},
        "ceiling": {**student, "loss": "xent", "labels": None, "items": "$second"},
    }


PUBLIC_CODE = {
    **{"batch_size": 32, "num_train_epochs": 2, "lr_scheduler_type": "cosine", "scheduler_kwargs": {}},
    **{"warmup_steps": 0, "weight_decay": 0, "new_head": "zero", "disable_dropout": True, "max_length": 1023},
    **{"too_long": "drop", "template": "plain", "hard_labels": False, "seeds": 0, "adapter": None},
}
ELEUTHER = {
    **{"batch_size": 32, "num_train_epochs": 3, "lr_scheduler_type": "cosine", "warmup_steps": 40, "adapter.r": 8},
    **{"weight_decay": 0.1, "adam_beta2": 0.95, "new_head": "small", "evaluate_every": 25, "hard_labels": False},
}
SCALABLE = {
    **{"batch_size": 32, "lr_scheduler_type": "cosine", "warmup_steps": 40, "weight_decay": 0.01, "adam_beta2": 0.95},
    **{"adapter.r": 8, "adapter.target_modules": "all-linear", "new_head": "small", "template": "plain"},
}
STAGE = {
    **{**SCALABLE, "max_steps": 938, "held_out": 0.2, "evaluate_every": 50, "early_stopping": 4},
    **{"learning_rate": 8e-5},
}
LORA_OF_THE_TOOL = {  # w2s_reasoning 1.4
    **{"adapter.r": 8, "adapter.alpha": 16, "adapter.dropout": 0, "max_length": 1024, "model": "google/gemma-2b"},
}
STRONG = "meta-llama/Llama-2-70b-hf"


def reasoning(max_tokens: int, pairs_per_prompt: int, pad_to: int) -> dict[str, dict[str, Any]]:
    """w2s_reasoning 1.1 to 1.4."""
    return {
        "weak": {**LORA_OF_THE_TOOL, "data": "$gold"},
        "weak_view": {"model": "$weak@42", "sampling.temperature": 0, "sampling.max_tokens": max_tokens},
        "own_view": {"model": STRONG, "sampling.temperature": 0, "examples.n": 4, "examples.source": "$weak_view"},
        "agreed": {"by": "agreement", "keep": "both", "compare": "text", "pad_to": pad_to},
        "samples": {
            "model": "$plus@42",
            "sampling.n": 10,
            "sampling.temperature": 1,
            "sampling.max_tokens": max_tokens,
        },
        "pairs": {"keep_at": 0.6, "reject_at": 0.8, "pairs_per_prompt": pairs_per_prompt, "weak": "$weak_view"},
        "orpo": {"beta": 0.1, "model": "$plus@42", "adapter.r": 8, "adapter.alpha": 16},
    }


FULL = {  # w2s_reasoning 2.2
    **{"model": "Qwen/Qwen2.5-Math-7B", "learning_rate": 2e-5, "batch_size": 128, "num_train_epochs": 10},
    **{"lr_scheduler_type": "cosine", "warmup_steps": 0.1, "max_length": 4096, "launch": "zero3", "adapter": None},
}
GUIDING = {  # w2s_reasoning 3.2
    **{"learning_rate": 2e-5, "num_train_epochs": 2, "warmup_steps": 0.1, "lr_scheduler_type": "cosine"},
    **{"max_length": 2048, "micro_batch_size": 2, "seeds": 42},
}
SECTIONS = {"source": "scottgeng00/delta_learning_num_sections", "limit": 16384, **EVERYTHING}
SECTIONS_DPO = {**AUTHORS, "model": LLAMA_3B}
SECTIONS_SFT = {**AUTHORS_SFT, "model": LLAMA_3B, "learning_rate": 1e-6}
DECEPTION = {  # w2s_generalization 3.3 and 3.4
    **{"batch_size": 32, "weight_decay": 0, "max_grad_norm": 0, "adam_beta2": 0.999, "max_length": 512, "seeds": 0},
}
POLICY = {**DECEPTION, "learning_rate": 1e-6, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1}
BEYOND = {  # w2s_generalization 4.3
    **{"batch_size": 16, "num_train_epochs": 3, "learning_rate": 5e-5, "lr_scheduler_type": "linear", "seeds": 42},
}
SETTINGS: Table = {
    "w2sg/deception": {
        "rm_weak": {**DECEPTION, "learning_rate": 1e-5, "num_train_epochs": 1, "lr_scheduler_type": "cosine"},
        "rm_none": {"soft_labels": True, "conflict": None, "pairs": "$rm_labels"},
        "rm_explicit": {"conflict.alpha": 0.5, "conflict.term": "reverse", "pairs": "$rm_marked"},
        "rm_sure": {"least_confidence": 0.75},
        "strong_sft": {**POLICY, "num_train_epochs": 1},
        "dpo_none": {**POLICY, "beta": 0.1, "num_train_epochs": 3, "loss": "sigmoid", "disable_dropout": True},
        "dpo_scores": {"by": "logprob", "reference": None},
        "simpo_none": {**POLICY, "beta": 2.0, "margin": 1.0, "num_train_epochs": 1},
        "simpo_scores": {"by": "logprob_per_token"},
        "dpo": {"by": "logprob", "threshold": 0.75, "without_conflict": "none"},
    },
    "w2sg/safety": {"weak": {**BEYOND, "weight_decay": 0.1, "warmup_steps": 100}, "naive": {"hard_labels": True}},
    "w2sg/legal": {"weak": {**BEYOND, "weight_decay": 0.01, "warmup_steps": 0}, "naive": {"hard_labels": True}},
    "w2sg/toxicity": {
        "weak": {**BEYOND, "weight_decay": 0.01, "warmup_steps": 0.1},
        "scores": {"lower_is_better": True},
    },
    "reasoning/gsm8k_gemma2b_llama70b": {
        **reasoning(1024, 1, 0),
        "dpo": {"beta": 0.1, "model": "$plus@42"},
        "agreed_2": {"responses": "$weak_view_2", "other": "$own_view_2", "keep": "both", "mark": "####"},
    },
    "reasoning/math_gemma2b_llama70b": reasoning(2048, 3, 1000),
    "reasoning/w2sr_qwen1b5_7b": {
        "w2sr": {**FULL, "data": "$every"},
        "w2sr_p": {**FULL, "data": "$correct"},
        "w2sr_n": {**FULL, "data": "$wrong"},
        "lora": {"adapter.r": 32, "adapter.alpha": 64, "learning_rate": 1e-4, "num_train_epochs": 3, "batch_size": 32},
        "lora_16": {"adapter.r": 16, "adapter.alpha": 32, "learning_rate": 1e-5, "num_train_epochs": 2},
        "first_box": {"scorer": "first_box"},
    },
    "reasoning/guiding_llama8b": {
        "base": {**GUIDING, "model": "meta-llama/Meta-Llama-3-8B"},
        "sft_80": {**GUIDING, "model": "$base@42", "data": "$mixed_80"},
        "mixed_50": {"wrong_share": 0.5},
        "mixed_80": {"wrong_share": 0.8},
        "parts": {"at_most": 3, "prompts": "$hard"},
        "parts_10": {"wrong_share": 0.1},
        "sft_50_10": {**GUIDING, "data": ["$mixed_50", "$parts_10"]},
        "noisy": {"sampling.n": 3, "sampling.temperature": 1},
        "scores": {"sampling": {"sampled": Sampling(temperature=0.6, top_p=0.9, top_k=50, max_tokens=1680)}},
    },
    "reasoning/puzzles": {  # w2s_reasoning 4.1; its numbers are ours
        "own_1": {"mode": "logprob", "model": "$pi1"},
        "pairs_1": {"rule": "confirmed", "chosen": "$new_1", "rejected": "$old_1", "margin": 0.2},
        "pi3": {"model": "$pi2", "pairs": "$pairs_2"},
    },
    "w2sg/sciq_gpt2": {
        **weak_labels("openai-community/gpt2", "openai-community/gpt2-xl", (5e-5, 1e-5), **PUBLIC_CODE),
        "items": {"format": "sciq", "limit": 20_000, "balance": "none"},
        "test": {"split": "test", "limit": 10_000},
    },
    "w2sg/qwen05b_llama8b": {
        **weak_labels("Qwen/Qwen1.5-0.5B", "meta-llama/Meta-Llama-3-8B", (5e-4, 8e-5), **ELEUTHER),
        "items": {"limit": 11_000, "balance": "exact"},
        "test": {"limit": 5_000, "balance": "exact"},
    },
    "w2sg/budget": {  # 5.2, 5.3, 5.5
        "weak": {**SCALABLE, "model": "Qwen/Qwen1.5-0.5B", "learning_rate": 5e-4, "num_train_epochs": 3},
        "sequential_first": {**STAGE, "model": "meta-llama/Meta-Llama-3-8B", "labels": "$labels"},
        "sequential": {**STAGE, "model": "$sequential_first", "labels": None, "items": "$exact_items"},
        "unsure_items": {"by": "uncertainty", "temperature": 0},
        "uncertain": {**STAGE, "model": "$sequential_first", "labels": None, "items": "$unsure_items"},
        "logconf_first": {**STAGE, "loss": "logconf", "alpha": 0.5, "alpha_warmup": 200, "max_length": 403},
        "logconf": {**STAGE, "loss": "xent", "model": "$logconf_first"},
        "test": {"limit": 1000},
    },
    "w2sg/debate_qwen": {  # 2.1
        "talks": {"turns": 3, "seeds": (1, 2, 3, 4), "form": "debate", "model": QWEN.format("14B")},
        "reader_4": {"items": "$talks@4", "labels": None, "model": QWEN.format("7B")},
        "together": {"labels": ["$labels_1", "$labels_2", "$labels_3", "$labels_4"], "weights": "mean"},
        "debate": {"items": "$second", "labels": "$together", "loss": "xent", "model": QWEN.format("14B")},
        "advice": {"form": "consultancy"},
        "offers": {"form": "market_making", "against": ["$said_1", "$said_2"]},
        "offers_second": {"form": "market_making", "against": "$labels"},
        "ceiling": {"labels": None, "items": "$second"},
    },
    "delta_learning/qwen3b_over_1b5": post_training(QWEN.format("3B"), QWEN.format("1.5B"), 150_000, 5e-8, 5, 1e-6, 1),
    "delta_learning/llama3b_over_1b": post_training(LLAMA_3B, LLAMA_1B, 100_000, 7e-8, 5, 1e-6, 1),
    "delta_learning/qwen1b5_over_0b5": post_training(
        QWEN.format("1.5B"), QWEN.format("0.5B"), 100_000, 1e-7, 10, 5e-6, 2
    ),
    "delta_learning/qwen7b_over_1b5": post_training(QWEN.format("7B"), QWEN.format("1.5B"), 100_000, 7e-8, 5, 1e-6, 2),
    "delta_learning/self_improvement": {  # 3.3
        "prompts": {"source": "allenai/tulu-3-sft-mixture", "limit": 50_000},
        "own": {"model": LLAMA_8B, **GREEDY},
        "weaker": {"model": LLAMA_3B, **GREEDY},
        "pairs": {"rule": "self_over_weaker", "chosen": "$own", "rejected": "$weaker", **EVERYTHING},
        "dpo": {**AUTHORS, "model": LLAMA_8B, "learning_rate": 1e-8, "beta": 5, "seeds": (42, 43, 44)},
        "reversed": {**AUTHORS, "learning_rate": 1e-8, "beta": 5, "pairs": "$reversed_pairs"},
        "sft": {**AUTHORS_SFT, "model": LLAMA_8B, "learning_rate": 1e-7, "num_train_epochs": 2},
    },
    "delta_learning/ultrafeedback_weak_3b": ultrafeedback(LLAMA_3B, 5e-7),
    "delta_learning/ultrafeedback_weak_8b": ultrafeedback(LLAMA_8B, 7e-8),
    "delta_learning/bold_sections": {  # 3.2
        "three_over_two": {**SECTIONS, "columns": {"chosen": "3_sections", "rejected": "2_sections"}},
        "two_over_three": {**SECTIONS, "columns": {"chosen": "2_sections", "rejected": "3_sections"}},
        "nine_over_two": {**SECTIONS, "columns": {"chosen": "9_sections", "rejected": "2_sections"}},
        "three_over_three": {
            **SECTIONS,
            "source": "scottgeng00/delta_learning_num_sections_3section_tied",
            "columns": {"chosen": "chosen", "rejected": "rejected"},
        },
        "tied_two_over_three": {
            **SECTIONS,
            "source": "scottgeng00/delta_learning_num_sections_3section_tied",
            "columns": {"chosen": "2_sections", "rejected": "3_sections"},
        },
        "dpo": {**SECTIONS_DPO, "learning_rate": 5e-7, "beta": 5, "pairs": "$three_over_two"},
        "reversed": {**SECTIONS_DPO, "learning_rate": 1e-7, "beta": 10, "pairs": "$tied_two_over_three"},
        "tied": {**SECTIONS_DPO, "learning_rate": 1e-7, "beta": 5, "pairs": "$three_over_three"},
        "sft_three": {**SECTIONS_SFT, "data": "$three_over_two"},
        "sft_two": {**SECTIONS_SFT, "data": "$two_over_three"},
        "sft_nine": {**SECTIONS_SFT, "data": "$nine_over_two"},
        "scores": {"scorer": "feature:sections"},
    },
    "delta_learning/ladder": {  # 4.1
        "prompts": {"source": MIXTURE, "limit": 100_000, "shuffle": False},
        "better": {"model": QWEN.format("3B"), **GREEDY},
        "worse": {"model": QWEN.format("1.5B"), **GREEDY},
        "pairs": {"rule": "model_order", **EVERYTHING},
        "dpo": {**AUTHORS, "model": TULU_SFT, "learning_rate": 1e-7, "beta": 10},
    },
    "delta_learning/ladder_sft": {  # 4.2
        "prompts": {"source": MIXTURE, "limit": 100_000, "shuffle": False},
        "teacher": {"model": QWEN.format("3B"), **GREEDY},
        "sft": {**AUTHORS_SFT, "model": TULU_SFT, "learning_rate": 1e-6},
    },
    "tulu3/dpo_8b": {  # 5.1; the seed is that of the script
        "pairs": {"source": MIXTURE, "limit": None, **EVERYTHING},
        "dpo": {**AI2, "model": TULU_SFT, "learning_rate": 5e-7, "max_length": 2048, "machines": None, "seeds": 8},
        "reversed": {**AI2, "model": TULU_SFT, "learning_rate": 5e-7, "pairs": "$reversed_pairs"},
        "sft": {"batch_size": 128, "lr_scheduler_type": "linear", "warmup_steps": 0.03},  # 5.4
        "scores": {"suite": "tulu3"},
    },
    "tulu3/dpo_70b": {  # 5.1
        "pairs": {"source": "allenai/llama-3.1-tulu-3-70b-preference-mixture", "limit": None, **EVERYTHING},
        "dpo": {
            **AI2,
            **{"model": "allenai/Llama-3.1-Tulu-3-70B-SFT", "learning_rate": 2e-7, "max_length": 2048, "machines": 8},
        },
    },
    "olmo3/think_7b": think("7B", 4, 150_000, 8e-8, 16_384),
    "olmo3/think_32b": think("32B", 16, 200_000, 7e-8, 8_192),
    "olmo3/instruct_7b": {  # 9.1, 9.3
        "size_prompts": {"source": "allenai/Dolci-Instruct-DPO", "limit": 125_000, "part": "train"},
        "judged_prompts": {"source": "allenai/Dolci-Instruct-DPO", "limit": 125_000, "part": "test"},
        "large": {"model": "Qwen/Qwen3-32B", "engine.chat_template_kwargs": {"enable_thinking": False}},
        "small": {"model": "Qwen/Qwen3-0.6B", "engine.chat_template_kwargs": {"enable_thinking": False}},
        "size_pairs": {"rule": "model_order", "filters.sides": "chosen", "filters.max_length_gap": 100},
        "judged_pairs": {"rule": "best_worst", "filters.max_length_gap": 100, "filters.length_unit": "tokens"},
        "ratings": {"mode": "pointwise", "scale": (1, 5)},
        "dpo": {
            **AI2,
            **{"model": "allenai/Olmo-3-7B-Instruct-SFT", "learning_rate": 1e-6, "max_length": 16_384, "machines": 4},
            "pairs": ["$size_pairs", "$judged_pairs"],
        },
        "size_dpo": {**AI2, "learning_rate": 1e-6, "pairs": "$size_pairs"},
        "reversed": {**AI2, "learning_rate": 1e-6, "pairs": "$reversed_pairs"},
    },
    "small/student_8b": small(LLAMA_8B, 5e-7, "model_order"),
    "small/student_3b": small(LLAMA_3B, 5e-6, "model_order"),
    "small/student_1b5": small(QWEN.format("1.5B"), 5e-6, "self_over_weaker"),
}


def value_of(config: Any, path: str) -> Any:
    """Return an option by its path; those of resources by their own name."""
    if path in ("gpus", "machines", "micro_batch_size", "gradient_checkpointing"):
        config = config.resources
    for part in path.split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_are_those_of_the_sources(name: str) -> None:
    nodes = load_recipe(RECIPES[name]).recipe.nodes
    for step, wanted in SETTINGS[name].items():
        made = [node for node in nodes.values() if node.step == step and "/" not in node.name]
        seeds = tuple(node.config.seed for node in made)
        for path, value in wanted.items():
            if path == "seeds":
                assert seeds == (value if isinstance(value, tuple) else (value,)), step
            else:
                assert value_of(made[0].config, path) == value, f"{step}.{path}"


LADDER = {  # 4.1: learning rate and beta by (chosen, rejected)
    **{("1.5B", "0.5B"): (1e-7, 5), ("3B", "0.5B"): (7e-8, 5), ("3B", "1.5B"): (1e-7, 10)},
    **{("7B", "0.5B"): (5e-8, 10), ("7B", "1.5B"): (7e-8, 5), ("7B", "3B"): (1e-7, 5)},
    **{("14B", "0.5B"): (5e-8, 10), ("14B", "1.5B"): (5e-8, 10), ("14B", "3B"): (5e-8, 10), ("14B", "7B"): (5e-8, 5)},
    **{("32B", "0.5B"): (5e-8, 10), ("32B", "1.5B"): (5e-8, 10), ("32B", "3B"): (5e-8, 10), ("32B", "7B"): (5e-8, 5)},
    **{("32B", "14B"): (7e-8, 5), ("72B", "0.5B"): (5e-8, 10), ("72B", "1.5B"): (7e-8, 5), ("72B", "3B"): (7e-8, 10)},
    **{("72B", "7B"): (1e-7, 10), ("72B", "14B"): (5e-8, 10), ("72B", "32B"): (5e-8, 10)},
}
LADDER_SFT = {  # 4.2: learning rate and epochs
    **{"0.5B": (5e-6, 2), "1.5B": (5e-6, 2), "3B": (1e-6, 1), "7B": (1e-6, 2), "14B": (1e-6, 2)},
    **{"32B": (1e-6, 2), "72B": (1e-6, 2)},
}


def test_the_ladder_has_the_21_pairs_with_their_settings() -> None:
    found = {}
    for point in read_points(recipes_folder() / "delta_learning/ladder.sweep.yaml"):
        values = point.values
        pair = tuple(re.findall(r"Qwen2\.5-(.+?)-Instruct", f"{values['better.model']} {values['worse.model']}"))
        found[pair] = (float(values["dpo.learning_rate"]), values["dpo.beta"])
        assert values["scores.arms.better"] == values["better.model"]
        assert values["scores.arms.worse"] == values["worse.model"]
        assert values.get("dpo.seeds", [42]) == ([8] if pair == ("1.5B", "0.5B") else [42])
    assert found == LADDER and len(found) == 21
    found_sft = {}
    for point in read_points(recipes_folder() / "delta_learning/ladder_sft.sweep.yaml"):
        (size,) = re.findall(r"Qwen2\.5-(.+?)-Instruct", point.values["teacher.model"])
        found_sft[size] = (float(point.values["sft.learning_rate"]), point.values["sft.num_train_epochs"])
        assert point.values["scores.arms.teacher"] == point.values["teacher.model"]
    assert found_sft == LADDER_SFT


def test_the_sweep_of_olmo3_has_its_three_points() -> None:  # 9.1
    points = read_points(recipes_folder() / "olmo3/think_32b.sweep.yaml")
    assert [float(point.values["dpo.learning_rate"]) for point in points] == [7e-8, 8e-8, 9e-8]


STEPS = {
    **{"delta_learning/qwen3b_over_1b5": 4_688, "delta_learning/llama3b_over_1b": 3_125, "tulu3/dpo_8b": 2_121},
    **{"delta_learning/bold_sections": 512, "delta_learning/self_improvement": 1_563, "tulu3/dpo_70b": 2_612},
    **{"olmo3/think_7b": 1_172, "olmo3/think_32b": 1_563, "olmo3/instruct_7b": 1_954, "small/student_8b": 125},
}
"""Optimiser steps of the DPO run; the last batch is filled up, where the authors' floor leaves it out (2.1, 5.1)."""


@pytest.mark.parametrize("name", STEPS)
def test_the_plan_has_the_optimiser_steps_that_follow_from_the_rows(name: str) -> None:
    steps = [found.steps for node, found in costs_of(name).steps.items() if node.startswith("dpo@")]
    assert steps[0] == STEPS[name]


def test_the_trap_of_tulu3_is_avoided_on_any_number_of_gpus(tmp_path: Path) -> None:
    key = load_recipe(RECIPES["tulu3/dpo_8b"]).plan(tmp_path)["dpo@8"].key
    for gpus, micro in ((4, 2), (1, 8)):
        overrides = [f"dpo.resources.gpus={gpus}", f"dpo.resources.micro_batch_size={micro}"]
        planned = load_recipe(RECIPES["tulu3/dpo_8b"], overrides).plan(tmp_path)
        assert planned["dpo@8"].key == key
        costs = estimate(planned, Store(tmp_path), hardware("8xH100"))
        assert costs.steps["dpo@8"].steps == 2121  # 271,409 pairs in batches of 128, the last one filled up


# The arms that a study needs are there, or the recipe says why one is not.

CONTROLS = {
    "delta_learning/ladder": {"student", "treatment", "teacher"},  # its SFT is ladder_sft; reversed pairs: see there
    "delta_learning/ladder_sft": {"student", "treatment", "teacher"},  # is itself the control
    "tulu3/dpo_70b": {"student", "treatment"},
    "olmo3/think_32b": {"student", "treatment"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_its_arms(name: str) -> None:
    recipe = load_recipe(RECIPES[name]).recipe
    if name in OTHERS:
        evaluations: list[Any] = [node.config for node in recipe.nodes.values() if node.config.writes == "results"]
        assert all({"teacher", "treatment", "ceiling"} <= set(one.roles.values()) for one in evaluations)
        assert len(evaluations) == (3 if name == "w2sg/deception" else 1)
        return
    scores: Any = recipe.nodes["scores"].config
    roles = set(scores.roles.values())
    if name in CLASSIFIERS:
        assert roles >= {"teacher", "treatment"} and scores.arms["weak"] == "$weak"
        assert "ceiling" in roles or "There is no ceiling" in recipe.text
        return
    if name in REASONING:
        assert roles >= {"student", "treatment", "control"}
        return
    if name in CONTROLS:
        assert roles >= CONTROLS[name]
        assert re.search(r"# .*(Controls|control of the ladder)", recipe.text)
        return
    assert roles >= {"student", "treatment", "control"}
    assert "reversed" in scores.arms and any(arm.startswith("sft") for arm in scores.arms)
    generated = [node for node in recipe.nodes.values() if node.config.kind == "generate" and "/" not in node.name]
    assert "teacher" in roles or not generated or name == "olmo3/think_7b"
    assert "ceiling" in recipe.text


# What the pages for people say.


def test_the_catalogue_of_recipes_names_all_of_them() -> None:
    text = (recipes_folder() / "README.md").read_text(encoding="utf-8")
    for name in RECIPES:
        assert f"`{name}`" in text, name
    for name in PUBLISHED:
        folder, _, file = name.rpartition("/")
        assert f"`{file}`" in (recipes_folder() / folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_hours_in_the_readme_are_those_of_the_plan(name: str) -> None:
    """Hours of the GPUs in the folder's README, hours of the machine in that of all recipes."""
    folder, _, file = name.rpartition("/")
    text = (recipes_folder() / folder / "README.md").read_text(encoding="utf-8")
    low, high = costs_of(name).gpu_hours
    row = f"| `{file}` | {MACHINES.get(name, '8xH100')} | {number(low)} to {number(high)} |"
    assert row in text, f"the plan says: {row}"
    if name not in UNCOUNTED and "ladder" not in name:  # their rows there are about more than one plan
        count = int(MACHINES.get(name, "8xH100").partition("x")[0])
        row = f"| {number(low / count)} to {number(high / count)} h | `{name}` |"
        assert row in (recipes_folder() / "README.md").read_text(encoding="utf-8"), f"the plan says: {row}"


def test_the_ceiling_of_the_readme_fits_the_small_recipes(tmp_path: Path) -> None:
    text = (recipes_folder() / "small/README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for name in (name for name in PUBLISHED if name.startswith("small/")):
        recipe = read_document(RECIPES[name]).text
        before, report = recipe.split("\n  scores:\n")
        path = tmp_path / "with_ceiling.yaml"
        path.write_text(f"{before}\n{snippet}\n  scores:\n{report}", encoding="utf-8")
        overrides = ["scores.arms.ceiling=$ceiling", "scores.roles.ceiling=ceiling"]
        planned = load_recipe(path, overrides).plan(tmp_path)
        pairs: Any = planned["gold_pairs"].node.config
        assert pairs.rule == "correctness" and planned["ceiling@1"].node.inputs == {"pairs": "gold_pairs"}


def test_the_grid_of_budgets_is_that_of_the_public_code() -> None:  # 5.1
    points = read_points(recipes_folder() / "w2sg/budget.sweep.yaml")
    assert {point.group.rpartition(" ")[2] for point in points} == {"0.5", "0.1", "0.01"}
    bought = {
        (point.values.get("weak_items.number", 0), point.values.get("exact_items.number", 0))
        for point in points
        if point.group.endswith(" 0.1")
    }
    assert {(2050, 819), (9730, 51), (38920, 204), (0, 4096), (0, 8192), (10240, 0)} <= bought
    assert len(bought) == 34 and (40960, 0) not in bought  # the pool is smaller; two shares of 16 buy 160 weak labels
    mixed = next(p.values for p in points if p.name == "520 weak, 204 exact")
    assert mixed["weak_pool.share"] == mixed["exact_pool.share"] == pytest.approx(520 / 724)
