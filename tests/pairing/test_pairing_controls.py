"""Reversed, tied and shuffled pairs."""

import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import correctness, model_order, reverse, score_gap


def two_models(make, samples=1, n=200):
    names = [str(i) for i in range(n)]
    weak = make.responses([(p, "weak", s, f"good {p} {s}", "stop", 10) for p in names for s in range(samples)])
    weaker = make.responses([(p, "weaker", s, f"bad {p}!", "stop", 3) for p in names for s in range(samples)])
    return weak, weaker, make.prompts(names)


def test_reversed(make):
    tables = two_models(make, n=3)
    plain = model_order(*tables)
    back = model_order(*tables, control="reversed")
    assert make.short(back) == [(question, rejected, chosen) for question, chosen, rejected in make.short(plain)]
    assert back.table["chosen_model"].to_pylist() == ["weaker"] * 3
    assert back.table["rule"].to_pylist() == ["model_order+reversed"] * 3
    assert back.lengths["chosen_tokens"].to_pylist() == [3] * 3
    assert back.lengths["rejected_chars"].to_pylist() == [8] * 3
    assert reverse(back.table).equals(plain.table)
    assert reverse(reverse(plain.table)).equals(plain.table)


def test_reversed_delta_changes_its_sign(make):
    responses = make.responses([("a", "m", 0, "x"), ("a", "m", 1, "y")])
    scores = make.scores([("a", "m", 0, 3.0), ("a", "m", 1, 1.0)])
    back = score_gap(responses, scores, make.prompts("a"), control="reversed")
    row = back.table.to_pylist()[0]
    assert (row["score_chosen"], row["score_rejected"], row["delta"]) == (1.0, 3.0, -2.0)


def test_tied_takes_two_samples_of_the_chosen_model(make):
    weak, weaker, prompts = two_models(make, samples=3)
    tied = model_order(weak, weaker, prompts, control="tied")
    assert tied.table.num_rows == 200
    assert set(tied.table["chosen_model"].to_pylist()) == set(tied.table["rejected_model"].to_pylist()) == {"weak"}
    plain = model_order(weak, weaker, prompts)
    assert tied.table["chosen"].equals(plain.table["chosen"])
    rejected = tied.table["rejected_sample"].to_pylist()
    assert set(rejected) == {1, 2} and 60 < rejected.count(1) < 140
    assert tied.table["rule"][0].as_py() == "model_order+tied"


def test_tied_says_what_it_needs(make):
    with pytest.raises(UserError, match="no prompt has a second response") as caught:
        model_order(*two_models(make), control="tied")
    assert "n: 2" in caught.value.problems[0].fix


def test_tied_leaves_out_and_counts_prompts_without_a_partner(make):
    weak = make.responses([("a", "w", 0, "x"), ("a", "w", 1, "y"), ("b", "w", 0, "x"), ("b", "w", 1, "X ")])
    weaker = make.responses([("a", "v", 0, "z"), ("b", "v", 0, "z")])
    tied = model_order(weak, weaker, make.prompts("ab"), control="tied")
    assert make.short(tied) == [("a", "x", "y")]
    assert make.dropped(tied, "prompt") == {make.id("b"): "no second response of the same quality"}


def test_tied_by_score_has_no_delta(make):
    rows = [("a", "m", 0, 1.0), ("a", "m", 1, 0.0), ("a", "n", 0, 1.0), ("b", "m", 0, 1.0), ("b", "m", 1, 0.5)]
    responses = make.responses([(p, model, sample, f"{model}{sample}") for p, model, sample, _ in rows])
    scores = make.scores(rows)
    for rule in (score_gap, correctness):
        tied = rule(responses, scores, make.prompts("ab"), control="tied")
        assert tied.table["delta"].to_pylist() == [0.0]
        assert {text for _, *sides in make.short(tied) for text in sides} == {"m0", "n0"}
    with pytest.raises(UserError, match="same score"):
        score_gap(responses, scores, make.prompts("b"), control="tied")


def test_shuffled_swaps_about_half_by_prompt_and_seed(make):
    weak, weaker, prompts = two_models(make)
    one = model_order(weak, weaker, prompts, control="shuffled", seed=1)
    models = one.table["chosen_model"].to_pylist()
    assert 70 < models.count("weak") < 130
    assert all(
        chosen != rejected for chosen, rejected in zip(models, one.table["rejected_model"].to_pylist(), strict=True)
    )
    other = model_order(weak, weaker, prompts, control="shuffled", seed=2)
    assert other.table["chosen_model"].to_pylist() != models
    half = model_order(weak, weaker, prompts.slice(50, 100), control="shuffled", seed=1)
    assert half.table["chosen_model"].to_pylist() == models[50:150]
