"""Health rules on literal rows."""

import math

import pytest

from w2s_align.errors import UserError
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
