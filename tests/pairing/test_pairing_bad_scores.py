"""Scores and verdicts that are broken, in every rule and step that reads them: counted or refused, never passed on."""

import math

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import Level, best_worst, correctness, judge, ranked_scores, score_gap
from w2s_align.responses.select import select_correct
from w2s_align.scoring import VERDICTS, combine
from w2s_align.scoring import judge as ask_judge
from w2s_align.scoring.judge_prompts import JudgeSettings


def rank(responses, scores, prompts):
    return ranked_scores(responses, scores, prompts, levels=[Level(scorer="s")])


BY_SCORE = [best_worst, correctness, score_gap, rank, select_correct]


@pytest.fixture
def tables(make):
    rows = (
        [("a", "m", s, f"a {s}") for s in range(4)]
        + [("b", "m", 0, "b 0")]
        + [("c", "m", s, f"c {s}") for s in (0, 1)]
    )
    values = [1.0, math.nan, None, 0.0, 1.0, 0.5, 0.5]
    scores = make.scores([(*row[:3], value) for row, value in zip(rows, values, strict=True)])
    return make.responses(rows), scores, make.prompts("abcd")


@pytest.mark.parametrize("rule", BY_SCORE[:4])
def test_nan_one_candidate_and_equal_candidates_are_counted(make, tables, rule):
    pairs = rule(*tables)
    assert make.short(pairs) == [("a", "a 0", "a 3")]
    reasons = make.dropped(pairs, "prompt")
    assert set(reasons) == {make.id(p) for p in "bcd"}
    assert reasons[make.id("d")] == "no response"
    assert reasons[make.id("b")] in ("one response only", "all right")
    assert reasons[make.id("c")] in ("all scores equal", "all wrong", "no level decides")


@pytest.mark.parametrize("rule", BY_SCORE)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("model"), "scores have no column model"),
        (lambda t: t.set_column(4, "value", pa.array([str(v) for v in t["value"].to_pylist()])), "not numbers"),
        (lambda t: pa.concat_tables([t, t.set_column(4, "value", pa.array([9.0] * 7))]), "another score"),
        (lambda t: t.set_column(3, "scorer", pa.array(["x"] * 6 + ["y"])), "x|No scores by the scorer 's'"),
    ],
)
def test_broken_scores_are_refused(tables, rule, change, message):
    responses, scores, prompts = tables
    with pytest.raises(UserError, match=message):
        rule(responses, change(scores), prompts)


@pytest.mark.parametrize("rule", [*BY_SCORE, judge])
def test_responses_without_a_model_are_refused(tables, rule):
    responses, scores, prompts = tables
    read = VERDICTS.empty_table() if rule is judge else scores
    with pytest.raises(UserError, match="responses have no column model"):
        rule(responses.drop_columns("model"), read, prompts)


def test_a_judge_and_a_combination_refuse_broken_tables(tables):
    responses, scores, prompts = tables
    settings = JudgeSettings(mode="pairwise")
    with pytest.raises(UserError, match="responses have no column model"):
        ask_judge("nobody", prompts, responses.drop_columns("model"), settings)
    with pytest.raises(UserError, match="prompts have no column messages"):
        ask_judge("nobody", prompts.drop_columns("messages"), responses, settings)
    with pytest.raises(UserError, match="scores have no column value"):
        combine(scores.drop_columns("value"))
    with pytest.raises(UserError, match="not numbers"):
        combine(scores.set_column(4, "value", pa.array(["high"] * 7)))


def test_verdicts_without_any_comparison_make_no_pair(make, tables):
    responses, _, prompts = tables
    pairs = judge(responses, VERDICTS.empty_table(), prompts)
    assert pairs.table.num_rows == 0
    assert make.dropped(pairs, "prompt") == {
        make.id("a"): "not judged",
        make.id("b"): "one response only",
        make.id("c"): "not judged",
        make.id("d"): "no response",
    }
    assert pairs.counts.comparisons == {}
