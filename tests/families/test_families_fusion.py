"""Fused targets and OPRD's update: values by hand (docs/methods/on_policy.md), masks, what a constant changes."""

from __future__ import annotations

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.families.fused_logits import fused_log_probs, token_divergence
from w2s_align.families.fusion import Contrast, Fusion, check_vocabularies
from w2s_align.training.oprd_gradient import oprd_surrogate, unit_direction

ANCHOR, PLUS, MINUS = (torch.tensor(values) for values in ([2.0, 1, 0, -1], [1.0, 2, 0, 0.5], [1.5, 0.5, 0.5, 0]))
STUDENT = ANCHOR.log_softmax(-1)
MASKED = [0.251706, 0.684208, 0.034065, 0.030021]


@pytest.mark.parametrize(
    ("alpha", "target", "divergence"),
    [
        (0.5, [0.450974, 0.450974, 0.061033, 0.037018], 0.103243),
        (1, [0.250692, 0.681453, 0.033928, 0.033928], 0.437515),
        (2, [0.046320, 0.930370, 0.006269, 0.017040], 1.620334),
        (-1, [0.830953, 0.041371, 0.112457, 0.015219], 0.250817),
        (0, [0.643914, 0.236883, 0.087144, 0.032059], 0),
    ],
)
def test_the_fused_target(alpha, target, divergence):
    fused = fused_log_probs(ANCHOR, [(alpha, PLUS, MINUS)])
    assert fused.exp().tolist() == pytest.approx(target, abs=1e-5)
    assert float(token_divergence(STUDENT, fused)) == pytest.approx(divergence, abs=1e-5)


@pytest.mark.parametrize(
    ("factor", "target"),
    [
        (1.0, [0.213097, 0.579259, 0.078394, 0.129250]),
        (1.25, [0.150867, 0.676138, 0.055501, 0.117495]),
        (1.5, [0.102491, 0.757313, 0.037704, 0.102491]),
    ],
)
def test_a_teacher_with_a_contrast_of_itself_is_exopd(factor, target):
    fused = fused_log_probs(PLUS, [(factor - 1, PLUS, MINUS)])
    assert fused.exp().tolist() == pytest.approx(target, abs=1e-5)


def test_other_divergences_and_the_top_of_the_target():
    fused = fused_log_probs(ANCHOR, [(1, PLUS, MINUS)])
    assert float(token_divergence(STUDENT, fused, "forward_kl")) == pytest.approx(0.453494, abs=1e-5)
    assert float(token_divergence(STUDENT, fused, top_k=2)) == pytest.approx(0.462117, abs=1e-5)
    assert float(token_divergence(STUDENT, fused, top_k=4)) == pytest.approx(0.437515, abs=1e-5)
    jensen = float(token_divergence(STUDENT, fused, "jsd"))
    assert jensen == pytest.approx(float(token_divergence(fused, STUDENT, "jsd")), abs=1e-6)
    assert 0 < jensen < 0.6931


@pytest.mark.parametrize("constant", [0.0, 5.0, -7.3])
def test_a_constant_in_a_members_logits_changes_nothing_even_with_a_mask(constant):
    masked = fused_log_probs(ANCHOR, [(1, PLUS + constant, MINUS)], 0.1)
    assert masked.exp().tolist() == pytest.approx(MASKED, abs=1e-5)
    assert fused_log_probs(ANCHOR, [(1, PLUS, MINUS + constant)]).exp().tolist() == pytest.approx(
        [0.250692, 0.681453, 0.033928, 0.033928], abs=1e-5
    )


def test_decoding_never_writes_what_is_implausible():
    found = fused_log_probs(ANCHOR, [(1, PLUS, MINUS)], 0.1, remove=True).exp()
    assert found[3] == 0  # .032 of .644: the ratio mask keeps the first three
    assert found[:3].tolist() == pytest.approx([p / sum(MASKED[:3]) for p in MASKED[:3]], abs=1e-5)


SUPPORT = torch.tensor([[0.0, 1, 0, 0]])


def update(advantage, number, amount=0.5, warmup=30):
    logits = ANCHOR.clone().requires_grad_()
    log_probs = logits.log_softmax(-1)
    loss = oprd_surrogate(
        log_probs[1:2],
        logits[None],
        log_probs.detach().exp()[None],
        SUPPORT,
        unit_direction(PLUS - MINUS)[None],
        torch.tensor([float(advantage)]),
        amount,
        number,
        warmup,
    )
    loss.sum().backward()
    return -logits.grad


def test_the_update_of_oprd():
    gradient = torch.tensor([-0.643914, 0.763117, -0.087144, -0.032059])
    direction = unit_direction(PLUS - MINUS)
    assert direction.tolist() == pytest.approx([-0.452267, 0.753778, -0.452267, 0.150756], abs=1e-5)
    found = update(1, 100)
    assert found.tolist() == pytest.approx([-0.847665, 1.102703, -0.290896, 0.035858], abs=1e-5)
    u = float(direction @ gradient)
    assert float(found @ gradient) == pytest.approx(float(gradient @ gradient) + 0.5 * u**2, abs=1e-5)
    assert update(-1, 6).tolist() == pytest.approx([0.684665, -0.831034, 0.127895, 0.018475], abs=1e-5)
    assert update(1, 100, amount=0).tolist() == pytest.approx(gradient.tolist(), abs=1e-5)  # GRPO
    assert update(0, 100).abs().max() == 0  # a group without a signal


def test_places_that_do_not_count_are_out_of_a_direction():
    moved, ignored = PLUS - MINUS, torch.tensor([False, False, False, True])
    expected = unit_direction(moved[:3]).tolist()
    assert unit_direction(moved, ignored).tolist() == pytest.approx([*expected, 0.0])
    assert unit_direction(torch.zeros(4)).tolist() == [0.0] * 4


def test_vocabularies_must_be_equal_by_content():
    check_vocabularies({"student": {"a": 0, "b": 1}, "weak": {"b": 1, "a": 0}})
    with pytest.raises(UserError, match="weak has another vocabulary than student") as refused:
        check_vocabularies({"student": {"a": 0, "b": 1}, "weak": {"a": 1, "b": 0}})
    assert "'a': 0 against 1" in str(refused.value)


def test_models_of_a_fusion_are_named_by_their_places():
    fusion = Fusion(
        contrasts=[Contrast(plus="$weak", minus="$weaker"), Contrast(plus="a/b", minus="$weaker", alpha=2)]
    )
    assert fusion.models() == {
        "contrasts.0.plus": "$weak",
        "contrasts.0.minus": "$weaker",
        "contrasts.1.plus": "a/b",
        "contrasts.1.minus": "$weaker",
    }
    here = fusion.with_models({"contrasts.0.minus": "/folder"})
    assert [(c.plus, c.minus, c.alpha) for c in here.contrasts] == [("$weak", "/folder", 1), ("a/b", "$weaker", 2)]
