"""Gold answers as responses, and pairs that get a weight where they are made."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from made_artifacts import artifact, run_step

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, Score, from_table, to_table
from w2s_align.steps import CATALOGUE
from w2s_align.steps.gold_answers import GoldAnswers


def test_gold_answers_become_responses_and_missing_ones_are_counted(tmp_path):
    prompts = [Prompt.of("1+1", answer="2"), Prompt.of("2+2"), Prompt.of("3+3", answer="6")]
    made = {"prompts": artifact(tmp_path / "prompts", "prompts", to_table(prompts))}
    work = run_step(GoldAnswers(prompts="$prompts"), made, tmp_path / "out")
    found = from_table(Response, pq.read_table(tmp_path / "out" / "data" / "responses.parquet"))
    assert [(row.prompt_id, row.text, row.model) for row in found] == [
        (prompts[0].id, "2", "gold"),
        (prompts[2].id, "6", "gold"),
    ]
    assert work.counts == {"rows_in": 3, "kept": 2, "dropped": {"without_answer": 1}}
    bare = {"prompts": artifact(tmp_path / "bare", "prompts", to_table([Prompt.of("2+2")]))}
    with pytest.raises(UserError, match="None of the 1 prompts has a gold answer"):
        run_step(GoldAnswers(prompts="$prompts"), bare, tmp_path / "none")


def test_pairs_by_posterior_carry_how_probable_their_order_is(tmp_path):
    prompt = Prompt.of("1+1")
    responses = [Response(prompt.id, i, "m", text) for i, text in enumerate(["2", "3"])]
    scores = [Score(prompt.id, i, "m", "panel", value) for i, value in enumerate([0.9, 0.2])]
    artifact(tmp_path / "prompts" / "key", "prompts", to_table([prompt]))
    made = {
        "r": artifact(tmp_path / "responses" / "r", "responses", to_table(responses)),
        "s": artifact(tmp_path / "scores" / "s", "scores", to_table(scores)),
    }
    options = {"kind": "pair", "rule": "posterior", "responses": ["$r"], "scores": ["$s"]}
    plain, weighted = (CATALOGUE["pair"].model_validate(options | more) for more in ({}, {"weights": "preference"}))
    assert "weights" not in plain.content() and weighted.content()["weights"] == "preference"
    run_step(weighted, made, tmp_path / "out")
    (file,) = (tmp_path / "out" / "data").glob("*.parquet")
    assert pq.read_table(file)["weight"].to_pylist() == pytest.approx([0.72 / 0.74])
