"""Wrong pairs found by an ensemble: the published trial run, both kinds of members, and what becomes of flags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_artifacts import artifact, run_step

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.pairing import model_order
from w2s_align.pairing.label_errors import act, by_judge, by_scores, find_label_errors, sample_to_check
from w2s_align.records import Prompt, Response, Score, to_table
from w2s_align.scoring.judge_scores import VERDICTS
from w2s_align.steps.label_errors import LabelErrorsStep


def simulate(members: int, seed: int = 0, n: int = 4000) -> tuple[list[np.ndarray], np.ndarray]:
    """Judges that share the difficulty of an item; 15% of the labels are wrong."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.15
    ease = rng.normal(1.2, 1.0, n)
    side = np.where(wrong, -1, 1)
    return [1 / (1 + np.exp(-1.5 * side * (ease + rng.normal(0, 1, n)))) for _ in range(members)], wrong


def quality(members: int, threshold: float) -> tuple[float, float, float]:
    told, wrong = simulate(members)
    found = find_label_errors(told, threshold).flagged
    right = (found & wrong).sum()
    precision, recall = right / found.sum(), right / wrong.sum()
    return 2 * precision * recall / (precision + recall), precision, found.mean()


def test_more_judges_find_more_and_confidence_is_precision() -> None:
    f1 = [quality(count, 0.5)[0] for count in (1, 4, 8, 16)]
    assert f1 == sorted(f1) and f1[3] - f1[0] > 0.1
    told, wrong = simulate(8)
    precision = [(find_label_errors(told, low).flagged & wrong).sum() for low in (0.5, 0.8, 0.95)]
    share = [
        p / find_label_errors(told, low).flagged.sum() for p, low in zip(precision, (0.5, 0.8, 0.95), strict=True)
    ]
    assert share == sorted(share) and share[2] > 0.85
    bins = find_label_errors(told, 0.5).bins
    assert [low for low, _, _ in bins] == [0.5, 0.65, 0.8, 0.95, 0.99]
    assert sum(pairs for _, pairs, _ in bins) == 4000


def test_dropping_and_flipping_lower_the_noise() -> None:
    told, wrong = simulate(8)
    noise = wrong.mean()
    low, middle = (find_label_errors(told, threshold).flagged for threshold in (0.5, 0.8))
    assert wrong[~low].mean() < noise / 3  # dropped
    assert (wrong ^ middle).mean() < 0.75 * noise  # flipped
    assert wrong[~low].mean() < (wrong ^ low).mean()  # at a low threshold dropping is better


def test_members_that_do_not_know_a_pair_have_no_say() -> None:
    nan = np.nan
    found = find_label_errors([np.array([0.1, nan, 0.9, nan]), np.array([0.3, 0.05, nan, nan])], 0.8)
    assert found.p_chosen[:3] == pytest.approx([0.2, 0.05, 0.9])
    assert found.flagged.tolist() == [True, True, False, False] and found.unknown == 1


PROMPTS = [Prompt.of(f"question {i}") for i in range(6)]


def made_pairs() -> pa.Table:
    chosen, rejected = (
        to_table([Response(p.id, 0, model, f"{model} answer {i}") for i, p in enumerate(PROMPTS)])
        for model in ("good", "bad")
    )
    return model_order(chosen, rejected, to_table(PROMPTS)).table


def posterior(good: list[float | None], bad: list[float | None], scorer: str = "combined:label_model") -> pa.Table:
    rows = [
        Score(p.id, 0, model, scorer, value)
        for model, values in (("good", good), ("bad", bad))
        for p, value in zip(PROMPTS, values, strict=True)
    ]
    return to_table(rows)


def verdicts(values: list[tuple[float, float]]) -> pa.Table:
    """Both orders of each comparison, seen from the worse model: its value when shown first and second."""
    about = {"model": "bad", "sample": 0, "other_model": "good", "other_sample": 0, "aspect": "", "draw": 0}
    words = {0: "loss", 1: "win"}
    rows = [
        {**about, "prompt_id": p.id, "shown": shown, "verdict": words.get(value, "tie"), "value": value, "text": ""}
        for p, both in zip(PROMPTS, values, strict=True)
        for shown, value in zip(("first", "second"), both, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=VERDICTS)


def test_a_judge_and_a_scorer_as_members() -> None:
    pairs = made_pairs()
    told = by_judge(pairs, verdicts([(0, 0), (1, 1), (1, 0), (0, 0), (0.5, 0.5), (1, 1)]))
    assert told.tolist() == [1, 0, 0.5, 1, 0.5, 0]
    scores = by_scores(pairs, posterior([0.9, 0.5, 0.2, None, 1.0, 0.0], [0.5, 0.5, 0.8, 0.5, 1.0, 0.0]))
    # .9 x .5 / (.9 x .5 + .5 x .1) = .9; nothing to choose where both are surely right or surely wrong
    assert scores[[0, 1, 2, 4, 5]] == pytest.approx([0.9, 0.5, 0.04 / 0.68, 0.5, 0.5])
    assert np.isnan(scores[3])
    with pytest.raises(UserError, match="are no probabilities"):
        by_scores(pairs, posterior([3] * 6, [1] * 6))


def test_flagged_pairs_are_dropped_or_flipped_and_some_of_both_kinds_are_to_be_checked() -> None:
    pairs = made_pairs()
    flagged = np.array([True, False, False, True, False, False])
    kept, rows = act(pairs, flagged, "drop")
    assert rows.tolist() == [1, 2, 4, 5] and kept["prompt_id"].to_pylist() == [PROMPTS[i].id for i in (1, 2, 4, 5)]
    flipped, _ = act(pairs, flagged, "flip")
    assert flipped["chosen_model"].to_pylist() == ["bad", "good", "good", "bad", "good", "good"]
    assert act(pairs, flagged, "none")[0].equals(pairs)
    found = find_label_errors([np.where(flagged, 0.1, 0.9)], 0.8)
    checks = sample_to_check(found, pairs, 2, seed=0)
    assert checks["flagged"].to_pylist() == [True, True, False, False]
    assert checks["weight"].to_pylist() == [1, 1, 2, 2]  # of 2 flagged ones 2, of 4 others 2


def test_the_step_writes_pairs_and_refuses_the_judge_that_made_them(tmp_path: Path) -> None:
    pairs = made_pairs()
    right = posterior([0.9] * 6, [0.1, 0.1, 0.97, 0.1, 0.1, 0.1])
    made = {
        "prompts": artifact(tmp_path / "prompts" / "key", "prompts", to_table(PROMPTS)),
        "made": artifact(tmp_path / "pairs" / "made", "pairs", pairs),
        "panel": artifact(tmp_path / "scores" / "panel", "scores", right),
    }
    (tmp_path / "pairs/made/data/pairs.parquet").rename(tmp_path / "pairs/made/data/train-0.parquet")
    names = [f"{side}_{unit}" for unit in ("chars", "tokens") for side in ("chosen", "rejected")]
    lengths = {name: pa.array(range(10, 16), pa.int32()) for name in names}
    pq.write_table(pa.table(lengths), tmp_path / "pairs/made/lengths.parquet")
    step = LabelErrorsStep(pairs="$made", ensemble=["$panel"], threshold=0.7, action="drop", to_check=1)
    work = run_step(step, made, tmp_path / "out")
    assert work.counts["kept"] == 5
    assert work.result["label_errors"]["flagged"] == 1
    assert any("One judge is no ensemble" in text for text in work.warnings)
    dropped = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert [row["reason"] for row in dropped] == ["label error"] and dropped[0]["prompt_id"] == PROMPTS[2].id
    flags = pq.read_table(tmp_path / "out/flags.parquet")
    assert flags["flagged"].to_pylist() == [False, False, True, False, False, False]
    assert pq.read_table(tmp_path / "out/checks.parquet")["weight"].to_pylist() == [1, 5]

    manifest = json.loads((tmp_path / "pairs/made/artifact.json").read_text())
    manifest["inputs"]["scores.0"] = {"kind": "scores", "key": "panel"}
    (tmp_path / "pairs/made/artifact.json").write_text(json.dumps(manifest))
    made["made"] = Artifact.open(tmp_path / "pairs/made")
    with pytest.raises(UserError, match=r"\$panel made these pairs: combined:label_model"):
        run_step(step, made, tmp_path / "again")
