"""Stand-ins: the form of their chats as literal text, and a model that answers, ends and differs from another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from w2s_align.families import family_of, make_stand_in, own_family
from w2s_align.families.stand_in import build_tokenizer

CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "Why?"},
]
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
TURNS = {
    "Qwen/Qwen2.5-3B-Instruct": QWEN + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "Qwen/Qwen3-0.6B": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "meta-llama/Llama-3.1-8B-Instruct": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "allenai/Llama-3.1-Tulu-3-8B-SFT": "<|user|>\nHi\n<|assistant|>\nYes<|end_of_text|>\n"
    "<|user|>\nWhy?\n<|assistant|>\n",
    "allenai/OLMo-2-0425-1B-Instruct": "<|endoftext|><|user|>\nHi\n<|assistant|>\nYes<|endoftext|>\n"
    "<|user|>\nWhy?\n<|assistant|>\n",
    "somebody/something": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.mark.parametrize("model", TURNS)
def test_a_chat_has_the_form_of_its_family(model: str) -> None:
    tokenizer = build_tokenizer(family_of(model))
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == TURNS[model]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_qwen3_thinks_unless_told_otherwise_and_forgets_earlier_thoughts() -> None:
    tokenizer = build_tokenizer(family_of("Qwen/Qwen3-32B"))
    thought = [CHAT[0], {"role": "assistant", "content": "<think>\nwell\n</think>\n\nYes"}]
    shown = tokenizer.apply_chat_template(thought, tokenize=False)
    assert shown.endswith("<|im_start|>assistant\n<think>\nwell\n</think>\n\nYes<|im_end|>\n")
    assert "well" not in tokenizer.apply_chat_template([*thought, CHAT[2]], tokenize=False)
    quiet = tokenizer.apply_chat_template(CHAT[:1], tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert quiet.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_stand_in_answers_ends_and_differs_from_another(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said = []
    for like in ("Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"):
        made = make_stand_in(tmp_path / like.rpartition("/")[2], like)
        assert (made.architecture, made.known) == ("qwen2", True) and made.loss is not None and made.loss < 0.6
        model, tokenizer = AutoModelForCausalLM.from_pretrained(made.model), AutoTokenizer.from_pretrained(made.model)
        assert str(model.dtype) == "torch.bfloat16" and model.config.tie_word_embeddings
        ids = tokenizer.apply_chat_template(
            CHAT[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        answer = model.generate(**ids, max_new_tokens=64, do_sample=False)[0][ids["input_ids"].shape[1] :]
        assert len(answer) < 64 and tokenizer.decode(answer[-1]) == "<|im_end|>"
        said.append(tokenizer.decode(answer))
    assert said[0] != said[1]


def test_the_own_chat_template_of_a_model_goes_before_that_of_its_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert own_family("me/talker") is None and own_family(str(tmp_path)) is None
    repository = tmp_path / "models--me--talker"
    files = repository / "snapshots" / ("0" * 40)
    files.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (files / "chat_template.jinja").write_text("{% for m in messages %}<t>{{ m.content }}</t>{% endfor %}")
    added = {"7": {"content": "<t>", "special": True}, "8": {"content": "</t>", "special": True}}
    config = {"added_tokens_decoder": added, "eos_token": {"content": "<end>"}, "bos_token": None}
    (files / "tokenizer_config.json").write_text(json.dumps(config))
    (files / "generation_config.json").write_text('{"eos_token_id": [8, 99]}')
    own = own_family("me/talker")
    assert own is not None and (own.special, own.stop) == (("<t>", "</t>", "<end>"), ("</t>", "<end>"))
    tokenizer = build_tokenizer(own)
    assert tokenizer.apply_chat_template(CHAT[:2], tokenize=False) == "<t>Hi</t><t>Yes</t>"
    assert tokenizer("<t>Hi</t>", add_special_tokens=False)["input_ids"] == [256, 72, 105, 257]


def test_a_stand_in_for_a_reward_model_gives_a_chat_one_number(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made = make_stand_in(tmp_path / "rm", "Qwen/Qwen2.5-7B-Instruct", reward=True)
    assert made.loss is None
    model = AutoModelForSequenceClassification.from_pretrained(made.model)
    ids = AutoTokenizer.from_pretrained(made.model).apply_chat_template(CHAT, return_tensors="pt", return_dict=True)
    assert model(**ids).logits.shape == (1, 1)
