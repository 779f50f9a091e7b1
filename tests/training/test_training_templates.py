"""Token ids and loss masks of the families of chat templates, as literals, in the batches of TRL's trainers.

The templates are the published ones of tests/generation/templates. The tokenizer is the same for all: a byte is its
own id, and the family's special tokens follow from 256 on. Where the family has a BOS token the tokenizer adds it to
every text by itself, as the real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from w2s_align.errors import UserError
from w2s_align.training import (
    DPOSettings,
    KTOSettings,
    RewardModelSettings,
    SFTSettings,
    SimPOSettings,
    TrainResources,
)
from w2s_align.training.layout import Layout
from w2s_align.training.methods import all_methods
from w2s_align.training.models import open_start
from w2s_align.training.plan import plan_training
from w2s_align.training.tokens import ChatEncoder

TEMPLATES = Path(__file__).parents[1] / "generation" / "templates"
SYSTEM = [{"role": "system", "content": "Be brief."}]
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "Why?"},
]
# fmt: off
LLAMA_PROMPT = [
    256, 258, *b"system", 259, *b"\n\nBe brief.", 260, 258, *b"user", 259, *b"\n\nHi", 260,
    258, *b"assistant", 259, *b"\n\nYes", 260, 258, *b"user", 259, *b"\n\nWhy?", 260,
    258, *b"assistant", 259, *b"\n\n",
]
QWEN_PROMPT = [
    257, *b"system\nBe brief.", 258, 10, 257, *b"user\nHi", 258, 10, 257, *b"assistant\nYes", 258, 10,
    257, *b"user\nWhy?", 258, 10, 257, *b"assistant\n",
]
TULU_PROMPT = [
    *b"<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nYes", 257,
    *b"\n<|user|>\nWhy?\n<|assistant|>\n",
]
GEMMA_PROMPT = [
    256, 258, *b"user\nHi", 259, 10, 258, *b"model\nYes", 259, 10, 258, *b"user\nWhy?", 259, 10, 258, *b"model\n",
]
# fmt: on


@dataclass(frozen=True)
class Family:
    """A template, its special tokens (ids 256, 257, ...), and what prompt and responses must become."""

    template: str
    special: list[str]
    bos: str | None
    eos: str
    stop: list[int]
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    messages: list[dict[str, str]] = field(default_factory=lambda: SYSTEM + TURNS)
    answer: str = "So."
    kwargs: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "llama3": Family(
        "llama3",
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        stop=[257, 260],
        prompt=LLAMA_PROMPT,
        chosen=[*b"So.", 260],
        rejected=[*b"No", 260],
    ),
    "qwen2_5": Family(
        "qwen2_5",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        bos=None,
        eos="<|im_end|>",
        stop=[258],
        prompt=QWEN_PROMPT,
        chosen=[*b"So.", 258, 10],
        rejected=[*b"No", 258, 10],
    ),
    "qwen3, a thought": Family(
        "qwen3",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        bos=None,
        eos="<|im_end|>",
        stop=[258],
        prompt=QWEN_PROMPT,
        chosen=[259, *b"\nHm\n", 260, *b"\n\nSo.", 258, 10],
        rejected=[259, *b"\n\n", 260, *b"\n\nNo", 258, 10],
        answer="<think>\nHm\n</think>\n\nSo.",
    ),
    "qwen3, told not to think": Family(
        "qwen3",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        bos=None,
        eos="<|im_end|>",
        stop=[258],
        prompt=[*QWEN_PROMPT, 259, *b"\n\n", 260, *b"\n\n"],
        chosen=[*b"So.", 258, 10],
        rejected=[*b"No", 258, 10],
        kwargs={"enable_thinking": False},
    ),
    "tulu": Family(
        "tulu",
        ["<|begin_of_text|>", "<|end_of_text|>"],
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        stop=[257],
        prompt=TULU_PROMPT,
        chosen=[*b"So.", 257],
        rejected=[*b"No", 257],
    ),
    "gemma": Family(
        "gemma",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        bos="<bos>",
        eos="<eos>",
        stop=[257, 259],
        prompt=GEMMA_PROMPT,
        chosen=[*b"So.", 259, 10],
        rejected=[*b"No", 259, 10],
        messages=TURNS,
    ),
    "mistral": Family(
        "mistral",
        ["<s>", "</s>"],
        bos="<s>",
        eos="</s>",
        stop=[257],
        prompt=[256, *b"[INST] Hi [/INST]Yes", 257, *b"[INST] Why? [/INST]"],
        chosen=[*b"So.", 257],
        rejected=[*b"No", 257],
        messages=TURNS,
    ),
}
SETTINGS = {
    "sft": SFTSettings,
    "dpo": DPOSettings,
    "kto": KTOSettings,
    "simpo": SimPOSettings,
    "reward": RewardModelSettings,
}


def tokenizer_of(family: Family) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}  # GPT-2's
    backend = Tokenizer(models.BPE({letter: byte for byte, letter in letters.items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    if family.bos is not None:
        bos = (family.bos, backend.token_to_id(family.bos))
        backend.post_processor = processors.TemplateProcessing(f"{family.bos} $A", special_tokens=[bos])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=family.bos, eos_token=family.eos)
    tokenizer.chat_template = (TEMPLATES / f"{family.template}.jinja").read_text()
    return tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of each family, which stops at its stop tokens and has no token for padding."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    folders = {}
    for name, family in FAMILIES.items():
        folders[name] = tmp_path_factory.mktemp(family.template)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=264, max_position_embeddings=256, **sizes))
        model.generation_config = GenerationConfig(eos_token_id=family.stop)
        model.save_pretrained(folders[name])
        tokenizer_of(family).save_pretrained(folders[name])
    return folders


def rows_of(family: Family) -> list[dict[str, Any]]:
    """A pair, and the same pair with its sides exchanged."""
    sides = {"chosen": family.answer, "rejected": "No"}
    pair = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
    return [
        {"prompt": family.messages, **pair},
        {"prompt": family.messages, "chosen": pair["rejected"], "rejected": pair["chosen"]},
    ]


def batch_of(method: str, model: Path, family: Family, out: Path, **changes: Any) -> Any:
    """Return the first batch that TRL's trainer makes of the rows, and what is known of the data."""
    plain = {"learning_rate": 1e-3, "batch_size": 2, "chat_template_kwargs": family.kwargs}
    plain |= {"kl_batch": 2, "batch_size": 4} if method == "kto" else {}
    plain |= {"pad_token": family.special[0]} if method == "reward" else {}
    settings = SETTINGS[method](**plain | changes)
    kind = all_methods()[method]
    start = open_start(model)
    encoder = ChatEncoder(start.tokenizer, start.stop_ids, settings.chat_template_kwargs)
    # KTO refuses exchanged sides: a response that is good and bad under one prompt.
    rows = [rows_of(family)[0]] * 2 if method == "kto" else rows_of(family)
    data = kind.prepare(rows, encoder, settings, out / "cache", 0)
    resources = TrainResources(device="cpu", micro_batch_size=2, precompute_ref_log_probs=False)
    plan = plan_training(kind, start, data, out, settings, resources, 0, Layout())
    trainer = kind.trainer(plan, [])
    trainer.train_dataset = trainer.train_dataset.select(range(2))
    return trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]]), data


def rows_with_loss(ids: Any, mask: Any, loss: Any) -> list[tuple[list[int], list[int]]]:
    """Return each row of a batch, without its padding, as the tokens before the loss and those that carry it."""
    found = []
    for row, there, marked in zip(ids.tolist(), mask.tolist(), loss.tolist(), strict=True):
        size, first = sum(there), marked.index(True)
        assert there == [1] * size + [0] * (len(row) - size)
        assert marked == [False] * first + [True] * (size - first) + [False] * (len(row) - size)
        found.append((row[:first], row[first:size]))
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_masks_of_sft(models, tmp_path, name):
    family = FAMILIES[name]
    batch, _ = batch_of("sft", models[name], family, tmp_path)
    labels = batch["labels"]
    rows = rows_with_loss(batch["input_ids"], batch["attention_mask"], labels != -100)
    assert rows == [(family.prompt, family.chosen), (family.prompt, family.rejected)]
    # A label is its own token (the model shifts them), and padding, which is EOS here, has none.
    assert [[t for t in row if t != -100] for row in labels.tolist()] == [family.chosen, family.rejected]


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_masks_of_dpo(models, tmp_path, name):
    family = FAMILIES[name]
    batch, _ = batch_of("dpo", models[name], family, tmp_path)
    rows = rows_with_loss(batch["input_ids"], batch["attention_mask"], batch["completion_mask"] == 1)
    # Chosen rows, then rejected rows; the second pair has its sides exchanged.
    assert rows == [(family.prompt, side) for side in (family.chosen, family.rejected, family.rejected, family.chosen)]


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_masks_of_the_other_methods(models, tmp_path, name):
    family = FAMILIES[name]
    batch, _ = batch_of("simpo", models[name], family, tmp_path / "simpo")
    for side, ends in (("chosen", [family.chosen, family.rejected]), ("rejected", [family.rejected, family.chosen])):
        loss = batch[f"{side}_labels"] != -100
        rows = rows_with_loss(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"], loss)
        assert rows == [(family.prompt, end) for end in ends]

    batch, _ = batch_of("kto", models[name], family, tmp_path / "kto")
    rows = rows_with_loss(batch["input_ids"], batch["attention_mask"], batch["completion_mask"] == 1)
    assert all(prompt == family.prompt for prompt, _ in rows)
    assert {tuple(end) for _, end in rows} <= {tuple(family.chosen), tuple(family.rejected)}

    batch, _ = batch_of("reward", models[name], family, tmp_path / "reward")  # a score for the chat, read at its end
    pairs = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    rows = [row[: sum(there)] for row, there in pairs]
    ends = (family.chosen, family.rejected, family.rejected, family.chosen)
    assert rows == [family.prompt + end for end in ends]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_cut_on_either_side_loses_its_end_of_turn(models, tmp_path, name):
    """The longer answer is cut to the shorter one's length, as chosen in one pair and as rejected in the other."""
    family = FAMILIES[name]
    limit = len(family.prompt) + len(family.rejected)
    cut = family.chosen[: len(family.rejected)]
    assert cut != family.chosen
    batch, data = batch_of("dpo", models[name], family, tmp_path / "dpo", max_length=limit, too_long="truncate")
    rows = rows_with_loss(batch["input_ids"], batch["attention_mask"], batch["completion_mask"] == 1)
    assert rows == [(family.prompt, end) for end in (cut, family.rejected, family.rejected, cut)]
    assert (data.counts.cut["chosen"], data.counts.cut["rejected"]) == (1, 1)
    batch, _ = batch_of("sft", models[name], family, tmp_path / "sft", max_length=limit, too_long="truncate")
    rows = rows_with_loss(batch["input_ids"], batch["attention_mask"], batch["labels"] != -100)
    assert rows == [(family.prompt, cut), (family.prompt, family.rejected)]
    with pytest.raises(UserError, match=r"dropped \(chosen too long\): 1, dropped \(rejected too long\): 1"):
        batch_of("dpo", models[name], family, tmp_path / "drop", max_length=limit)


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_template_without_system_turns_refuses_them_with_its_own_words(models, tmp_path, name):
    start = open_start(models[name])
    encoder = ChatEncoder(start.tokenizer, start.stop_ids)
    with pytest.raises(UserError, match="Roles in these chats: system > user > assistant > user"):
        encoder.encode([SYSTEM + TURNS], [[{"role": "assistant", "content": "So."}]])
