"""The lab's tokenizer: exact round trips, and prompts that are token prefixes of whole chats."""

from pathlib import Path

import pytest

from w2s_align.lab import build_tokenizer

TEXTS = [
    "3847+5296",
    "U7+6+0=13\nT4+9+1=14\n9143",
    "",
    " ",
    "  two  spaces ,and . marks !",
    "\ttab\r\n",
    "é 你好 🙂\x00\x7f",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_exactly(text: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(text, add_special_tokens=True)["input_ids"]
    assert ids == [byte + 5 for byte in text.encode()]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens() -> None:
    tokenizer = build_tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)
    assert tokenizer.convert_tokens_to_ids(["<|system|>", "<|user|>", "<|assistant|>"]) == [2, 3, 4]
    assert len(tokenizer) == 261


def test_rendered_chat_as_a_literal() -> None:
    tokenizer = build_tokenizer()
    chat = [{"role": "user", "content": "1+2"}, {"role": "assistant", "content": "3"}]
    prompt = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    assert prompt == [3, 54, 48, 55, 1, 4]
    assert whole == [3, 54, 48, 55, 1, 4, 56, 1]


@pytest.mark.parametrize("question", TEXTS)
@pytest.mark.parametrize("answer", TEXTS)
def test_prompt_tokens_and_answer_tokens_are_the_whole(question: str, answer: str) -> None:
    tokenizer = build_tokenizer()
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": answer}], return_dict=True)
    assert whole["input_ids"] == [*prompt, *tokenizer(answer)["input_ids"], tokenizer.eos_token_id]


def test_unknown_role_is_refused() -> None:
    with pytest.raises(Exception, match="knows the roles system, user and assistant, not tool"):
        build_tokenizer().apply_chat_template([{"role": "tool", "content": "x"}])


def test_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    build_tokenizer().save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast
    assert loaded.chat_template == build_tokenizer().chat_template
    assert loaded("3847+5296 é")["input_ids"] == build_tokenizer()("3847+5296 é")["input_ids"]
    assert loaded.decode(loaded(" a , b ")["input_ids"]) == " a , b "
