"""SFT through TRL: the loss against a plain computation, learning from random weights, chats and pairs."""

import json

import pytest
import torch

from w2s_align.training import Lora, SFTSettings, train
from w2s_align.training.models import load_model, open_start


def settings(**changes):
    plain = {"batch_size": 4, "max_steps": 1, "lr_scheduler_type": "constant", "warmup_steps": 0}
    return SFTSettings(**{"learning_rate": 1e-3} | plain | changes)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_loss_is_the_cross_entropy_of_the_response(tiny, student, tmp_path, side):
    rows = tiny.pairs(4)
    report = train(student, rows, tmp_path, settings(side=side))
    model, tokenizer = load_model(student), open_start(student).tokenizer
    total, tokens = 0.0, 0
    for row in rows:
        start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"]
        labels = torch.tensor([[-100] * len(start) + ids[len(start) :]])
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids]), labels=labels).loss
        total, tokens = total + float(mean) * (len(ids) - len(start)), tokens + len(ids) - len(start)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(total / tokens, rel=1e-4)
    assert report.lengths["response"]["total"] == tokens


def test_a_random_model_learns_a_constant_answer(student, tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{i}="}], "completion": [{"role": "assistant", "content": "77"}]}
        for i in range(64)
    ]
    report = train(
        student, rows, tmp_path, settings(learning_rate=1e-2, batch_size=16, num_train_epochs=8, max_steps=None)
    )
    assert report.steps == 32
    assert report.metrics["last"]["loss"] < 0.05 < 1 < report.metrics["first"]["loss"]
    assert report.tokens > 0
    model, tokenizer = load_model(report.model_dir), open_start(report.model_dir).tokenizer
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "5="}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "77</s>"


def test_an_adapter_and_the_other_loss(tiny, student, tmp_path):
    report = train(
        student, tiny.pairs(8), tmp_path, settings(adapter=Lora(r=2), loss="dft", max_steps=2, learning_rate=1e-2)
    )
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert report.verified["logit_error"] < 1e-4
