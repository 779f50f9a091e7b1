"""Health rules on literal rows, and each alarm raised by a training that really goes wrong."""

import math

import pytest

from w2s_align.errors import UserError
from w2s_align.training import DPOSettings, SFTSettings, train
from w2s_align.training.health import Health

LN2 = math.log(2)


def row(step, loss=LN2, margin=0.0, chosen=0.0, rejected=0.0, **more):
    return {
        "step": step,
        "loss": loss,
        "grad_norm": 1.0,
        "rewards/margins": margin,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "logps/chosen": -40.0,
        "logps/rejected": -60.0,
    } | more


def test_a_correct_start_passes():
    health = Health(start_loss=math.log(2), beta=0.1)
    health.observe(row(1))
    assert health.alarms == []


@pytest.mark.parametrize("wrong", [row(1, margin=0.3), row(1, loss=0.8)])
def test_a_start_that_is_not_the_reference_stops(wrong):
    with pytest.raises(UserError, match="Before the first update"):
        Health(start_loss=math.log(2), beta=0.1).observe(wrong)


def test_lower_precision_gets_a_wider_tolerance():
    Health(start_loss=math.log(2), beta=0.1, exact=False).observe(row(1, loss=0.70, margin=0.01))


@pytest.mark.parametrize("broken", [{"loss": float("nan")}, {"grad_norm": float("inf")}])
def test_a_number_that_is_not_finite_stops(broken):
    with pytest.raises(UserError, match="at step 7"):
        Health().observe({"step": 7, "loss": 1.0} | broken)


def test_a_gradient_spike_is_one_alarm():
    health = Health()
    for step in range(1, 30):
        health.observe({"step": step, "loss": 1.0, "grad_norm": 50.0 if step in (25, 26) else 1.0})
    assert [(alarm["step"], alarm["kind"]) for alarm in health.alarms] == [(25, "gradient_spike")]


def test_both_likelihoods_falling_is_an_alarm_and_one_is_not():
    falling, learning = Health(start_loss=math.log(2), beta=0.1), Health(start_loss=math.log(2), beta=0.1)
    for step in range(1, 41):
        falling.observe(row(step, chosen=-0.05 * (step - 1), rejected=-0.1 * (step - 1), margin=0.05 * (step - 1)))
        learning.observe(row(step, chosen=0.05 * (step - 1), rejected=-0.1 * (step - 1), margin=0.15 * (step - 1)))
    assert [alarm["kind"] for alarm in falling.alarms] == ["both_fall"]
    assert learning.alarms == []


def test_a_loss_that_stays_at_its_start_is_an_alarm():
    health = Health(start_loss=math.log(2), beta=0.1)
    for step in range(1, 21):
        health.observe(row(step))
    health.finish(20)
    assert [alarm["kind"] for alarm in health.alarms] == ["no_learning"]


PLAIN = {"batch_size": 4, "lr_scheduler_type": "constant", "warmup_steps": 0}


def kinds(report):
    return [alarm["kind"] for alarm in report.alarms]


def test_a_training_that_diverges_stops_with_what_to_do(tiny, student, tmp_path):
    settings = DPOSettings(**PLAIN, learning_rate=1e18, max_grad_norm=0, max_steps=5)
    with pytest.raises(UserError, match=r"(loss|grad_norm) is (nan|inf) at step \d.*Lower learning_rate"):
        train(student, tiny.pairs(8), tmp_path, settings)


def test_a_broken_row_is_a_spike_of_the_gradient(student, tmp_path, capsys):
    def row(number, answer):
        prompt = [{"role": "user", "content": f"{number}="}]
        return {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}

    rows = [row(i, "77") for i in range(200)]
    rows[100] = row(100, "ab+=ab ++ba")
    settings = SFTSettings(**PLAIN, learning_rate=1e-2, num_train_epochs=2)
    report = train(student, rows, tmp_path, settings)
    assert kinds(report) == ["gradient_spike"]
    assert "look for broken rows, or lower learning_rate" in report.alarms[0]["message"]
    assert f"alarm at step {report.alarms[0]['step']}: Gradient norm" in capsys.readouterr().out


def test_responses_that_differ_in_one_token_both_become_less_likely(tiny, student, tmp_path):
    rows = tiny.pairs(16)
    for row in rows:
        text = row["chosen"][0]["content"]
        last = "0" if text[-1] != "0" else "1"
        row["rejected"] = [{"role": "assistant", "content": text[:-1] + last}]
    report = train(student, rows, tmp_path, DPOSettings(**PLAIN, learning_rate=1e-2, max_steps=40))
    assert "both_fall" in kinds(report)
    last = report.metrics["last"]
    assert last["rewards/chosen"] < 0 and last["rewards/rejected"] < 0
    (message,) = (alarm["message"] for alarm in report.alarms if alarm["kind"] == "both_fall")
    assert "Lower learning_rate, train fewer steps, raise beta, or add sft to loss" in message


def test_what_half_precision_cannot_hold_is_said_or_refused(tiny, tmp_path):
    """The published learning rate of 5e-8: the float32 weights move, the saved ones hardly do, or not at all."""
    start = tiny.model(tmp_path / "start", tiny.tokenizer(), dtype="bfloat16")
    rows, settings = tiny.pairs(8), DPOSettings(**PLAIN, learning_rate=5e-8, max_steps=4)
    report = train(start, rows, tmp_path / "a", settings)
    assert report.verified["moved_in_first_update"] > 0.5
    assert 0 < report.verified["changed_share"] < 0.01
    assert kinds(report) == ["lost_in_saving"]
    assert "in bfloat16: set save_dtype: float32" in report.alarms[0]["message"]
    kept = train(start, rows, tmp_path / "b", settings.model_copy(update={"save_dtype": "float32"}))
    assert kept.verified["changed_share"] > 0.5
    assert kept.alarms == []
    with pytest.raises(UserError, match="set save_dtype: float32, which keeps smaller changes"):
        train(start, rows, tmp_path / "c", settings.model_copy(update={"learning_rate": 1e-13}))


def test_a_training_that_learns_nothing_says_so(tiny, student, tmp_path):
    report = train(student, tiny.pairs(8), tmp_path, DPOSettings(**PLAIN, learning_rate=1e-8, max_steps=12))
    assert kinds(report) == ["no_learning"]
    assert "raise learning_rate" in report.alarms[0]["message"]
