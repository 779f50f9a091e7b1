"""Weak-to-strong generalization in logistic regression: random errors are averaged away, a blind spot is copied."""

from __future__ import annotations

import numpy as np
import pytest

from w2s_align.lab.oracle import OracleSettings, fit, study_oracle


def study(seed: int, **changes):
    return study_oracle(OracleSettings(**changes), seed, lambda done, total, note: None)


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_the_gap_recovered_from_each_supervisor(seed):
    found = study(seed)
    # .79 within .05 in the trial runs, with the seeds 0 to 4; other five draws are as far apart as chance has it
    assert found.mean("noisy", "pgr") == (
        pytest.approx(0.79, abs=0.05) if seed == 0 else pytest.approx(0.82, abs=0.06)
    )
    assert found.mean("noisy", "agreement") == pytest.approx(0.648, abs=0.02)
    assert abs(found.mean("blind", "pgr")) < 0.02 and found.mean("blind", "agreement") > 0.995
    assert found.mean("noisy", "weak") == pytest.approx(0.646, abs=0.01)
    assert found.mean("blind", "weak") == pytest.approx(0.717, abs=0.01)
    assert found.mean("noisy", "ceiling") == pytest.approx(0.993, abs=0.003)
    assert found.mean("noisy", "imitated") < 0.2 and found.mean("blind", "imitated") > 0.98
    assert all(check.held for check in found.checks) and len(found.checks) == 5


def test_other_settings_are_held_against_no_numbers_of_the_default():
    found = study(0, noise=1.0, repeats=1)
    assert [check.name for check in found.checks] == ["Random errors are averaged away, a blind spot is not"]
    useless = study(0, noise=100.0, repeats=1)  # labels without a signal: nothing is recovered
    assert useless.mean("noisy", "weak") < 0.55 and not useless.checks[0].held


def test_newtons_method_ends_where_the_gradient_is_zero():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((300, 4)), rng.random(300)
    w = fit(x, labels, 0.01)
    gradient = x.T @ (1 / (1 + np.exp(-x @ w)) - labels) / 300 + 0.01 * w
    assert np.abs(gradient).max() < 1e-10
