"""Weights, soft labels and simulated conflicts: losses against formulas, the same for any micro batch and launch."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from loss_terms import logps, mean, nls, trainer_away_from_its_start

from w2s_align.errors import UserError
from w2s_align.training import (
    DPOSettings,
    KTOSettings,
    RewardModelSettings,
    SimPOSettings,
    TrainResources,
    train,
)
from w2s_align.training.models import load_model, open_start
from w2s_align.training.pair_terms import Conflict

WEIGHTS = [0.0, 0.5, 1.0, 2.0]
GOLD = [True, False, None, False]


def rows_of(tiny, **terms):
    """Four pairs with columns of terms."""
    return [row | {name: values[i] for name, values in terms.items()} for i, row in enumerate(tiny.pairs(4))]


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("loss", "beta"), [("sigmoid", 0.3), ("sigmoid_norm", 2.0), ("apo_zero", 0.3)])
def test_a_weight_multiplies_the_loss_of_its_pair(tiny, student, tmp_path, loss, beta):
    options = {"learning_rate": 1e-3, "batch_size": 4, "loss": loss, "beta": beta, "label_smoothing": 0.1}
    settings = DPOSettings(**options)
    weighted, batch = trainer_away_from_its_start(
        "dpo", student, rows_of(tiny, weight=WEIGHTS), tmp_path / "weighted", settings
    )
    plain, _ = trainer_away_from_its_start("dpo", student, tiny.pairs(4), tmp_path / "plain", settings)
    found = weighted.compute_loss(weighted.model, batch)
    alone = [plain.compute_loss(plain.model, plain.data_collator([row])) for row in plain.train_dataset]
    expected = sum(weight * value for weight, value in zip(WEIGHTS, alone, strict=True)) / 4
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    expected.backward()
    for one, other in zip(weighted.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def policy_pairs(trainer, student, rows):
    policy, reference = load_model(student), load_model(student)
    policy.load_state_dict(trainer.model.state_dict())
    tokenizer = open_start(student).tokenizer
    return [tuple(logps(policy, reference, tokenizer, row, side) for side in ("chosen", "rejected")) for row in rows]


def conflicts(gaps):
    """Which pairs are ordered against gold, and the sign of the gold-rejected response as the better one."""
    for gap, gold in zip(gaps, GOLD, strict=True):
        wrong = (gold is True and gap < 0) or (gold is False and gap >= 0)
        yield float(wrong), -1 if gold else 1


@pytest.mark.parametrize("term", ["reverse", "sft"])
def test_a_conflict_pays_dpo_for_pairs_ordered_against_gold(tiny, student, tmp_path, term):
    rows = rows_of(tiny, gold_order=GOLD, weight=WEIGHTS)
    settings = DPOSettings(learning_rate=1e-3, batch_size=4, beta=0.3, conflict=Conflict(alpha=0.5, term=term))
    trainer, batch = trainer_away_from_its_start("dpo", student, rows, tmp_path, settings)
    pairs = policy_pairs(trainer, student, rows)
    gaps = [sum(c.policy) - sum(r.policy) for c, r in pairs]
    expected = [w * nls(0.3 * (c.r - r.r)) for w, (c, r) in zip(WEIGHTS, pairs, strict=True)]
    marked = list(conflicts(gaps))
    for i, ((wrong, sign), (c, r)) in enumerate(zip(marked, pairs, strict=True)):
        paid = nls(sign * 0.3 * (c.r - r.r)) if term == "reverse" else -mean((c if sign > 0 else r).policy)
        expected[i] += 0.5 * wrong * paid
    assert 0 < sum(wrong for wrong, _ in marked) < 3
    found = trainer.compute_loss(trainer.model, batch).detach()
    assert float(found) == pytest.approx(mean(expected), rel=1e-4)


@pytest.mark.parametrize("term", ["reverse", "sft"])
def test_weights_and_a_conflict_in_simpo(tiny, student, tmp_path, term):
    rows = rows_of(tiny, gold_order=GOLD, weight=WEIGHTS)
    settings = SimPOSettings(learning_rate=1e-3, batch_size=4, beta=2, margin=1, conflict={"term": term})
    trainer, batch = trainer_away_from_its_start("simpo", student, rows, tmp_path, settings)
    pairs = policy_pairs(trainer, student, rows)
    gaps = [mean(c.policy) - mean(r.policy) for c, r in pairs]
    expected = [w * nls(2 * gap - 1) for w, gap in zip(WEIGHTS, gaps, strict=True)]
    for i, ((wrong, sign), (c, r)) in enumerate(zip(conflicts(gaps), pairs, strict=True)):
        paid = nls(sign * 2 * gaps[i] - 1) if term == "reverse" else -mean((c if sign > 0 else r).policy)
        expected[i] += 0.5 * wrong * paid
    found = trainer.compute_loss(trainer.model, batch).detach()
    assert float(found) == pytest.approx(mean(expected), rel=1e-4)


def test_soft_labels_weights_and_a_conflict_in_a_reward_model(tiny, student, tmp_path):
    rows = rows_of(tiny, p_pref=[0.7, 0.9, 1.0, 0.5], weight=WEIGHTS, gold_order=GOLD)
    settings = RewardModelSettings(
        learning_rate=1e-3, batch_size=4, soft_labels=True, center_rewards=0.1, conflict={"alpha": 0.5}
    )
    trainer, batch = trainer_away_from_its_start("reward", student, rows, tmp_path, settings)
    tokenizer = open_start(student).tokenizer

    def score(row, side):
        ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"]
        with torch.no_grad():
            return float(trainer.model(input_ids=torch.tensor([ids])).logits)

    scores = [(score(row, "chosen"), score(row, "rejected")) for row in rows]
    expected = []
    for row, (c, r), (wrong, sign) in zip(rows, scores, conflicts([c - r for c, r in scores]), strict=True):
        soft = row["p_pref"] * nls(c - r) + (1 - row["p_pref"]) * nls(r - c)
        expected.append(row["weight"] * soft + 0.5 * wrong * nls(sign * (c - r)) + 0.1 * (c + r) ** 2)
    found = trainer.compute_loss(trainer.model, batch).detach()
    assert float(found) == pytest.approx(mean(expected), rel=1e-4)


def test_golden_losses():
    """Cross entropy of a soft label .7 at a gap of .8, SimPO and DPO with the settings of arXiv 2406.11431."""
    gap = torch.tensor(0.8)
    log = torch.nn.functional.logsigmoid
    assert float(-(0.7 * log(gap) + 0.3 * log(-gap))) == pytest.approx(0.611101, abs=1e-6)
    assert nls(2 * (-1.0 + 1.3) - 1) == pytest.approx(0.913015, abs=1e-6)
    assert nls(0.1 * ((-10 + 12) - (-15 + 14))) == pytest.approx(0.554355, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        DPOSettings(learning_rate=1e-2, batch_size=4, max_steps=3, conflict={"alpha": 0.5}),
        SimPOSettings(learning_rate=1e-2, batch_size=4, max_steps=3, conflict={"alpha": 0.5}),
        RewardModelSettings(learning_rate=1e-2, batch_size=4, max_steps=3, held_out=2),
    ],
    ids=["dpo", "simpo", "reward"],
)
def test_micro_batches_do_not_change_a_weighted_training(tiny, student, tmp_path, settings):
    rows = [row | {"weight": i / 4, "p_pref": 0.8, "gold_order": i % 3 == 0} for i, row in enumerate(tiny.pairs(8))]
    for micro, packed in ((4, True), (1, True), (2, False)):
        resources = TrainResources(micro_batch_size=micro, padding_free=packed)
        train(student, rows, tmp_path / str(micro), settings, resources=resources)
    assert losses(tmp_path / "4") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)
    assert losses(tmp_path / "4") == pytest.approx(losses(tmp_path / "2"), rel=1e-4)


def test_two_processes_train_weighted_pairs_as_one_does(tiny, student, tmp_path):
    rows = [row | {"weight": i / 4} for i, row in enumerate(tiny.pairs(8))]
    settings = DPOSettings(learning_rate=1e-2, batch_size=4, max_steps=2)
    train(student, rows, tmp_path / "one", settings, resources=TrainResources(micro_batch_size=2))
    two = TrainResources(processes=2, micro_batch_size=2)
    train(student, rows, tmp_path / "two", settings, resources=two, launch="ddp")
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), rel=1e-4)


def test_sets_without_weights_weigh_one(tiny, student, tmp_path):
    sets = [pa.Table.from_pylist(rows_of(tiny, weight=[3.0] * 4)), pa.Table.from_pylist(tiny.pairs(4, seed=1))]
    for number, table in enumerate(sets):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    settings = DPOSettings(learning_rate=1e-2, batch_size=8, max_steps=1, warmup_steps=0)
    train(student, [tmp_path / "0.parquet", tmp_path / "1.parquet"], tmp_path / "out", settings)
    assert losses(tmp_path / "out")[0] == pytest.approx(2 * math.log(2), rel=1e-5)


def test_a_training_that_reads_no_weights_says_so(tiny, student, tmp_path):
    report = train(
        student, rows_of(tiny, weight=WEIGHTS), tmp_path, KTOSettings(learning_rate=1e-2, max_steps=2, batch_size=8)
    )
    assert any("does not read them" in note for note in report.notes)


@pytest.mark.parametrize(
    ("settings", "terms", "message"),
    [
        (DPOSettings(learning_rate=1, loss="aot"), {"weight": WEIGHTS}, "the loss aot cannot take them"),
        (DPOSettings(learning_rate=1, loss="hinge"), {"weight": WEIGHTS}, "the loss hinge cannot take them"),
        (DPOSettings(learning_rate=1, conflict={}), {}, "reads the column gold_order"),
        (SimPOSettings(learning_rate=1, nll_weight=1), {"weight": WEIGHTS}, "mean over tokens"),
        (RewardModelSettings(learning_rate=1, soft_labels=True), {}, "reads the column p_pref"),
        (DPOSettings(learning_rate=1), {"weight": [1.0, -1.0, 1.0, 1.0]}, "has the weight -1.0"),
        (DPOSettings(learning_rate=1), {"weight": [1.0, math.nan, 1.0, 1.0]}, "has the weight nan"),
        (RewardModelSettings(learning_rate=1, soft_labels=True), {"p_pref": [1.2] * 4}, "has the p_pref 1.2"),
    ],
)
def test_what_cannot_work_is_refused(tiny, student, tmp_path, settings, terms, message):
    with pytest.raises(UserError, match=message):
        train(student, rows_of(tiny, **terms), tmp_path, settings)
