"""A real tiny reward model, through transformers and through vLLM."""

import importlib.util

import pytest

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score
from w2s_align.scoring.scorers.reward import RewardScorer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Llama with random weights, one label, and the lab's tokenizer with its chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from w2s_align.lab import build_tokenizer

    folder = tmp_path_factory.mktemp("reward")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tables(n=20):
    prompts = [Prompt.of(f"{i}+{i}") for i in range(n)]
    responses = [Response(p.id, 0, "m", "1" * (i + 1)) for i, p in enumerate(prompts)]
    return to_table(prompts), to_table(responses)


def test_transformers_scores_do_not_depend_on_the_batch(model):
    prompts, responses = tables()
    one = score(prompts, responses, RewardScorer(model=model, engine="transformers", batch_size=1))
    many = score(prompts, responses, RewardScorer(model=model, engine="transformers", batch_size=7))
    values = one.table["value"].to_pylist()
    assert many.table["value"].to_pylist() == pytest.approx(values, abs=1e-4)
    assert len({round(value, 3) for value in values}) == 20
    assert set(one.table["scorer"].to_pylist()) == {f"reward:{model}"}


def test_scores_are_raw_logits_of_the_whole_chat(model):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    prompts, responses = tables(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = [{"role": "user", "content": "0+0"}, {"role": "assistant", "content": "1"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
    with torch.no_grad():
        expected = AutoModelForSequenceClassification.from_pretrained(model)(input_ids=ids).logits.item()
    found = score(prompts, responses, RewardScorer(model=model, engine="transformers"))
    assert found.table["value"].to_pylist() == [pytest.approx(expected, abs=1e-4)]


def test_a_chat_that_is_too_long_is_unscored(model):
    prompts, responses = tables(3)
    found = score(prompts, responses, RewardScorer(model=model, engine="transformers", max_length=2))
    assert found.unscored == {"longer than the model reads": 3}


def test_a_model_that_is_no_reward_model_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is not a reward model"):
        score(*tables(1), RewardScorer(model=str(tmp_path), engine="transformers"))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_gives_the_same_scores(model):
    prompts, responses = tables()
    slow = score(prompts, responses, RewardScorer(model=model, engine="transformers", dtype="float32"))
    fast = score(prompts, responses, RewardScorer(model=model, engine="vllm", dtype="float32"))
    assert fast.table["value"].to_pylist() == pytest.approx(slow.table["value"].to_pylist(), abs=1e-3)
