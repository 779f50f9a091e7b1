"""Weak labels of pairs: the order by scores, confidence, weights; the same bytes whatever the gold labels are."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing.weak_labels import (
    AGAIN,
    UNREADABLE,
    UNSCORED,
    UNSURE,
    gaps_to_gold,
    label_pairs,
    sides_as_responses,
    sides_of,
)
from w2s_align.pairing.weights import confidence_weight, preference_weight, weigh
from w2s_align.records import Pair, Score, prompt_id, to_table


def pair(question: str, chosen: str, rejected: str, scores: tuple[float | None, float | None] = (None, None)) -> Pair:
    prompt = [{"role": "user", "content": question}]
    sides = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    return Pair(prompt, *sides, prompt_id(prompt), f"m{chosen}", f"m{rejected}", 0, 1, *scores, None, "model_order")


def swapped(one: Pair) -> Pair:
    """Return a pair with the other order; as in imported data the samples say who is chosen."""
    return Pair(
        one.prompt,
        one.rejected,
        one.chosen,
        one.prompt_id,
        one.rejected_model,
        one.chosen_model,
        one.chosen_sample,
        one.rejected_sample,
        one.score_rejected,
        one.score_chosen,
        one.delta,
        one.rule,
    )


def scored(pairs: pa.Table, value) -> pa.Table:
    """Score each side by a function of its text."""
    _, responses = sides_as_responses(pairs, sides_of(pairs))
    rows = [
        Score(row["prompt_id"], row["sample"], "weak", "reward", value(row["text"])) for row in responses.to_pylist()
    ]
    return to_table(rows, Score)


PAIRS = [pair("a", "1", "3"), pair("b", "5", "2"), pair("c", "4", "4.5"), pair("d", "7", "7 ")]


def test_the_side_with_the_higher_score_is_chosen_and_ties_do_not_look_at_gold():
    pairs = to_table(PAIRS)
    made = label_pairs(pairs, scored(pairs, float))
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in made.table.to_pylist()]
    assert texts[:3] == [("3", "1"), ("5", "2"), ("4.5", "4")]
    assert made.table["chosen_model"].to_pylist()[:2] == ["m3", "m5"]
    samples = zip(*(made.table[f"{side}_sample"].to_pylist() for side in ("chosen", "rejected")), strict=True)
    assert all(sorted(one) == [0, 1] for one in samples)
    assert made.table["delta"].to_pylist() == [2, 3, 0.5, 0]
    assert made.table["p_pref"].to_pylist() == pytest.approx(1 / (1 + np.exp([-2.0, -3.0, -0.5, 0.0])))
    again = to_table([swapped(one) for one in PAIRS])
    other = label_pairs(again, scored(again, float)).table
    assert other.equals(made.table)  # the equal pair too: its order comes from the texts


def test_the_same_bytes_when_gold_is_swapped_at_random(tmp_path):
    dice = random.Random(0)
    gold = [pair(f"q{i}", str(dice.randrange(100)), str(dice.randrange(100, 200))) for i in range(50)]
    mixed = [swapped(one) if dice.random() < 0.5 else one for one in gold]
    tables = [to_table(rows) for rows in (gold, mixed)]
    scores = [scored(table, lambda text: float(text) % 7) for table in tables]
    assert scores[0].equals(scores[1])
    made = [
        label_pairs(t, s, least_confidence=0.75, weights="confidence") for t, s in zip(tables, scores, strict=True)
    ]
    assert made[0].table.equals(made[1].table)
    assert made[0].lengths.equals(made[1].lengths)
    assert made[0].dropped.equals(made[1].dropped)
    assert made[0].counts == made[1].counts
    assert 0 < made[0].table.num_rows < 50


def test_unsure_unscored_and_unreadable_pairs_are_counted():
    turns = pair("e", "1", "2")
    turns.chosen.append({"role": "assistant", "content": "x"})
    pairs = to_table([*PAIRS[:3], PAIRS[0], turns, pair("f", "none", "1")])
    made = label_pairs(pairs, scored(pairs, lambda t: None if t == "none" else float(t)), least_confidence=0.75)
    assert made.table.num_rows == 2
    assert made.counts.dropped == {"pair": {UNSURE: 1, AGAIN: 1, UNREADABLE: 1, UNSCORED: 1}}
    assert made.counts.given["pair"] == 6


def test_gold_order_says_which_labels_agree():
    pairs = to_table(PAIRS[:3])
    made = label_pairs(pairs, scored(pairs, float), gold_order=True)
    assert made.table["gold_order"].to_pylist() == [False, True, False]
    assert gaps_to_gold(sides_of(pairs), scored(pairs, float)).tolist() == [-2, 3, -0.5]


def test_scores_of_other_pairs_are_refused():
    with pytest.raises(UserError, match="have no row in the scores"):
        label_pairs(to_table(PAIRS[:1]), scored(to_table(PAIRS[1:2]), float))
    with pytest.raises(UserError, match="least_confidence"):
        label_pairs(to_table(PAIRS[:1]), scored(to_table(PAIRS[:1]), float), least_confidence=0.3)


def test_confidence_weights_of_cwpo():
    """C = 2 (sigmoid(margin) - 1/2), arXiv 2603.04968."""
    golden = {0.0: 0.0, 0.5: 0.244919, 1.0: 0.462117, 2.0: 0.761594, 4.0: 0.964028}
    assert confidence_weight(list(golden)).tolist() == pytest.approx(list(golden.values()), abs=1e-6)
    assert confidence_weight([-2.0])[0] == pytest.approx(0.761594, abs=1e-6)  # a reversed pair weighs the same


def test_weights_of_pairs_from_their_scores():
    assert preference_weight([0.9, 0.5, 1.0], [0.2, 0.5, 1.0]).tolist() == pytest.approx([0.72 / 0.74, 0.5, 0.5])
    table = weigh(to_table([pair("a", "1", "2", (0.9, 0.2))]), "preference")
    assert table["weight"].to_pylist() == table["p_pref"].to_pylist() == pytest.approx([0.72 / 0.74])
    with pytest.raises(UserError, match="outside 0 to 1"):
        weigh(to_table([pair("a", "1", "2", (2.0, 0.2))]), "preference")
    with pytest.raises(UserError, match="have no scores"):
        weigh(to_table([pair("a", "1", "2")]), "confidence")
    assert "p_pref" not in weigh(to_table([pair("a", "1", "2", (2.0, 0.2))]), "confidence").column_names
