"""The audit of pairs, worked by hand."""

import pytest

from w2s_align.pairing import audit, model_order, score_gap


def test_audit_by_hand(make):
    names = "abcde"
    texts = {"a": ("xxxx", "yy"), "b": ("xxxx", "yyy"), "c": ("x", "yyy"), "d": ("xx", "yy"), "e": ("z", "z")}
    prompts = make.prompts(names, task="gsm8k")
    weak = make.responses([(p, "weak", 0, texts[p][0], "stop", 4) for p in names])
    weaker = make.responses([(p, "weaker", 0, texts[p][1], "stop", 5) for p in names])
    gold = make.scores(
        [
            ("a", "weak", 0, 1.0),
            ("a", "weaker", 0, 0.0),
            ("b", "weak", 0, 0.0),
            ("b", "weaker", 0, 1.0),
            ("c", "weak", 0, 1.0),
            ("c", "weaker", 0, 1.0),
            ("d", "weak", 0, None),
            ("d", "weaker", 0, 0.0),
        ]
    )
    found = model_order(weak, weaker, prompts).audit(gold)
    assert (found.pairs, found.prompts, found.delta) == (4, 4, {})
    assert found.lengths["chars"] == {
        "pairs": 4,
        "chosen_mean": 2.75,
        "rejected_mean": 2.5,
        "chosen_median": 3.0,
        "rejected_median": 2.5,
        "mean_gap": 0.25,
        "unequal": 0.75,
        "longer_wins": pytest.approx(2 / 3),
        "baseline": 0.625,
        "auc": pytest.approx(9 / 16),
    }
    assert found.lengths["tokens"]["longer_wins"] == 0.0
    assert found.gold == {
        "right over wrong": 1,
        "wrong over right": 1,
        "both right": 1,
        "both wrong": 0,
        "unscored": 1,
    }
    assert found.wrong_order == 0.5
    assert found.sources == {"weak > weaker": 4}
    assert found.licenses == {"weak": "not stated", "weaker": "not stated"}
    assert found.tasks == {"gsm8k": 4}
    assert found.dropped["prompt: identical"]["rows"] == 1
    assert found.dropped["pair: identical"]["examples"] == [
        f"{make.id('e')} weak #0 over weaker #0\nprompt: question e\nchosen: z\nrejected: z"
    ]
    assert found.warnings == [
        "Few pairs (4): shares and means below are rough.",
        "Chosen is shorter in 100% of pairs (in tokens): length may be what is learned.",
        "1 of the 2 pairs with exactly one right answer are in the wrong order (50%).",
    ]
    assert "weak > weaker: 4" in str(found)


def test_auc_of_four_pairs_is_counted_over_all_sides(make):
    # chosen lengths 4 4 1 2, rejected 2 3 3 2: of 16 comparisons 8 greater, 2 equal -> (8 + 1) / 16
    chosen, rejected = [4, 4, 1, 2], [2, 3, 3, 2]
    assert sum((c > r) + (c == r) / 2 for c in chosen for r in rejected) == 9


def test_delta_and_its_warning(make):
    names = [str(i) for i in range(200)]
    responses = make.responses([(p, "m", s, f"{p} {s}") for p in names for s in (0, 1)])
    scores = make.scores([(p, "m", s, float(s) * (i % 2 + 1)) for i, p in enumerate(names) for s in (0, 1)])
    plain = score_gap(responses, scores, make.prompts(names)).audit()
    assert plain.delta["mean"] == 1.5 and plain.delta["positive"] == 1.0
    assert plain.delta["quantiles"]["50"] == 1.5
    assert plain.delta["low"] == pytest.approx(1.5 - 1.96 * plain.delta["sd"] / 200**0.5)
    assert plain.warnings == []
    back = score_gap(responses, scores, make.prompts(names), control="reversed").audit()
    assert back.warnings == ["The mean delta is -1.5: the rejected side is the better one."]
    shuffled = score_gap(responses, scores, make.prompts(names), control="shuffled").audit()
    assert "there may be no delta" in shuffled.warnings[0]


def test_many_lost_prompts_are_told(make):
    names = [str(i) for i in range(300)]
    weak = make.responses(
        [(p, "w", 0, "cut" if i < 150 else f"yes {p}", "length" if i < 150 else "stop") for i, p in enumerate(names)]
    )
    weaker = make.responses([(p, "v", 0, f"no_ {p}") for p in names])
    warnings = model_order(weak, weaker, make.prompts(names)).audit().warnings
    assert "50% of the prompts have no pair, mostly because of: no chosen response." in warnings


def test_audit_of_a_bare_table_counts_characters(make):
    weak, weaker = make.responses([("a", "w", 0, "äöü")]), make.responses([("a", "v", 0, "x")])
    found = audit(model_order(weak, weaker, make.prompts("a")).table)
    assert (found.lengths["chars"]["chosen_mean"], found.lengths["chars"]["rejected_mean"]) == (3.0, 1.0)
