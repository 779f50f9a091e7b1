"""A real tiny classifier of texts: the probability of one class, whatever the batch; what is none of its classes."""

from __future__ import annotations

import pytest

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score
from w2s_align.scoring.scorers.class_probability import ClassProbabilityScorer


def classifier(folder, labels, **options):
    """A BERT with random weights; its tokenizer knows single digits."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {token: place for place, token in enumerate(["<pad>", "<unk>", *"0123456789"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        pad_token_id=0,
        **options,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("toxic"), ["neutral", "toxic"])


def values(model, texts, **options):
    prompts = [Prompt.of(f"prompt {i}") for i in range(len(texts))]
    responses = [Response(p.id, 0, "m", text) for p, text in zip(prompts, texts, strict=True)]
    return score(to_table(prompts), to_table(responses), ClassProbabilityScorer(model=model, **options)).table


def test_the_probability_of_a_class_does_not_depend_on_the_batch(model):
    texts = [str(7**i) for i in range(1, 15)]
    one = values(model, texts, of_class="toxic", batch_size=1)["value"].to_pylist()
    many = values(model, texts, of_class="toxic", batch_size=5)["value"].to_pylist()
    other = values(model, texts, of_class="neutral")["value"].to_pylist()
    assert many == pytest.approx(one, abs=1e-5)
    assert [a + b for a, b in zip(one, other, strict=True)] == pytest.approx([1.0] * len(texts), abs=1e-5)
    assert len({round(value, 3) for value in one}) > 5


def test_classes_that_are_independent_do_not_share_a_sum(tmp_path):
    model = classifier(tmp_path, ["toxic", "insult", "threat"], problem_type="multi_label_classification")
    sums = sum(values(model, ["123"], of_class=name)["value"][0].as_py() for name in ("toxic", "insult", "threat"))
    assert abs(sums - 1) > 1e-3


def test_a_text_that_is_too_long_is_unscored_and_an_unknown_class_is_refused(model):
    table = values(model, ["1" * 40, "1"], of_class="toxic")
    assert table["value"].is_null().to_pylist() == [True, False]
    assert table["outcome"][0].as_py() == "longer than the model reads"
    with pytest.raises(UserError, match="has no class toxix") as caught:
        values(model, ["1"], of_class="toxix")
    assert "toxic" in str(caught.value)
