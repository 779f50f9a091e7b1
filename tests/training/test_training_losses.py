"""Every loss of TRL's DPO trainer on a fixed batch away from the reference, against the formulas of its paper.

The log-probabilities come one token at a time from transformers alone (delta_learning 8.1 to 8.3 for the notation:
r is the log-ratio of a response to the reference, summed over its tokens, L the number of its tokens). What the losses
are at the reference is in test_training_dpo.py, losses without a reference are in test_training_methods.py.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from loss_terms import Logps, logps, mean, nls, trainer_away_from_its_start

from w2s_align.training import DPOSettings, RewardModelSettings
from w2s_align.training.methods.dpo import DPO_LOSSES
from w2s_align.training.models import load_model, open_start

BETA, EPSILON, TAU = 0.5, 0.1, 0.05


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def smooth(x: float) -> float:
    return (1 - EPSILON) * nls(x) + EPSILON * nls(-x)


def discopop(x: float) -> float:
    m = sigma(x / TAU)
    return (1 - m) * nls(x) + m * math.exp(-x)


def exo(q: float) -> float:
    return q * math.log(q / (1 - EPSILON)) + (1 - q) * math.log((1 - q) / EPSILON)


PAIRWISE = {
    "sigmoid": lambda c, r: nls(BETA * (c.r - r.r)),
    "sigmoid_norm": lambda c, r: nls(BETA * (c.mean_r - r.mean_r)),
    "hinge": lambda c, r: max(0.0, 1 - BETA * (c.r - r.r)),
    "ipo": lambda c, r: (c.mean_r - r.mean_r - 1 / (2 * BETA)) ** 2,
    "exo_pair": lambda c, r: exo(sigma(BETA * (c.r - r.r))),
    "nca_pair": lambda c, r: nls(BETA * c.r) + 0.5 * nls(-BETA * c.r) + 0.5 * nls(-BETA * r.r),
    "robust": lambda c, r: (
        ((1 - EPSILON) * nls(BETA * (c.r - r.r)) - EPSILON * nls(-BETA * (c.r - r.r))) / (1 - 2 * EPSILON)
    ),
    "bco_pair": lambda c, r: nls(BETA * c.r) + nls(-BETA * r.r),
    "sppo_hard": lambda c, r: (c.r - 1 / (2 * BETA)) ** 2 + (r.r + 1 / (2 * BETA)) ** 2,
    "apo_zero": lambda c, r: 1 - sigma(BETA * c.r) + sigma(BETA * r.r),
    "apo_down": lambda c, r: sigma(BETA * c.r) + 1 - sigma(BETA * (c.r - r.r)),
    "discopop": lambda c, r: discopop(BETA * (c.r - r.r)),
}
"""Losses of one pair (spec: delta_learning 8.3); aot, aot_unpaired and sft look at a whole batch."""


def aot(pairs: list[tuple[Logps, Logps]]) -> float:
    """Sorted log-ratios of chosen to rejected, policy against reference (arXiv 2406.05882)."""
    policy = sorted(sum(c.policy) - sum(r.policy) for c, r in pairs)
    reference = sorted(sum(c.reference) - sum(r.reference) for c, r in pairs)
    return mean(smooth(BETA * (a - b)) for a, b in zip(policy, reference, strict=True))


def aot_unpaired(pairs: list[tuple[Logps, Logps]]) -> float:
    """Sorted log-ratios to the reference, chosen against rejected (arXiv 2406.05882)."""
    chosen, rejected = (sorted(side.r for side in sides) for sides in zip(*pairs, strict=True))
    return mean(smooth(BETA * (a - b)) for a, b in zip(chosen, rejected, strict=True))


def sft(pairs: list[tuple[Logps, Logps]]) -> float:
    return -mean(logp for chosen, _ in pairs for logp in chosen.policy)


FORMULAS: dict[str, Any] = {
    **{name: lambda pairs, one=one: mean(one(*pair) for pair in pairs) for name, one in PAIRWISE.items()},
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "sft": sft,
}


def loss_and_pairs(tiny: Any, student: Any, out: Any, **options: Any) -> tuple[float, list[tuple[Logps, Logps]]]:
    """Return the loss of a batch of four pairs, and the log-probabilities that it is made of."""
    rows = tiny.pairs(4)
    settings = DPOSettings(learning_rate=1e-3, batch_size=4, beta=BETA, discopop_tau=TAU, **options)
    trainer, batch = trainer_away_from_its_start("dpo", student, rows, out, settings)
    loss = float(trainer.compute_loss(trainer.model, batch))
    policy, reference = load_model(student), load_model(student)
    policy.load_state_dict(trainer.model.state_dict())
    tokenizer = open_start(student).tokenizer
    pairs = [
        (logps(policy, reference, tokenizer, row, "chosen"), logps(policy, reference, tokenizer, row, "rejected"))
        for row in rows
    ]
    assert mean(abs(side.r) for pair in pairs for side in pair) > 0.5  # away from the reference
    return loss, pairs


def test_every_loss_of_trl_has_a_formula():
    from trl import DPOConfig

    described = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert set(FORMULAS) == set(DPO_LOSSES)
    assert all(f"'{name}'" in described or f"`{name}`" in described for name in DPO_LOSSES), described


@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_a_loss_is_what_its_formula_says(tiny, student, tmp_path, loss):
    found, pairs = loss_and_pairs(tiny, student, tmp_path, loss=loss, label_smoothing=EPSILON)
    assert found == pytest.approx(FORMULAS[loss](pairs), rel=1e-4)


def test_a_sum_of_losses_is_weighted(tiny, student, tmp_path):
    found, pairs = loss_and_pairs(tiny, student, tmp_path, loss=["sigmoid_norm", "sft"], loss_weights=[1.0, 0.25])
    assert found == pytest.approx(FORMULAS["sigmoid_norm"](pairs) + 0.25 * sft(pairs), rel=1e-4)


DIVERGENCES = {
    "forward_kl": lambda r: 1 - math.exp(-r),
    "js_divergence": lambda r: math.log(2) - nls(r),
    "alpha_divergence": lambda r: (math.exp(-0.5 * r) - 1) / -0.5,
}
"""f'(t) of the ratio t, up to a constant, which the difference of the two sides does not see (arXiv 2309.16240)."""


@pytest.mark.parametrize("name", DIVERGENCES)
def test_another_divergence_is_what_its_formula_says(tiny, student, tmp_path, name):
    found, pairs = loss_and_pairs(tiny, student, tmp_path, f_divergence_type=name, f_alpha_divergence_coef=0.5)
    slope = DIVERGENCES[name]
    assert found == pytest.approx(mean(nls(BETA * (slope(c.r) - slope(r.r))) for c, r in pairs), rel=1e-4)


def test_weighted_pairs_are_what_the_formula_says(tiny, student, tmp_path):
    """WPO: each pair times exp of the mean of log p - log sum p^2, of both sides (arXiv 2406.11827, equation 2)."""
    found, pairs = loss_and_pairs(tiny, student, tmp_path, use_weighting=True)

    def weight(side: Logps) -> float:
        return math.exp(mean(a - b for a, b in zip(side.policy, side.sums_of_squares, strict=True)))

    expected = mean(nls(BETA * (c.r - r.r)) * weight(c) * weight(r) for c, r in pairs)
    assert found == pytest.approx(expected, rel=1e-4)


def test_tokens_beyond_the_shared_length_weigh_less(tiny, student, tmp_path):
    """LD-DPO (arXiv 2409.06411): the tokens beyond the shorter response's length count with alpha."""
    found, pairs = loss_and_pairs(tiny, student, tmp_path, ld_alpha=0.25)

    def ratio(side: Logps, shared: int) -> float:
        ratios = [a - b for a, b in zip(side.policy, side.reference, strict=True)]
        return sum(ratios[:shared]) + 0.25 * sum(ratios[shared:])

    shared = [min(len(c.policy), len(r.policy)) for c, r in pairs]
    assert any(len(c.policy) != len(r.policy) for c, r in pairs)
    expected = mean(nls(BETA * (ratio(c, n) - ratio(r, n))) for (c, r), n in zip(pairs, shared, strict=True))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("center", [None, 0.1])
def test_the_reward_models_loss_is_what_its_formula_says(tiny, student, tmp_path, center):
    """-log sigmoid(s_c - s_r) + center * (s_c + s_r)^2 (arXiv 2203.02155, eq. 1; arXiv 2312.09244, eq. 2)."""
    rows = tiny.pairs(4)
    settings = RewardModelSettings(learning_rate=1e-3, batch_size=4, center_rewards=center)
    trainer, batch = trainer_away_from_its_start("reward", student, rows, tmp_path, settings)
    found = float(trainer.compute_loss(trainer.model, batch))
    tokenizer = open_start(student).tokenizer

    def score(row: Any, side: str) -> float:
        ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"]
        with torch.no_grad():
            return float(trainer.model(input_ids=torch.tensor([ids])).logits)

    pairs = [(score(row, "chosen"), score(row, "rejected")) for row in rows]
    assert found == pytest.approx(mean(nls(c - r) + (center or 0) * (c + r) ** 2 for c, r in pairs), rel=1e-4)
