"""The label model against planted truth: the table of published trial runs, symmetries, copies, and bad input."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_align.errors import UserError
from w2s_align.records import Score
from w2s_align.scoring import combine
from w2s_align.scoring.label_model import LabelModel, fit_label_model
from w2s_align.scoring.label_model_settings import LabelModelSettings


class Drawn(NamedTuple):
    right: np.ndarray
    true_positive: np.ndarray
    true_negative: np.ndarray
    votes: np.ndarray


def draw(n: int, prior: float, seed: int, m: int = 8, low: float = 0.55, high: float = 0.85) -> Drawn:
    """Votes of independent scorers whose rates are uniform."""
    rng = np.random.default_rng(seed)
    right = rng.random(n) < prior
    positive, negative = rng.uniform(low, high, (2, m))
    yes = np.where(right[:, None], positive, 1 - negative)
    return Drawn(right, positive, negative, (rng.random((n, m)) < yes).astype(np.int8))


def accuracy(model: LabelModel, drawn: Drawn) -> float:
    return float(((model.log_odds(drawn.votes) > 0) == drawn.right).mean())


def best_accuracy(drawn: Drawn, prior: float) -> float:
    """What knowing every rate would give."""
    none = np.zeros(len(drawn.true_positive))
    model = LabelModel(prior, prior, 0.0, none, drawn.true_positive, drawn.true_negative, none, none, none)
    return accuracy(model, drawn)


def auc(values: np.ndarray, right: np.ndarray) -> float:
    place = values.argsort().argsort()
    return float((place[right].mean() - (right.sum() - 1) / 2) / (~right).sum())


TABLE = [  # n, prior, m, errors of true positive and true negative rates, error of the prior by third moments
    (500, 0.3, 8, 0.042, 0.021, 0.030),
    (1000, 0.3, 8, 0.024, 0.013, 0.024),
    (5000, 0.3, 8, 0.012, 0.006, 0.008),
    (20000, 0.3, 8, 0.006, 0.003, 0.004),
    (5000, 0.5, 8, 0.007, 0.008, 0.009),
    (5000, 0.8, 8, 0.006, 0.016, 0.007),
    (5000, 0.3, 5, 0.015, 0.007, 0.021),
]


@pytest.mark.parametrize(("n", "prior", "m", "positive", "negative", "off"), TABLE)
def test_the_errors_are_those_of_the_trial_runs(
    n: int, prior: float, m: int, positive: float, negative: float, off: float
) -> None:
    found = []
    for seed in range(10):
        drawn = draw(n, prior, seed, m)
        known, free = fit_label_model(drawn.votes, prior), fit_label_model(drawn.votes)
        best = best_accuracy(drawn, prior)
        errors = (known.true_positive - drawn.true_positive, known.true_negative - drawn.true_negative)
        rates = [float(np.abs(error).mean()) for error in errors]
        bound = np.sqrt(1 / (n * min(prior, 1 - prior)))
        assert max(rates) < 2 * bound
        found.append([*rates, abs(free.prior - prior), best - accuracy(known, drawn), best - accuracy(free, drawn)])
    mean = np.mean(found, axis=0)
    assert mean[:2] == pytest.approx([positive, negative], abs=0.01)
    assert max(mean[:2]) < bound
    assert mean[2] < off + (0.02 if n <= 1000 else 0.01)  # ten other draws of the rates
    assert mean[3] < 0.01 and mean[4] < (0.02 if n <= 1000 else 0.01)


def test_three_scorers_are_just_enough() -> None:
    errors = {}
    for n in (1000, 20000):
        found = []
        for seed in range(10):
            drawn = draw(n, 0.5, seed, m=3)
            model = fit_label_model(drawn.votes, 0.5)
            found.append(np.abs(model.true_positive - drawn.true_positive).mean())
        errors[n] = np.mean(found)
    assert errors[1000] < 0.05 and errors[20000] < 0.02


def test_bad_scorers_do_not_hurt_where_most_are_good() -> None:
    found, vote = {}, {}
    for bad in (0, 3):
        accuracies, votes = [], []
        for seed in range(10):
            drawn = draw(5000, 0.3, seed, low=0.65, high=0.85)
            mixed = drawn.votes.copy()
            mixed[:, :bad] = 1 - mixed[:, :bad]
            accuracies.append(float(((fit_label_model(mixed, 0.3).log_odds(mixed) > 0) == drawn.right).mean()))
            votes.append(float(((mixed.mean(axis=1) > 0.5) == drawn.right).mean()))
        found[bad], vote[bad] = np.mean(accuracies), np.mean(votes)
    assert found[3] == pytest.approx(found[0], abs=0.002)
    assert vote[0] - vote[3] > 0.15


def test_intervals_hold_what_they_promise() -> None:
    inside = []
    for seed in range(30):
        drawn = draw(2000, 0.4, seed)
        model = fit_label_model(drawn.votes)
        for rate, error, truth in (
            (model.true_positive, model.true_positive_error, drawn.true_positive),
            (model.true_negative, model.true_negative_error, drawn.true_negative),
        ):
            inside += (np.abs(rate - truth) < 1.96 * error).tolist()
    assert 0.9 < np.mean(inside) < 0.99


def test_the_prompts_of_responses_widen_the_intervals() -> None:
    drawn = draw(500, 0.4, 0)
    rows = np.random.default_rng(0).permutation(4000)
    prompts = np.repeat(np.arange(500), 8)[rows]  # the eight responses of a prompt are one observation
    eight = np.repeat(drawn.votes, 8, axis=0)[rows]
    alone = fit_label_model(eight, 0.4).true_positive_error
    together = fit_label_model(eight, 0.4, prompts).true_positive_error
    assert 1.8 < (together / alone).mean() < 4


def test_it_agrees_with_dawid_and_skene() -> None:
    for seed, prior in ((0, 0.3), (1, 0.5), (2, 0.7)):
        drawn = draw(5000, prior, seed)
        ours = fit_label_model(drawn.votes).posterior(drawn.votes) > 0.5
        assert (ours == (dawid_skene(drawn.votes) > 0.5)).mean() >= 0.98


def dawid_skene(votes: np.ndarray) -> np.ndarray:
    """Expectation-maximization of Dawid and Skene (1979) for two classes, from the majority vote."""
    right = votes.mean(axis=1)
    for _ in range(200):
        prior = right.mean()
        positive = np.clip(right @ votes / right.sum(), 1e-6, 1 - 1e-6)
        negative = np.clip((1 - right) @ (1 - votes) / (1 - right).sum(), 1e-6, 1 - 1e-6)
        odds = np.log(prior / (1 - prior)) + votes @ np.log(positive / (1 - negative))
        odds += (1 - votes) @ np.log((1 - positive) / negative)
        right = 1 / (1 + np.exp(-odds))
    return right


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 0.8), st.integers(3, 9))
def test_symmetries(seed: int, prior: float, m: int) -> None:
    drawn = draw(600, prior, seed, m)
    model = fit_label_model(drawn.votes, prior)
    posterior = model.posterior(drawn.votes)
    rng = np.random.default_rng(seed)
    order, rows = rng.permutation(m), rng.permutation(len(posterior))
    permuted = fit_label_model(drawn.votes[:, order], prior)
    np.testing.assert_allclose(permuted.true_positive, model.true_positive[order], atol=1e-6)
    shuffled = drawn.votes[rows]
    np.testing.assert_allclose(fit_label_model(shuffled, prior).posterior(shuffled), posterior[rows], atol=1e-6)
    # What is called right is a name: with all votes turned round, so is the result.
    turned = fit_label_model(1 - drawn.votes, 1 - prior)
    np.testing.assert_allclose(turned.posterior(1 - drawn.votes), 1 - posterior, atol=1e-6)
    np.testing.assert_allclose(turned.true_positive, model.true_negative, atol=1e-6)
    # A scorer that says the opposite of all it thinks says as much, as long as most are better than chance.
    strength = model.strength.copy()
    strength[0] *= -1
    if strength.sum() > 0.05:
        liar = drawn.votes.copy()
        liar[:, 0] = 1 - liar[:, 0]
        np.testing.assert_allclose(fit_label_model(liar, prior).posterior(liar), posterior, atol=1e-5)


def test_missing_votes() -> None:
    drawn = draw(20000, 0.4, 3)
    votes = drawn.votes.copy()
    rng = np.random.default_rng(3)
    votes[rng.random(votes.shape) < np.linspace(0, 0.7, 8)] = -1
    model = fit_label_model(votes)
    assert np.abs(model.true_positive - drawn.true_positive).max() < 0.06
    assert abs(model.prior - 0.4) < 0.05
    silent = np.full((1, 8), -1, np.int8)
    assert model.posterior(silent)[0] == pytest.approx(model.prior)


# Through combine: scores, not votes.


def scores(prompts: int = 400, **columns: np.ndarray) -> pa.Table:
    """Rows of Score: each column is a scorer, NaN is no value; the responses are spread evenly over the prompts."""
    tables = []
    for name, values in columns.items():
        n = len(values)
        number = np.arange(n) * prompts // n
        first = np.searchsorted(number, number)
        base = {
            "prompt_id": [f"p{i:05d}" for i in number],
            "sample": pa.array(np.arange(n) - first, pa.int32()),
            "model": ["m"] * n,
            "scorer": [name] * n,
            "value": pa.array(values, mask=np.isnan(values)),
            "detail": [""] * n,
        }
        rest = {f.name: pa.nulls(n, f.type) for f in Score.SCHEMA if f.name not in base}
        tables.append(pa.table(base | rest).select(Score.SCHEMA.names).cast(Score.SCHEMA))
    return pa.concat_tables(tables)


def by_name(votes: np.ndarray) -> dict[str, np.ndarray]:
    return {f"s{i}": column.astype(float) for i, column in enumerate(votes.T)}


def test_probabilities_the_report_and_its_words() -> None:
    drawn = draw(4000, 0.4, 5, low=0.6)
    found = combine(scores(**by_name(drawn.votes)), "label_model")
    values = np.array(found.table["value"].to_pylist())
    assert set(found.table["scorer"].to_pylist()) == {"combined:label_model"}
    assert ((values > 0.5) == drawn.right).mean() > best_accuracy(drawn, 0.4) - 0.01
    panel = found.panel
    assert panel is not None and panel.prior_source == "third moments" and panel.labels == 0
    value, low, high = panel.prior
    assert low is not None and high is not None and low < 0.4 < high and value == pytest.approx(0.4, abs=0.05)
    best = {one.scorer: one for one in panel.scorers}
    for i in range(8):
        rate = best[f"s{i}"].true_positive
        assert rate is not None and rate[1] is not None and rate[1] < rate[0] < rate[2]
        assert rate[0] == pytest.approx(drawn.true_positive[i], abs=0.06)


def test_copies_are_left_out_and_then_it_beats_the_vote() -> None:
    pruned, whole, vote = [], [], []
    for seed in range(10):
        drawn, rng = draw(5000, 0.5, seed), np.random.default_rng(100 + seed)
        votes = drawn.votes.copy()
        for copy in (1, 2):
            same = rng.random(5000) < 0.8
            votes[same, copy] = votes[same, 0]
        table = scores(**by_name(votes))
        found = combine(table, "label_model", label_model=LabelModelSettings(prior=0.5))
        assert found.panel is not None
        assert sum(one.left_out is not None for one in found.panel.scorers) == 2
        assert any("repeat those of" in (one.left_out or "") for one in found.panel.scorers)
        pruned.append(((np.array(found.table["value"].to_pylist()) > 0.5) == drawn.right).mean())
        whole.append(((fit_label_model(votes, 0.5).log_odds(votes) > 0) == drawn.right).mean())
        vote.append(((votes.mean(axis=1) > 0.5) == drawn.right).mean())
    assert np.mean(pruned) == pytest.approx(0.870, abs=0.02)
    assert np.mean(pruned) > np.mean(vote) > np.mean(whole) + 0.03


def test_independent_strong_scorers_are_no_copies() -> None:
    drawn = draw(5000, 0.5, 0, low=0.55, high=0.85)
    panel = combine(scores(**by_name(drawn.votes)), "label_model").panel
    assert panel is not None and all(one.left_out is None for one in panel.scorers)


def test_a_wrong_prior_moves_the_threshold_not_the_order() -> None:
    drawn = draw(5000, 0.4, 1)
    areas = []
    for prior in (0.3, 0.4, 0.5):
        model = fit_label_model(drawn.votes, prior)
        areas.append(auc(model.log_odds(drawn.votes), drawn.right))
    assert max(areas) - min(areas) < 0.005


def continuous(drawn: Drawn, seed: int) -> dict[str, np.ndarray]:
    """Scores on three scales that tell right from wrong more or less well."""
    rng = np.random.default_rng(seed)
    scale = [(1, 0), (20, 3), (-0.0 + 5, -50), (0.2, 0), (100, 1000), (1, 1)]
    return {
        f"r{i}": size * (rng.normal(size=len(drawn.right)) + drawn.right * (0.8 + 0.3 * i)) + shift
        for i, (size, shift) in enumerate(scale)
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prior": 0.4},
        {"normalize": "min_max"},
        {"normalize": "ranks", "scope": "prompt"},
        {"binarize": "threshold", "normalize": "ranks", "threshold": 0.6},
        {"binarize": "top", "least_yes": 0.1},
    ],
    ids=str,
)
def test_scores_on_any_scale(options: dict) -> None:
    drawn = draw(6000, 0.4, 2)
    found = combine(scores(**continuous(drawn, 2)), "label_model", label_model=LabelModelSettings(**options))
    values = np.array(found.table["value"].to_pylist())
    assert auc(values, drawn.right) > 0.93
    assert found.panel is not None and len(found.panel.scorers) == 6
    if not options:
        assert found.panel.prior[0] == pytest.approx(0.4, abs=0.06)
        assert len(np.unique(values)) > 5000  # equal votes are told apart by the mean score


def test_a_few_labels_give_the_prior_and_thresholds() -> None:
    drawn = draw(6000, 0.3, 4)
    gold = scores(gold=drawn.right.astype(float))
    for binarize in ("balance", "labels"):
        found = combine(
            scores(**continuous(drawn, 4)),
            "label_model",
            labels=gold,
            label_model=LabelModelSettings(binarize=binarize),
            labeled_prompts=20,
            seed=1,
        )
        panel = found.panel
        assert panel is not None and panel.prior_source == "labels" and panel.labels == 20 * 15
        assert panel.prior[0] == pytest.approx(0.3, abs=0.08)
        assert auc(np.array(found.table["value"].to_pylist()), drawn.right) > 0.93


def test_a_regression_learns_from_the_same_labels() -> None:
    drawn = draw(6000, 0.3, 4)
    columns = continuous(drawn, 4)
    columns["r5"][::3] = np.nan
    gold = scores(gold=drawn.right.astype(float))
    areas = []
    for prompts in (5, 100):
        found = combine(scores(**columns), "supervised", labels=gold, labeled_prompts=prompts)
        areas.append(auc(np.array(found.table["value"].to_pylist()), drawn.right))
        assert found.panel is None
    assert areas[1] > max(areas[0], 0.95)
    with pytest.raises(UserError, match="0 labels are right and 0 are wrong"):
        combine(scores(**columns), "supervised")


def test_the_majority_answer_votes_too() -> None:
    drawn = draw(2000, 0.5, 6)
    table = scores(prompts=200, **by_name(drawn.votes[:, :3]))
    answers = [str(right) if right else f"wrong {i % 3}" for i, right in enumerate(drawn.right)]
    with_answers = table.set_column(
        table.schema.get_field_index("answer"), "answer", pa.array(answers * 3, pa.string())
    )
    panel = combine(with_answers, "label_model").panel
    assert panel is not None and "majority" in [one.scorer for one in panel.scorers]
    without = combine(with_answers, "label_model", label_model=LabelModelSettings(majority=False)).panel
    assert without is not None and len(without.scorers) == 3


# Bad input: refused, or answered with what can still be said.


def test_two_scorers() -> None:
    drawn = draw(2000, 0.4, 7, m=2)
    table = scores(**by_name(drawn.votes))
    with pytest.raises(UserError, match="Two scorers do not say how many"):
        combine(table, "label_model")
    found = combine(table, "label_model", label_model=LabelModelSettings(prior=0.4))
    assert found.panel is not None and "taken for equally good" in found.panel.warnings[0]
    values = np.array(found.table["value"].to_pylist())
    both = drawn.votes.sum(axis=1)
    assert values[both == 2].min() > values[both == 1].max() > values[both == 0].max()


def test_a_constant_scorer_is_left_out_with_the_reason() -> None:
    drawn = draw(2000, 0.4, 8, m=4)
    table = scores(**by_name(drawn.votes), always=np.ones(2000), never=np.full(2000, np.nan))
    panel = combine(table, "label_model").panel
    assert panel is not None
    why = {one.scorer: one.left_out for one in panel.scorers}
    assert why["always"] == "it says yes to every response"
    assert why["never"] == "it scored none of the responses"


def test_all_copies_of_one_are_refused() -> None:
    drawn = draw(2000, 0.4, 9, m=1)
    table = scores(**by_name(np.repeat(drawn.votes, 5, axis=1)))
    with pytest.raises(UserError, match="of 5 s0 alone can be used") as caught:
        combine(table, "label_model")
    assert "s1: its votes repeat those of s0 (correlation 1.00)" in caught.value.problems[0].why


def test_everyone_below_chance() -> None:
    drawn = draw(4000, 0.3, 10)
    table = scores(**by_name(1 - drawn.votes))
    # Without labels nobody can know; where the share of right responses is known, the votes contradict it.
    told = combine(table, "label_model", label_model=LabelModelSettings(prior=0.3))
    assert told.panel is not None and any("worse than chance" in text for text in told.panel.warnings)
    gold = scores(gold=drawn.right.astype(float))
    found = combine(table, "label_model", labels=gold, labeled_prompts=10)
    assert found.panel is not None and "By the labels most scorers are worse than chance" in found.panel.warnings[0]
    assert ((np.array(found.table["value"].to_pylist()) > 0.5) == drawn.right).mean() > 0.85


def test_scorers_that_agree_by_chance_alone() -> None:
    rng = np.random.default_rng(11)
    a = (rng.random(2000) < 0.5).astype(float)
    table = scores(a=a, b=1 - a)
    with pytest.raises(UserError, match="no more often than by chance"):
        combine(table, "label_model", label_model=LabelModelSettings(prior=0.5))


@pytest.mark.parametrize("prior", [0, 1])
def test_a_prior_without_a_question_is_refused(prior: int) -> None:
    with pytest.raises(ValueError, match="prior"):
        LabelModelSettings(prior=prior)


def test_labels_of_one_kind_are_a_guess_and_say_so() -> None:
    drawn = draw(2000, 0.4, 12)
    labels = scores(gold=np.where(drawn.right, 1.0, np.nan))
    found = combine(scores(**by_name(drawn.votes)), "label_model", labels=labels)
    assert found.panel is not None and "labels are right" in found.panel.warnings[0]
    with pytest.raises(UserError, match="needs labels of right and of wrong"):
        combine(
            scores(**by_name(drawn.votes)),
            "label_model",
            labels=labels,
            label_model=LabelModelSettings(binarize="labels"),
        )


def test_votes_for_other_responses() -> None:
    drawn = draw(2000, 0.4, 13, m=4)
    own, other = scores(**by_name(drawn.votes[:, :3])), scores(s9=drawn.votes[:, 3].astype(float))
    other = other.set_column(0, "prompt_id", pa.array([f"other{i}" for i in range(2000)])).cast(Score.SCHEMA)
    found = combine(pa.concat_tables([own, other]), "label_model")
    assert found.panel is not None
    why = {one.scorer: one.left_out for one in found.panel.scorers}
    assert why["s9"] == "it scored other responses than the other scorers"
    assert found.unscored == {"no scorer has a value": 2000}
    strangers = pa.concat_tables([scores(a=drawn.votes[:, 0].astype(float)), other])
    with pytest.raises(UserError, match="none can be used"):
        combine(strangers, "label_model")
    elsewhere = combine(own, "label_model", labels=other)
    assert elsewhere.panel is not None and "None of the labels is of" in elsewhere.panel.warnings[0]


def test_a_scorer_that_scored_half() -> None:
    drawn = draw(6000, 0.4, 14, m=5)
    columns = by_name(drawn.votes)
    columns["s4"][::2] = np.nan
    found = combine(scores(**columns), "label_model")
    assert found.panel is not None and "s4 scored 50% of the responses" in found.panel.warnings[0]
    assert found.scored == 6000
    rate = next(one for one in found.panel.scorers if one.scorer == "s4").true_positive
    assert rate is not None and rate[0] == pytest.approx(drawn.true_positive[4], abs=0.06)


def test_pairs_of_scorers_that_never_meet_a_third() -> None:
    drawn = draw(3000, 0.4, 16, m=3)
    votes = drawn.votes.copy()
    for third in range(3):
        votes[third::3, third] = -1
    with pytest.raises(UserError, match="No response has the votes of three scorers"):
        fit_label_model(votes)
    model = fit_label_model(votes, 0.4)  # pair by pair is enough where the share is known
    assert np.abs(model.true_positive - drawn.true_positive).max() < 0.12


def test_names_and_order_of_inputs_do_not_matter() -> None:
    drawn = draw(3000, 0.4, 15)
    columns = by_name(drawn.votes)
    table = scores(**columns)
    found = combine(table, "label_model").table["value"].to_pylist()
    renamed = scores(**{f"x{9 - i}": column for i, column in enumerate(columns.values())})
    assert combine(renamed, "label_model").table["value"].to_pylist() == pytest.approx(found)
    apart = (scores(**{name: columns[name]}) for name in reversed(columns))
    assert combine(apart, "label_model").table["value"].to_pylist() == pytest.approx(found)
