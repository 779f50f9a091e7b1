"""Fused decoding: the model itself without a shift; with one, what the sum of logits says without caches."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from w2s_align.errors import UserError
from w2s_align.families.fused_logits import fused_log_probs
from w2s_align.families.fusion import Contrast, Fusion
from w2s_align.generation import Engine, EngineResources, Sampling, generate

PROMPTS = ["1+2=", "what is 33+48?", "9"]
GREEDY = Sampling(temperature=0, max_tokens=12)


def written(model, sampling, fusion=None):
    engine = Engine(name="transformers", fusion=fusion)
    result = generate(model, PROMPTS, sampling, engine=engine, resources=EngineResources(batch_size=3))
    return [row["text"] for row in result.table().to_pylist()]


def fusion(plus, minus, alpha=1.0, **changes):
    return Fusion(contrasts=[Contrast(plus=str(plus), minus=str(minus), alpha=alpha)], **changes)


def by_hand(model, plus, minus, alpha, plausibility):
    """Greedy decoding of the fused model, one prompt at a time and without caches."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    models = [
        AutoModelForCausalLM.from_pretrained(one, trust_remote_code=False).eval() for one in (model, plus, minus)
    ]
    texts = []
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        start = len(ids)
        while len(ids) < start + GREEDY.max_tokens and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
            with torch.no_grad():
                z = [one(input_ids=torch.tensor([ids])).logits[0, -1] for one in models]
            ids.append(int(fused_log_probs(z[0], [(alpha, z[1], z[2])], plausibility, remove=True).argmax()))
        texts.append(tokenizer.decode(ids[start:], skip_special_tokens=True))
    return texts


def test_a_shift_of_nothing_changes_no_token(tiny_model, other_model):
    drawn = Sampling(temperature=1, max_tokens=12)
    for sampling in (GREEDY, drawn):
        plain = written(tiny_model, sampling)
        assert written(tiny_model, sampling, fusion(other_model, tiny_model, alpha=0)) == plain
        assert written(tiny_model, sampling, fusion(other_model, other_model)) == plain or sampling is drawn


@pytest.mark.parametrize("plausibility", [0.1, None])
def test_tokens_are_those_of_the_summed_logits(tiny_model, other_model, third_model, plausibility):
    shifted = fusion(other_model, third_model, alpha=1.5, plausibility=plausibility)
    found = written(tiny_model, GREEDY, shifted)
    assert found == by_hand(tiny_model, other_model, third_model, 1.5, plausibility)
    assert found != written(tiny_model, GREEDY)


def test_a_minus_of_the_model_itself_is_the_plus(tiny_model, other_model):
    """z + (z' - z) = z': whatever the student is, the expert writes."""
    assert written(tiny_model, GREEDY, fusion(other_model, tiny_model, plausibility=None)) == written(
        other_model, GREEDY
    )


def test_what_cannot_be_fused_is_refused(tiny_model, other_model, model_copy):
    with pytest.raises(ValueError, match="fusion needs the transformers engine, and name is auto"):
        Engine(fusion=fusion(other_model, tiny_model))
    tokens = model_copy / "tokenizer.json"
    tokens.write_text(tokens.read_text().replace('"a": ', '"A": '))
    with pytest.raises(UserError, match="has another vocabulary than"):
        written(tiny_model, GREEDY, fusion(model_copy, tiny_model))
    assert "fusion" not in Engine().model_dump()  # answers of before there was one keep their keys
