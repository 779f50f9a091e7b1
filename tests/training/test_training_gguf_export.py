"""A model as a GGUF file: opened again it holds the same weights and gives the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from w2s_align.errors import UserError
from w2s_align.training.gguf import import_gguf
from w2s_align.training.gguf_export import LARGEST_ERROR, export_gguf, pre_tokenizer

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_model(folder: Path, kind: str) -> Path:
    """Write a tiny model with a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=kind == "qwen2",
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "precision"), [("llama", "f32"), ("qwen2", "f16"), ("llama", "q8_0"), ("qwen3", "f32")]
)
def test_what_is_opened_again_is_the_model(kind: str, precision: Any, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = make_model(tmp_path / "model", kind)
    made = export_gguf(model, tmp_path / "app.gguf", precision, name="tiny")
    assert made.largest_error <= LARGEST_ERROR[made.precision] and Path(made.file).stat().st_size == made.bytes
    assert (made.largest_error == 0) == (precision == "f32")
    if precision == "q8_0":
        return
    import_gguf(tmp_path / "app.gguf", tmp_path / "again")
    before, after = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (model, tmp_path / "again"))
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (model, tmp_path / "again")]
    chat = [{"role": "user", "content": "the 12 dogs don't jump"}]
    ids = [
        one.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"] for one in tokenizers
    ]
    assert ids[0] == ids[1]
    with torch.no_grad():
        logits = [one(torch.tensor([ids[0]])).logits for one in (before, after)]
    assert torch.allclose(*logits, atol=1e-5 if precision == "f32" else 1e-2)


def test_what_has_no_form_in_gguf_here_is_refused(tmp_path: Path, tiny: Any, student: Path) -> None:
    with pytest.raises(UserError, match="tokenizer is not exported"):
        export_gguf(student, tmp_path / "a.gguf")
    with pytest.raises(UserError, match="is a gpt2 model"):
        from transformers import GPT2Config

        folder = make_model(tmp_path / "other", "llama")
        GPT2Config(vocab_size=320).save_pretrained(folder)
        export_gguf(folder, tmp_path / "b.gguf")


def test_ways_to_split_texts() -> None:
    level = {"type": "ByteLevel", "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}| ?x"}}
    assert pre_tokenizer({"pre_tokenizer": level}) == "gpt-2"
    assert pre_tokenizer({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}) == "qwen2"
    digits = {"type": "Digits", "individual_digits": True}
    assert pre_tokenizer({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]}}) == "smollm"
    assert pre_tokenizer({"pre_tokenizer": {"type": "Whitespace"}}) is None
