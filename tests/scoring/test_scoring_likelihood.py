"""Log-probabilities and implicit rewards of a real tiny model."""

import math

import pytest

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score
from w2s_align.scoring.scorers.logprob import LogprobScorer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two Llamas with different random weights and the lab's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from w2s_align.lab import build_tokenizer

    tokenizer, folders = build_tokenizer(), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        folders.append(str(tmp_path_factory.mktemp("model")))
        LlamaForCausalLM(config).save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    return folders


def tables(texts):
    prompt = Prompt.of("12+34")
    return to_table([prompt]), to_table([Response(prompt.id, i, "m", text) for i, text in enumerate(texts)])


def by_hand(model, text):
    """Sum the log-probabilities of the answer's tokens, one forward pass without padding, one token at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = [{"role": "user", "content": "12+34"}]
    start = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text}], tokenize=False)
    begin = len(tokenizer(start, add_special_tokens=False).input_ids)
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    with torch.no_grad():
        logps = (
            AutoModelForCausalLM.from_pretrained(model, dtype="float32")(torch.tensor([ids])).logits[0].log_softmax(-1)
        )
    return sum(float(logps[i - 1, ids[i]]) for i in range(begin, len(ids))), len(ids) - begin


def test_logprob_is_the_sum_over_the_answer(models):
    texts = ["46", "1", "4+4=8\n46"]
    expected = [by_hand(models[0], text) for text in texts]
    for batch_size in (1, 3):
        found = score(*tables(texts), LogprobScorer(model=models[0], batch_size=batch_size)).table
        assert found["value"].to_pylist() == pytest.approx([total for total, _ in expected], abs=1e-4)
    assert found["detail"].to_pylist() == [f"{n} tokens" for _, n in expected]
    means = score(*tables(texts), LogprobScorer(model=models[0], per_token=True)).table["value"].to_pylist()
    assert means == pytest.approx([total / n for total, n in expected], abs=1e-4)


def test_implicit_reward(models):
    texts = ["46", "1"]
    own = score(*tables(texts), LogprobScorer(model=models[0], reference=models[0])).table
    assert own["value"].to_pylist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert own["scorer"][0].as_py() == f"implicit_reward:{models[0]}"
    other = score(*tables(texts), LogprobScorer(model=models[0], reference=models[1], beta=0.5)).table
    expected = [0.5 * (by_hand(models[0], text)[0] - by_hand(models[1], text)[0]) for text in texts]
    assert other["value"].to_pylist() == pytest.approx(expected, abs=1e-4)


def test_a_chat_that_is_too_long_is_unscored(models):
    found = score(*tables(["1" * 100, "1"]), LogprobScorer(model=models[0]))
    assert found.unscored == {"longer than the model reads": 1} and found.scored == 1


def test_a_reference_with_another_vocabulary_is_refused(models, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(models[0]).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="different vocabularies"):
        score(*tables(["1"]), LogprobScorer(model=models[0], reference=str(tmp_path)))


def judged(model, texts, template="{first} {second}"):
    """Let a model judge by the log-probabilities of A and B."""
    from w2s_align.scoring.judge import judge
    from w2s_align.scoring.judge_prompts import JudgeSettings

    settings = JudgeSettings(mode="logprob", template="{prompt}" + template)
    return judge(model, *tables(texts), settings, model_name="me")


def test_a_judge_by_log_probabilities_asks_in_both_orders(models):
    def preferred(first, second):
        """Probability of A among A and B, by the log-probability of each as an answer."""
        prompt = Prompt.of(f"12+34{first} {second}")
        answers = to_table([Response(prompt.id, i, "m", letter) for i, letter in enumerate("AB")])
        a, b = score(to_table([prompt]), answers, LogprobScorer(model=models[0])).table["value"].to_pylist()
        return 1 / (1 + math.exp(b - a))

    found = judged(models[0], ["46", "1"])
    shown = {row["shown"]: row["value"] for row in found.verdicts.to_pylist()}
    assert shown["first"] == pytest.approx(preferred("46", "1"), abs=1e-4)
    assert shown["second"] == pytest.approx(1 - preferred("1", "46"), abs=1e-4)
    values = found.scores.table["value"].to_pylist()
    agreed = (shown["first"] > 0.5) == (shown["second"] > 0.5)
    mean = (shown["first"] + shown["second"]) / 2
    assert values == (pytest.approx([mean, 1 - mean], abs=1e-6) if agreed else [None, None])
    assert found.generation is None and sum(found.reliability.comparisons.values()) == 1


def test_equal_responses_are_not_asked_and_long_questions_have_no_score(models):
    same = judged(models[0], ["46", "46"])
    assert same.verdicts["verdict"].to_pylist() == ["same text"]
    assert same.scores.table["value"].to_pylist() == [0.5, 0.5]
    long = judged(models[0], ["4" * 60, "1"])
    assert set(long.verdicts["verdict"].to_pylist()) == {"the judge's prompt is too long"}
    assert long.scores.table["value"].to_pylist() == [None, None] and long.reliability.unreadable == 1
