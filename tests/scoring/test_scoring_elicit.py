"""What a language model says of an item by itself: the probabilities of words, in one order or in both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.lab import build_tokenizer
from w2s_align.records import Prompt, from_table, to_table
from w2s_align.records import Score as ScoreRow
from w2s_align.scoring.elicit import Words, _together, check_words
from w2s_align.scoring.labels import label_items
from w2s_align.scoring.scorer import Outcome

WORDS = Words(by_class={"0": "n", "1": "y"}, question="{options}? Label:")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language") / "model"
    shape = LlamaConfig(
        vocab_size=261, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=60, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


ITEMS = to_table([Prompt.of(text, answer="1") for text in ("one", "and two", "x" * 90)])


def read(model: Path, words: Words) -> list[ScoreRow]:
    return from_table(ScoreRow, label_items(str(model), ITEMS, name="m", words=words))


def plainly(model: Path, text: str, options: str) -> list[float]:
    """The same by transformers alone: one item, its last token, two words."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    content = f"{text}\n{options}? Label:"
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": content}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    else:
        ids = tokenizer(content)["input_ids"]
    words = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in "ny"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(input_ids=torch.tensor([ids])).logits[0, -1, words]
    return list(logits.double().softmax(dim=0).tolist())


def test_the_label_is_the_probability_of_the_words_after_the_question(model: Path) -> None:
    found = read(model, WORDS)
    for row, text in zip(found[:2], ("one", "and two"), strict=True):
        assert row.probabilities is not None
        assert [entry["label"] for entry in row.probabilities] == ["0", "1"]
        assert [entry["p"] for entry in row.probabilities] == pytest.approx(plainly(model, text, "n or y"), abs=1e-5)
    assert found[2].value is None and found[2].outcome == Outcome.TOO_LONG


def test_both_orders_are_asked_and_the_surer_one_decides_where_they_differ(model: Path) -> None:
    found = read(model, WORDS.model_copy(update={"both_orders": True}))
    for row, text in zip(found[:2], ("one", "and two"), strict=True):
        wanted = _together(plainly(model, text, "n or y"), plainly(model, text, "y or n"))
        assert [entry["p"] for entry in row.probabilities or ()] == pytest.approx(wanted, abs=1e-5)
    assert _together([0.7, 0.3], [0.9, 0.1]) == pytest.approx([0.8, 0.2])
    assert _together([0.7, 0.3], [0.1, 0.9]) == [0.1, 0.9] and _together([0.7, 0.3], None) is None


def test_words_that_cannot_be_told_apart_are_refused(model: Path) -> None:
    with pytest.raises(UserError, match="begin with the same token"):
        read(model, Words(by_class={"0": "yes", "1": "yellow"}))
    with pytest.raises(UserError, match="a word of its own"):
        check_words(Words(by_class={"0": "a", "1": "a"}))
    with pytest.raises(UserError, match="lists no words"):
        check_words(Words(by_class={"0": "a", "1": "b"}, question="Label:", both_orders=True))
