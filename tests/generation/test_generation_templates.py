"""Prompts of the great families of chat templates, as literal text and ids; ``templates/`` holds the templates.

The tokenizer is the same for all: bytes, and the family's special tokens from id 256 on. Like the real ones of Llama,
Gemma and Mistral it adds a BOS token to every text by itself, which is how prompts come to have two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine
from w2s_align.generation.chat import Chat
from w2s_align.generation.chat_audit import audit
from w2s_align.generation.models import find_model

TEMPLATES = Path(__file__).parent / "templates"
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Yes"}
AGAIN = {"role": "user", "content": "Why?"}


@dataclass(frozen=True)
class Family:
    template: str
    special: list[str]
    bos: str | None
    eos: str
    one: str
    system: str | None
    turns: str
    answered: str
    stop: list[str]
    kwargs: tuple[tuple[str, object], ...] = ()


QWEN_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
FAMILIES = {
    "llama3": Family(
        "llama3",
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|begin_of_text|>",
        "<|end_of_text|>",
        one="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        system="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        turns="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        answered="Yes<|eot_id|>",
        stop=["<|end_of_text|>", "<|eot_id|>"],
    ),
    "qwen2_5": Family(
        "qwen2_5",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        None,
        "<|im_end|>",
        one=QWEN_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        turns=QWEN_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        answered="Yes<|im_end|>\n",
        stop=["<|im_end|>"],
    ),
    "qwen3": Family(
        "qwen3",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        None,
        "<|im_end|>",
        one="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        turns="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        answered="<think>\n\n</think>\n\nYes<|im_end|>\n",
        stop=["<|im_end|>"],
    ),
    "qwen3 without thinking": Family(
        "qwen3",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        None,
        "<|im_end|>",
        one="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        turns="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        answered="Yes<|im_end|>\n",
        stop=["<|im_end|>"],
        kwargs=(("enable_thinking", False),),
    ),
    "gemma": Family(
        "gemma",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<bos>",
        "<eos>",
        one="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        system=None,
        turns="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n"
        "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        answered="Yes<end_of_turn>\n",
        stop=["<eos>", "<end_of_turn>"],
    ),
    "gemma3": Family(
        "gemma3",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<bos>",
        "<eos>",
        one="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        system="<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n",
        turns="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n"
        "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        answered="Yes<end_of_turn>\n",
        stop=["<eos>", "<end_of_turn>"],
    ),
    "mistral": Family(
        "mistral",
        ["<s>", "</s>"],
        "<s>",
        "</s>",
        one="<s>[INST] Hi [/INST]",
        system=None,
        turns="<s>[INST] Hi [/INST]Yes</s>[INST] Why? [/INST]",
        answered="Yes</s>",
        stop=["</s>"],
    ),
    "tulu": Family(
        "tulu",
        ["<|begin_of_text|>", "<|end_of_text|>"],
        "<|begin_of_text|>",
        "<|end_of_text|>",
        one="<|user|>\nHi\n<|assistant|>\n",
        system="<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\n",
        turns="<|user|>\nHi\n<|assistant|>\nYes<|end_of_text|>\n<|user|>\nWhy?\n<|assistant|>\n",
        answered="Yes<|end_of_text|>",
        stop=["<|end_of_text|>"],
    ),
    "chatml": Family(
        "chatml",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        None,
        "<|endoftext|>",
        one="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        turns="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        answered="Yes<|im_end|>\n",
        stop=["<|endoftext|>", "<|im_end|>"],
    ),
    "deepseek_r1": Family(
        "deepseek_r1",
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        one="<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n",
        system="<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜><think>\n",
        turns="<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Yes<｜end▁of▁sentence｜><｜User｜>Why?<｜Assistant｜><think>\n",
        answered="",
        stop=["<｜end▁of▁sentence｜>"],
    ),
}
NAMES = list(FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: write_family(root / str(number), family) for number, (name, family) in enumerate(FAMILIES.items())}


def write_family(folder: Path, family: Family) -> Path:
    """Write what a model's folder holds besides weights, with a byte tokenizer that adds BOS by itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [letter for _, letter in sorted(byte_letters().items())]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    if family.bos is not None:
        bos = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(f"{family.bos} $A", special_tokens=[bos])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=family.bos, eos_token=family.eos)
    fast.chat_template = (TEMPLATES / f"{family.template}.jinja").read_text()
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").touch()  # weights are not looked at
    return folder


def byte_letters() -> dict[int, str]:
    """The letter that a byte-level tokenizer writes for each byte, as in GPT-2."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def chat_of(folders: dict[str, Path], name: str, **options: object) -> Chat:
    options = {"chat_template_kwargs": dict(FAMILIES[name].kwargs), **options}
    return Chat(find_model(folders[name]), Engine(**options))


def ids_of(family: Family, text: str) -> list[int]:
    """Ids of a text, computed without any tokenizer: bytes are themselves, special tokens come after them."""
    ids: list[int] = []
    while text:
        number = next((i for i, token in enumerate(family.special) if text.startswith(token)), None)
        taken = family.special[number] if number is not None else text[0]
        ids += [256 + number] if number is not None else list(taken.encode())
        text = text[len(taken) :]
    return ids


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_a_family_as_text_and_ids(folders: dict[str, Path], name: str) -> None:
    family, chat = FAMILIES[name], chat_of(folders, name)
    for messages, expected in (
        ([USER], family.one),
        ([SYSTEM, USER], family.system),
        ([USER, ANSWER, AGAIN], family.turns),
    ):
        if expected is not None:
            ids = chat.render(messages)
            assert chat.decode(ids) == expected
            assert ids == ids_of(family, expected)


def test_ids_of_one_prompt_in_full(folders: dict[str, Path]) -> None:
    llama = [256, 258, 117, 115, 101, 114, 259, 10, 10, 72, 105, 260]  # begin, header, "user", header end, "Hi", eot
    llama += [258, 97, 115, 115, 105, 115, 116, 97, 110, 116, 259, 10, 10]
    assert chat_of(folders, "llama3").render([USER]) == llama
    assert chat_of(folders, "mistral").render([USER]) == [256, *b"[INST] Hi [/INST]"]


@pytest.mark.parametrize("name", ["llama3", "gemma", "mistral", "deepseek_r1"])
def test_the_tokenizers_own_bos_does_not_make_two(folders: dict[str, Path], name: str) -> None:
    family, chat = FAMILIES[name], chat_of(folders, name)
    assert chat.tokenizer(family.one)["input_ids"][:2] == [256, 256]  # the trap
    assert chat.render([USER])[:2].count(256) == 1


@pytest.mark.parametrize("name", NAMES)
def test_stop_tokens_of_a_family(folders: dict[str, Path], name: str) -> None:
    chat = chat_of(folders, name)
    assert [chat.decode([i]) for i in chat.stop_token_ids()] == FAMILIES[name].stop


@pytest.mark.parametrize("name", [name for name in NAMES if name != "deepseek_r1"])
def test_a_prompt_is_the_beginning_of_prompt_and_answer(folders: dict[str, Path], name: str) -> None:
    chat = chat_of(folders, name)
    for messages in ([USER], [USER, ANSWER, AGAIN]):
        prompt = chat.render(messages)
        full = chat.render([*messages, ANSWER], generation_prompt=False)
        assert full[: len(prompt)] == prompt
        assert chat.decode(full[len(prompt) :]) == FAMILIES[name].answered
    assert audit(chat, [[USER], [USER, ANSWER, AGAIN]]) == []


def test_a_template_that_opens_the_reasoning_is_let_pass_with_a_warning(folders: dict[str, Path]) -> None:
    chat = chat_of(folders, "deepseek_r1")
    (warning,) = audit(chat, [[USER]])
    assert "opening tag of the reasoning (<think>) into the prompt" in warning
    assert "60 '<' | 116 't' | 104 'h'" in warning
    assert chat.splitter([USER]).opening == "<think>\n"


@pytest.mark.parametrize(("name", "reason"), [("gemma", "System role not supported"), ("mistral", "alternate")])
def test_a_system_turn_that_a_family_does_not_take(folders: dict[str, Path], name: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"system > user.*{reason}.*system_prompt"):
        audit(chat_of(folders, name, system_prompt="Be brief."), [[USER]])


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "gemma", "tulu", "mistral"])
def test_a_prefill_stands_after_the_generation_prompt(folders: dict[str, Path], name: str) -> None:
    chat = chat_of(folders, name, prefill="Sure,")
    assert chat.decode(chat.render([USER])) == FAMILIES[name].one + "Sure,"
    assert audit(chat, [[USER]]) == []
    assert chat.splitter([USER]).opening == "Sure,"
    assert [chat.decode([i]) for i in chat.stop_token_ids()] == FAMILIES[name].stop


def test_a_prefill_that_opens_the_reasoning(folders: dict[str, Path]) -> None:
    chat = chat_of(folders, "qwen3", prefill="<think>\nFirst,")
    assert audit(chat, [[USER]]) == []
    assert chat.splitter([USER]).opening == "<think>\nFirst,"
    closed = chat_of(folders, "qwen3 without thinking")
    assert closed.splitter([USER]).opening == ""


def test_a_prefill_that_the_template_changes_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"not a prefix of the same prompt with a response.*prefill"):
        audit(chat_of(folders, "llama3", prefill=" Sure,"), [[USER]])  # it trims responses


def test_tags_that_are_special_tokens_are_refused_unless_reasoning_is_kept(folders: dict[str, Path]) -> None:
    tags = {"think_tags": ("<|im_start|>", "<|im_end|>")}
    with pytest.raises(UserError, match=r"<\|im_start\|> and <\|im_end\|> are special tokens"):
        audit(chat_of(folders, "chatml", thinking="separate", **tags), [[USER]])
    assert audit(chat_of(folders, "chatml", thinking="keep", **tags), [[USER]]) == []
