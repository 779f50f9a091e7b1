"""Pairs whose responses hold several turns: loss on the assistant's turns alone, in every kind that can."""

import json
import math

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.training import (
    CPOSettings,
    DPOSettings,
    KTOSettings,
    ORPOSettings,
    RewardModelSettings,
    SimPOSettings,
    TrainResources,
    train,
)
from w2s_align.training.models import load_model, open_start

SHARED = {
    "learning_rate": 1e-3,
    "batch_size": 4,
    "max_steps": 1,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
}


def turn(role, content):
    return {"role": role, "content": content}


def make_rows():
    return [
        {
            "prompt": [turn("user", f"{i}+1=")],
            "chosen": [turn("assistant", "12"), turn("user", "a=b"), turn("assistant", f"{i}{i}")],
            "rejected": [turn("assistant", "3" * (i + 1))],
        }
        for i in range(3)
    ] + [{"prompt": [turn("user", "7")], "chosen": [turn("assistant", "8")], "rejected": [turn("assistant", "99")]}]


def own_tokens(model, tokenizer, row, side):
    """Log-probabilities of the tokens of the assistant's turns, each found by rendering the chat up to it."""
    chat, start = [*row["prompt"], *row[side]], len(row["prompt"])
    ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
    found = []
    for at in range(start, len(chat)):
        if chat[at]["role"] == "assistant":
            begin = len(
                tokenizer.apply_chat_template(chat[:at], add_generation_prompt=True, return_dict=True)["input_ids"]
            )
            end = len(tokenizer.apply_chat_template(chat[: at + 1], return_dict=True)["input_ids"])
            found += [float(scores[i - 1, ids[i]]) for i in range(begin, end)]
    return found


def nls(x):
    return math.log1p(math.exp(-x))


def mean(values):
    return sum(values) / len(values)


def first(out):
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


@pytest.fixture(scope="module")
def known(tiny, student, tmp_path_factory):
    """The rows, with the log-probabilities of the assistant's tokens under the student and another model."""
    other = tiny.model(tmp_path_factory.mktemp("other") / "model", tiny.tokenizer(), seed=5)
    tokenizer = open_start(student).tokenizer
    logps = {
        name: [
            {side: own_tokens(load_model(path), tokenizer, row, side) for side in ("chosen", "rejected")}
            for row in make_rows()
        ]
        for name, path in (("student", student), ("other", other))
    }
    return other, logps


@pytest.mark.parametrize(("loss", "free"), [("sigmoid", True), ("sigmoid", False), ("sigmoid_norm", True)])
def test_dpo_learns_the_assistants_turns_alone(student, tmp_path, known, loss, free):
    other, logps = known
    settings = DPOSettings(loss=loss, beta=0.5, reference=str(other), **SHARED)
    report = train(student, make_rows(), tmp_path, settings, resources=TrainResources(padding_free=free))

    def ratio(row, side):
        policy, reference = logps["student"][row][side], logps["other"][row][side]
        total = sum(policy) - sum(reference)
        return total / len(policy) if loss == "sigmoid_norm" else total

    wanted = mean([nls(0.5 * (ratio(i, "chosen") - ratio(i, "rejected"))) for i in range(4)])
    assert first(tmp_path)["loss"] == pytest.approx(wanted, rel=1e-4)
    assert report.lengths["chosen"]["total"] == sum(len(row["chosen"]) for row in logps["student"])
    assert report.lengths["others"] == {"min": 0, "mean": 15 / 4, "max": 5, "total": 15}
    assert any("3 rows have responses of several turns" in note for note in report.notes)


@pytest.mark.parametrize(
    "settings",
    [SimPOSettings(beta=2, margin=0.5, **SHARED), CPOSettings(beta=0.5, nll_weight=0, **SHARED)],
    ids=lambda settings: type(settings).__name__,
)
def test_losses_without_a_reference_leave_others_out(student, tmp_path, known, settings):
    train(student, make_rows(), tmp_path, settings)
    logps = known[1]["student"]
    if isinstance(settings, SimPOSettings):
        values = [nls(2 * (mean(row["chosen"]) - mean(row["rejected"])) - 0.5) for row in logps]
    else:
        values = [nls(0.5 * (sum(row["chosen"]) - sum(row["rejected"]))) for row in logps]
    assert first(tmp_path)["loss"] == pytest.approx(mean(values), rel=1e-4)


def test_kto_leaves_others_out_also_in_its_kl_term(student, tmp_path, known):
    train(student, make_rows(), tmp_path, KTOSettings(kl_batch=8, **{**SHARED, "batch_size": 8}))
    assert first(tmp_path)["logps/chosen"] == pytest.approx(
        mean([sum(row["chosen"]) for row in known[1]["student"]]), rel=1e-4
    )


def test_a_neighbors_turns_move_with_its_response():
    from w2s_align.training.methods.kto import _moved

    assert _moved({"neighbor_others": [[2, 4]]}, 7) == [(9, 11)] and _moved({"neighbor_others": None}, 7) == []


def test_a_reward_model_reads_all_turns_and_orpo_refuses_them(student, tmp_path):
    report = train(student, make_rows(), tmp_path / "reward", RewardModelSettings(**SHARED))
    assert report.counts.kept == 4
    with pytest.raises(UserError, match="3 pairs have responses of several turns, which orpo"):
        train(student, make_rows(), tmp_path / "orpo", ORPOSettings(**SHARED))


def test_rows_that_are_no_responses_are_counted(student, tmp_path):
    rows = make_rows()
    talk = [*rows[0]["prompt"], turn("assistant", "1"), turn("user", "2")]
    whole = [{"chosen": [*talk, turn("assistant", "3")], "rejected": [*rows[0]["prompt"], turn("assistant", "5")]}]
    broken = [
        {**rows[0], "chosen": rows[0]["chosen"][:2]},
        {**rows[0], "rejected": [*rows[0]["prompt"], turn("assistant", "3")]},
    ]
    report = train(student, rows + broken, tmp_path / "a", DPOSettings(**SHARED))
    assert report.counts.dropped == {"response_not_the_assistants": 1, "different_prompts": 1}
    report = train(student, whole * 4, tmp_path / "b", DPOSettings(**SHARED))
    assert report.counts.kept == 4 and report.lengths["others"]["max"] == 3
