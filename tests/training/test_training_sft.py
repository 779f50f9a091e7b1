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


@pytest.mark.parametrize("side", ["chosen", "rejected", "both"])
def test_the_loss_is_the_cross_entropy_of_the_response(tiny, student, tmp_path, side):
    rows = tiny.pairs(4)
    sides = ["chosen", "rejected"] if side == "both" else [side]
    report = train(student, rows, tmp_path, settings(side=side, batch_size=4 * len(sides)))
    model, tokenizer = load_model(student), open_start(student).tokenizer
    total, tokens = 0.0, 0
    for row, one in ((row, one) for row in rows for one in sides):
        start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = tokenizer.apply_chat_template(row["prompt"] + row[one], return_dict=True)["input_ids"]
        labels = torch.tensor([[-100] * len(start) + ids[len(start) :]])
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids]), labels=labels).loss
        total, tokens = total + float(mean) * (len(ids) - len(start)), tokens + len(ids) - len(start)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(total / tokens, rel=1e-4)
    assert report.lengths["response"]["total"] == tokens


def test_loss_on_all_turns_of_the_assistant_is_the_cross_entropy_of_exactly_these(tiny, student, tmp_path):
    rows = [
        {"messages": [
            {"role": "user", "content": f"{i}+1="}, {"role": "assistant", "content": "0" * (i + 1)},
            {"role": "user", "content": "a"}, {"role": "assistant", "content": f"{i + 1}"},
        ]}
        for i in range(4)
    ]  # fmt: skip
    model, tokenizer = load_model(student), open_start(student).tokenizer

    def expected(learned):
        total, tokens = 0.0, 0
        for row in rows:
            chat = row["messages"]
            ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
            labels = [-100] * len(ids)
            for turn in learned:
                before = tokenizer.apply_chat_template(chat[:turn], add_generation_prompt=True, return_dict=True)
                after = tokenizer.apply_chat_template(chat[: turn + 1], return_dict=True)
                span = slice(len(before["input_ids"]), len(after["input_ids"]))
                labels[span] = ids[span]
            count = sum(label != -100 for label in labels)
            with torch.no_grad():
                loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
            total, tokens = total + float(loss) * count, tokens + count
        return total / tokens, tokens

    for turns, learned in (("all", (1, 3)), ("last", (3,))):
        report = train(student, rows, tmp_path / turns, settings(turns=turns))
        loss, tokens = expected(learned)
        assert metrics(tmp_path / turns)[0]["loss"] == pytest.approx(loss, rel=1e-4)
        assert report.lengths["response"]["total"] == tokens


def test_a_template_that_changes_earlier_turns_is_counted_where_all_turns_are_learned(tiny, tmp_path):
    forgets = tiny.template.replace(
        "<assistant>{{ m['content'] }}", "<assistant>{{ m['content'][-1 if loop.last else 0:] }}"
    )
    assert forgets != tiny.template
    model = tiny.model(tmp_path / "model", tiny.tokenizer(forgets))
    two = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "22"}] * 2
    rows = [{"messages": two}, {"messages": two[:2]}]
    report = train(model, rows, tmp_path / "out", settings(turns="all", batch_size=1, template_check="warn"))
    assert report.counts.dropped == {"template_changes_earlier_turns": 1}


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
