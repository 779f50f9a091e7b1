"""The pair rules against tables worked by hand."""

import json
import random

import numpy
import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import (
    Counts,
    Filters,
    Level,
    best_random,
    best_worst,
    correctness,
    max_delta,
    model_order,
    posterior,
    ranked_scores,
    score_gap,
    worst_of_weak,
)
from w2s_align.records import Pair, Prompt, Response, to_table

SIDES = ("chosen", "rejected")


def test_model_order(make):
    prompts = make.prompts("cab")
    weak = make.responses([("a", "weak", 0, "good a"), ("b", "weak", 0, "good b"), ("c", "weak", 0, "good c")])
    weaker = make.responses([("b", "weaker", 0, "bad b"), ("a", "weaker", 0, "bad a"), ("c", "weaker", 0, "bad c")])
    pairs = model_order(weak, weaker, prompts)
    assert pairs.table.schema.equals(Pair.SCHEMA)
    assert make.short(pairs) == [("c", "good c", "bad c"), ("a", "good a", "bad a"), ("b", "good b", "bad b")]
    assert pairs.table.slice(0, 1).to_pylist() == [
        {
            "prompt": [{"role": "user", "content": "question c"}],
            "chosen": [{"role": "assistant", "content": "good c"}],
            "rejected": [{"role": "assistant", "content": "bad c"}],
            "prompt_id": make.id("c"),
            "chosen_model": "weak",
            "rejected_model": "weaker",
            "chosen_sample": 0,
            "rejected_sample": 0,
            "score_chosen": None,
            "score_rejected": None,
            "delta": None,
            "rule": "model_order",
        }
    ]
    assert pairs.dropped.num_rows == 0
    every = {"prompt": 3, "response": 6, "pair": 3}
    assert pairs.counts == Counts(given=every, kept=every)
    assert Counts.from_json(json.loads(json.dumps(pairs.counts.to_json()))) == pairs.counts


def awkward(make):
    weak = [
        ("same", "weak", 0, "The  Answer\n"),
        ("cut", "weak", 0, "long and", "length"),
        ("failed", "weak", 0, None, "error"),
        ("blank", "weak", 0, " \n\t"),
        ("alone", "weak", 0, "text"),
        ("good", "weak", 0, "yes"),
        ("stray", "weak", 0, "text"),
    ]
    weaker = [
        ("same", "weaker", 0, "the answer"),
        ("cut", "weaker", 0, "bad"),
        ("failed", "weaker", 0, "bad"),
        ("blank", "weaker", 0, "bad"),
        ("good", "weaker", 0, "no"),
        ("good", "weaker", 0, "no"),
    ]
    return make.prompts(["same", "cut", "failed", "blank", "alone", "good", "none"]), weak, weaker


def test_every_lost_row_has_its_reason_and_the_sums_add_up(make):
    prompts, weak, weaker = awkward(make)
    pairs = model_order(make.responses(weak), make.responses(weaker), prompts)
    assert make.short(pairs) == [("good", "yes", "no")]
    reasons = {
        "same": "identical",
        "cut": "no chosen response",
        "failed": "no chosen response",
        "blank": "no chosen response",
        "alone": "no rejected response",
        "none": "no chosen response",
    }
    assert make.dropped(pairs, "prompt") == {make.id(name): reason for name, reason in reasons.items()}
    details = {row["prompt_id"]: row["detail"] for row in pairs.dropped.to_pylist() if row["unit"] == "prompt"}
    assert [details[make.id(name)] for name in ("cut", "failed", "blank", "alone", "none")] == [
        "truncated",
        "failed",
        "empty",
        "",
        "",
    ]
    assert make.dropped(pairs, "response") == {
        make.id("cut"): "truncated",
        make.id("failed"): "failed",
        make.id("blank"): "empty",
        make.id("stray"): "prompt not found",
        make.id("good"): "duplicate",
    }
    assert make.dropped(pairs, "pair") == {make.id("same"): "identical"}
    check_sums(pairs)


def check_sums(pairs):
    counts = pairs.counts
    assert set(counts.given) == set(counts.kept) == {"prompt", "response", "pair"}
    for unit in counts.given:
        assert counts.given[unit] == counts.kept[unit] + counts.lost(unit)
    assert pairs.table.num_rows == counts.kept["pair"] == pairs.lengths.num_rows == len(pairs.tasks)


def test_filters_can_be_switched_off(make):
    prompts, weak, weaker = awkward(make)
    pairs = model_order(
        make.responses(weak), make.responses(weaker), prompts, filters=Filters(truncated=False, identical=False)
    )
    assert [question for question, _, _ in make.short(pairs)] == ["same", "cut", "good"]


def test_several_samples_meet_in_order_and_are_capped(make):
    prompts = make.prompts("a")
    weak = make.responses(
        [("a", "weak", 2, "w2"), ("a", "weak", 0, ""), ("a", "weak", 1, "w1"), ("a", "weak", 3, "w3")]
    )
    weaker = make.responses([("a", "weaker", 0, "x0"), ("a", "weaker", 1, "x1")])
    assert make.short(model_order(weak, weaker, prompts)) == [("a", "w1", "x0")]
    pairs = model_order(weak, weaker, prompts, pairs_per_prompt=5)
    assert make.short(pairs) == [("a", "w1", "x0"), ("a", "w2", "x1")]
    check_sums(pairs)


SCORED = [
    ("a", "m", 0, "a0", 0.9),
    ("a", "m", 1, "a1", 0.4),
    ("a", "n", 0, "a2", 0.1),
    ("b", "m", 0, "b0", 0.5),
    ("b", "m", 1, "b1", 0.5),
    ("c", "m", 0, "c0", 0.5),
    ("d", "m", 0, "d0", 0.50),
    ("d", "m", 1, "d1", 0.45),
    ("e", "m", 0, "e0", float("nan")),
    ("e", "m", 1, "e1", None),
    ("e", "m", 2, "e2", 0.3),
]


def scored(make, rows=SCORED):
    responses = make.responses([row[:4] for row in rows])
    return responses, make.scores([(p, model, sample, value) for p, model, sample, _, value in rows])


def test_score_gap(make):
    responses, scores = scored(make)
    prompts = make.prompts("abcdef")
    pairs = score_gap(responses, scores, prompts, margin=0.2)
    assert make.short(pairs) == [("a", "a0", "a2")]
    assert pairs.table["delta"].to_pylist() == [pytest.approx(0.8)]
    assert pairs.table["score_chosen"].to_pylist() == [0.9]
    assert make.dropped(pairs, "prompt") == {
        make.id("b"): "all scores equal",
        make.id("c"): "one response only",
        make.id("d"): "gap below the margin",
        make.id("e"): "one response only",
        make.id("f"): "no response",
    }
    assert sum(row["reason"] == "unscored" for row in pairs.dropped.to_pylist()) == 2
    check_sums(pairs)


def test_score_gap_picks(make):
    responses, scores = scored(make)
    prompts = make.prompts("a")
    largest = score_gap(responses, scores, prompts, pairs_per_prompt=3)
    assert make.short(largest) == [("a", "a0", "a2"), ("a", "a0", "a1"), ("a", "a1", "a2")]
    smallest = score_gap(responses, scores, prompts, pick="smallest", pairs_per_prompt=2)
    assert make.short(smallest) == [("a", "a1", "a2"), ("a", "a0", "a1")]
    drawn = {tuple(make.short(score_gap(responses, scores, prompts, pick="random", seed=seed))) for seed in range(30)}
    assert drawn == {(("a", "a0", "a2"),), (("a", "a0", "a1"),), (("a", "a1", "a2"),)}


def test_posterior(make):
    rows = [("a", "m", 0, "a0", 0.9), ("a", "m", 1, "a1", 0.6), ("a", "m", 2, "a2", 0.2), ("b", "m", 0, "b0", 0.5)]
    rows += [("b", "m", 1, "b1", 0.5), ("c", "m", 0, "c0", 0.6), ("c", "m", 1, "c1", 0.55)]
    responses, scores = scored(make, rows)
    prompts = make.prompts("abc")
    every = posterior(responses, scores, prompts, pairs_per_prompt=3)
    # the surest first: .9 x .8, .9 x .4, .6 x .8 would be right over wrong
    assert make.short(every) == [("a", "a0", "a2"), ("a", "a1", "a2"), ("a", "a0", "a1"), ("c", "c0", "c1")]
    # .6 x .45 / (.6 x .45 + .55 x .4) = .551
    assert make.short(posterior(responses, scores, prompts, least_preference=0.55))[-1] == ("c", "c0", "c1")
    sure = posterior(responses, scores, prompts, least_preference=0.56)
    assert make.short(sure) == [("a", "a0", "a2")]
    assert make.dropped(sure, "prompt") == {make.id("b"): "all scores equal", make.id("c"): "too close to call"}
    assert make.short(posterior(responses, scores, prompts, margin=0.8)) == []
    check_sums(sure)
    wide = make.scores([(p, model, sample, 3 * value) for p, model, sample, _, value in rows])
    with pytest.raises(UserError, match="6 scores are no probabilities"):
        posterior(responses, wide, prompts)
    with pytest.raises(UserError, match=r"least_preference cannot be 0\.3"):
        posterior(responses, scores, prompts, least_preference=0.3)


def test_pairs_by_probability_are_right(make):
    """2,000 prompts of 8 responses, 8 scorers of accuracy .55 to .80: the shares of the published trial run."""
    from w2s_align.scoring.label_model import fit_label_model

    found = []
    for seed in range(3):
        draw = numpy.random.default_rng(seed)
        right = draw.random((2000, 8)) < 0.4
        accuracy = draw.uniform(0.55, 0.8, 8)
        votes = (right.reshape(-1, 1) == (draw.random((16000, 8)) < accuracy)).astype(numpy.int8)
        probability = fit_label_model(votes, blocks=1).posterior(votes)
        rows = [(str(i // 8), "m", i % 8, f"text {i}", float(value)) for i, value in enumerate(probability)]
        responses, scores = scored(make, rows)
        prompts = make.prompts([str(i) for i in range(2000)])
        for gap in (0.0, 0.8, 0.9, 0.95):
            table = posterior(responses, scores, prompts, margin=gap).table
            texts = [[int(turn[0]["content"].split()[1]) for turn in table[side].to_pylist()] for side in SIDES]
            chosen, rejected = (right.reshape(-1)[numbers] for numbers in texts)
            found.append((table.num_rows / 2000, (chosen & ~rejected).mean(), (~chosen & rejected).mean()))
    kept, strict, inverted = numpy.array(found).reshape(3, 4, 3).mean(axis=0).T
    assert strict == pytest.approx([0.917, 0.950, 0.964, 0.979], abs=0.03)
    assert kept[0] > 0.98 and (numpy.diff(kept) < 0).all() and (numpy.diff(strict) > 0).all()
    assert inverted.max() < 0.005


def test_correctness(make):
    rows = [
        ("mixed", "m", 0, "right", 1.0),
        ("mixed", "m", 1, "wrong", 0.0),
        ("mixed", "m", 2, "half", 0.5),
        ("right", "m", 0, "x", 1.0),
        ("wrong", "m", 0, "x", 0.0),
        ("unknown", "m", 0, "x", None),
    ]
    responses, scores = scored(make, rows)
    prompts = make.prompts(["mixed", "right", "wrong", "unknown"])
    pairs = correctness(responses, scores, prompts, pairs_per_prompt=9)
    ((question, chosen, rejected),) = make.short(pairs)
    assert (question, chosen) == ("mixed", "right") and rejected in ("wrong", "half")
    assert make.dropped(pairs, "prompt") == {
        make.id("right"): "all right",
        make.id("wrong"): "all wrong",
        make.id("unknown"): "no response",
    }
    check_sums(pairs)


RULES = {
    "model_order": lambda responses, scores, prompts, **options: model_order(
        responses.filter(pa.compute.equal(responses["model"], "m")),
        responses.filter(pa.compute.equal(responses["model"], "n")),
        prompts,
        **options,
    ),
    "score_gap": score_gap,
    "score_gap random": lambda *tables, **options: score_gap(*tables, pick="random", **options),
    "posterior": posterior,
    "correctness": lambda *tables, **options: correctness(*tables, right_at=0.5, **options),
    "best_worst": best_worst,
    "best_random": best_random,
    "worst_of_weak": lambda *tables, **options: worst_of_weak(*tables, weak_models=["n"], **options),
    "max_delta": max_delta,
    "ranked_scores": lambda *tables, **options: ranked_scores(
        *tables, levels=[Level(scorer="s", margin=0.1)], **options
    ),
}


def random_tables(make, seed):
    draw = random.Random(seed)
    rows = []
    for prompt in range(40):
        for model in ("m", "n"):
            for sample in range(draw.randint(0, 6)):
                text = draw.choice(["", "same", " SAME", *(f"text {i}" for i in range(6))])
                rows.append((str(prompt), model, sample, text, draw.choice([None, 0.0, 0.5, 1.0, 1.0, float("nan")])))
    return rows, make.prompts([str(prompt) for prompt in range(40)], answer="42")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("control", ["none", "reversed", "tied", "shuffled"])
def test_order_of_candidates_and_gold_do_not_matter(make, rule, control):
    rows, prompts = random_tables(make, 5)
    first = RULES[rule](*scored(make, rows), prompts, control=control, pairs_per_prompt=2, seed=3)
    random.Random(1).shuffle(rows)
    without_gold = prompts.set_column(2, "answer", pa.nulls(prompts.num_rows, pa.string()))
    again = RULES[rule](*scored(make, rows), without_gold, control=control, pairs_per_prompt=2, seed=3)
    assert first.table.num_rows > 5
    assert again.table.combine_chunks().equals(first.table.combine_chunks())
    assert again.counts == first.counts
    assert sorted(map(str, again.dropped.to_pylist())) == sorted(map(str, first.dropped.to_pylist()))
    check_sums(first) if control != "tied" else None


def test_bad_tables_are_refused_by_name(make):
    prompts = make.prompts("a")
    responses, scores = scored(make)
    with pytest.raises(UserError, match="responses have no column model"):
        model_order(responses.drop_columns(["model"]), responses, prompts)
    with pytest.raises(UserError, match="from several scorers: s, t"):
        score_gap(responses, pa.concat_tables([scores, make.scores([("a", "m", 0, 1.0)], "t")]), prompts)
    with pytest.raises(UserError, match="No scores by the scorer 'x'"):
        score_gap(responses, scores, prompts, scorer="x")
    with pytest.raises(UserError, match="another score of the same scorer"):
        score_gap(responses, pa.concat_tables([scores, make.scores([("a", "m", 0, 0.1)])]), prompts)
    with pytest.raises(UserError, match="control cannot be 'backwards'"):
        score_gap(responses, scores, prompts, control="backwards")
    text = scores.set_column(4, "value", pa.array(["high"] * scores.num_rows))
    with pytest.raises(UserError, match="are not numbers"):
        score_gap(responses, text, prompts)


def test_repeated_prompts_are_used_once_and_counted(make):
    responses, scores = scored(make)
    pairs = score_gap(responses, scores, make.prompts("aba"))
    assert make.short(pairs) == [("a", "a0", "a2")]
    assert pairs.counts.given["prompt"] == 3 and pairs.counts.lost("prompt", "repeated prompt") == 1
    check_sums(pairs)


def test_prompts_that_end_with_another_role_are_refused_and_counted(make):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    answered, empty = Prompt.of(turns), Prompt.of([])
    prompts = pa.concat_tables([make.prompts("a"), to_table([answered, empty])])
    weak = to_table([Response(prompt, 0, "w", "good") for prompt in prompts["id"].to_pylist()])
    weaker = to_table([Response(prompt, 0, "v", "bad") for prompt in prompts["id"].to_pylist()])
    pairs = model_order(weak, weaker, prompts)
    assert make.short(pairs) == [("a", "good", "bad")]
    assert pairs.counts.lost("prompt", "last turn is not the user's") == 2
    check_sums(pairs)


def test_empty_tables(make):
    pairs = model_order(make.responses([]), make.responses([]), make.prompts([]))
    assert pairs.table.num_rows == 0 and pairs.table.schema.equals(Pair.SCHEMA)
    assert pairs.audit().warnings == ["No pairs."]
