"""Losses on weak labels: the spec's golden values, the thresholds, the schedules of alpha."""

from __future__ import annotations

import math

import pytest
import torch

from w2s_align.training.label_losses import LabelLoss, alpha_at, threshold

LOGITS = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.0, 0.2], [-1.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]], dtype=torch.float64)
P = LOGITS.softmax(dim=1)


def value(loss: LabelLoss, alpha: float = 0.0) -> float:
    return float(loss.rows(LOGITS, loss.targets(P, LABELS, alpha)).mean())


def near(found: float | torch.Tensor, wanted: float | list[float]) -> bool:
    return torch.allclose(
        torch.as_tensor(found, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "alpha", "wanted"),
    [
        ("xent", 0, 0.599018),
        ("logconf", 0.025, 0.592330),
        ("logconf", 0.25, 0.532143),
        ("logconf", 0.5, 0.465268),
        ("logconf", 0.75, 0.398393),
        ("product", 0, 0.456093),
    ],
)
def test_the_golden_values(name, alpha, wanted):
    assert near(value(LabelLoss(name), alpha), wanted)


def test_the_golden_threshold_and_targets():
    assert near(P[:, 0], [0.880797, 0.622459, 0.450166, 0.119203])
    assert near(threshold(P, LABELS), 0.536313)  # the labels have .5 of the second class
    assert LabelLoss("logconf").targets(P, LABELS, 1.0)[:, 1].tolist() == [0, 0, 1, 1]
    assert near(LabelLoss("product").targets(P, LABELS)[:, 1], [0.014814, 0.585962, 0.448814, 0.967273])


def test_identities_between_the_losses():
    xent = value(LabelLoss("xent"))
    assert value(LabelLoss("logconf"), 0.0) == value(LabelLoss("entropy"), 0.0) == xent
    assert value(LabelLoss("product", student_power=0.0)) == pytest.approx(xent, abs=1e-12)
    entropy = -float((LABELS * LABELS.log()).sum(dim=1).mean())
    assert value(LabelLoss("kl")) == pytest.approx(xent - entropy, abs=1e-12)
    entropies = -float((P * P.log()).sum(dim=1).mean())
    assert value(LabelLoss("entropy"), 1.0) == pytest.approx(entropies, abs=1e-12)


def test_logconf_is_a_mixture_of_two_cross_entropies():
    hard = LabelLoss("xent").rows(LOGITS, torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64))
    mixed = 0.3 * value(LabelLoss("xent")) + 0.7 * float(hard.mean())
    assert value(LabelLoss("logconf"), 0.7) == pytest.approx(mixed, abs=1e-12)


def test_the_window_leaves_out_what_the_student_is_sure_of_but_divides_by_all_rows():
    loss = LabelLoss("window", radius=0.15)  # rows 2 and 3 are below .65
    rows = LabelLoss("xent").rows(LOGITS, LABELS)
    assert value(loss) == pytest.approx(float(rows[1] + rows[2]) / 4, abs=1e-12)
    # distances of the labels from 1/2: .4, .2, .1, .3; torch's median of an even number is the lower one
    assert LabelLoss("window", radius="median").targets(P, LABELS).sum(dim=1).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("name", ["logconf", "product", "entropy", "window", "kl"])
def test_targets_have_no_gradient(name):
    logits = LOGITS.clone().requires_grad_()
    loss = LabelLoss(name)
    targets = loss.targets(logits.softmax(dim=1), LABELS, 0.5)
    assert not targets.requires_grad
    loss.rows(logits, targets).sum().backward()
    mass = targets.sum(dim=1, keepdim=True)
    assert torch.allclose(logits.grad, mass * logits.detach().softmax(dim=1) - targets)  # that of a cross entropy


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_as_many_rows_become_the_second_class_as_the_labels_say(share):
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200, 1, generator=generator)
    p = torch.cat([p, 1 - p], dim=1)
    labels = torch.tensor([[1 - share, share]]).expand(200, 2)
    hard = LabelLoss("logconf").targets(p, labels, 1.0)
    assert abs(float(hard[:, 1].sum()) - share * 200) <= 1
    by_hand = LabelLoss("logconf", prior=0.5).targets(p, labels, 1.0)
    assert float(by_hand[:, 1].sum()) == 100


def test_rows_of_a_micro_batch_get_the_threshold_of_the_whole_batch():
    loss = LabelLoss("logconf")
    whole = loss.targets(P, LABELS, 0.75)
    parts = [loss.targets(P[[i]], LABELS[[i]], 0.75, batch_p=P, batch_labels=LABELS) for i in range(4)]
    assert torch.equal(torch.cat(parts), whole)
    alone = torch.cat([loss.targets(P[[i]], LABELS[[i]], 1.0) for i in range(4)])
    assert alone[:, 0].tolist() == [1, 1, 1, 1]  # the trap: a row alone is its own threshold, always the first class


@pytest.mark.parametrize(
    ("progress", "public", "linear"),
    [(0.0, 0.0, 0.0), (0.05, 0.025, 0.25), (0.1, 0.05, 0.5), (0.1001, 0.5, 0.5), (1.0, 0.5, 0.5)],
)
def test_the_two_schedules_of_alpha(progress, public, linear):
    assert alpha_at(progress, 0.5, 0.1, "public_code") == pytest.approx(public)
    assert alpha_at(progress, 0.5, 0.1, "linear") == pytest.approx(linear)


def test_without_a_warm_up_alpha_is_there_from_the_start():
    assert alpha_at(0.0, 0.75, 0.0) == 0.75


def test_a_student_that_contradicts_a_label_fully_gets_an_even_target():
    p = torch.tensor([[1.0, 0.0]])
    found = LabelLoss("product").targets(p, torch.tensor([[0.0, 1.0]]))
    assert found.tolist() == [[0.5, 0.5]] and math.isfinite(float(found.sum()))
