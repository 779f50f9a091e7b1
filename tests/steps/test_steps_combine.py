"""combine and best_of as steps, on answers to the lab's problems: artifacts, page, terminal, keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lab_solutions import write_solution
from made_artifacts import artifact, run_step
from rich.console import Console

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.evaluation import Results
from w2s_align.lab import problems
from w2s_align.records import Response, to_table
from w2s_align.reporting.choice_page import choice_table
from w2s_align.reporting.panel_page import panel_table
from w2s_align.scoring import SCORERS, score
from w2s_align.steps.best_of import BestOf
from w2s_align.steps.combine import Combine
from w2s_align.steps.work import Work

VERIFIERS = [{"slip": 0.1}, {"slip": 0.3}, {"slip": 0.4}, {"slip": 0.3, "lazy": 0.3}, {"slip": 0.3, "tries": 5}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Problems, four answers to each by an author who forgets half of the carries, the exact check, five verifiers."""
    root = tmp_path_factory.mktemp("made")
    prompts = problems("lab/addition", 200, seed=0, split="test")
    forgets = np.random.default_rng(0).random((len(prompts), 4, 3)) < 0.5
    responses = [
        Response(p.id, i, "m", write_solution("lab/addition", p.messages[-1]["content"], tuple(forgets[row, i])))
        for row, p in enumerate(prompts)
        for i in range(4)
    ]
    asked, answered = to_table(prompts), to_table(responses)
    found = {
        "prompts": artifact(root / "prompts" / "key", "prompts", asked),
        "responses": artifact(root / "responses" / "key", "responses", answered),
        "gold": artifact(root / "scores" / "gold", "scores", score(asked, answered, "lab").table),
    }
    for i, options in enumerate(VERIFIERS):
        scorer = SCORERS["lab_verifier"](draws=i, **options)
        found[f"v{i}"] = artifact(root / "scores" / f"v{i}", "scores", score(asked, answered, scorer).table)
    return found


def combined(made: dict[str, Artifact], out: Path, **options: Any) -> Work:
    step = Combine(scores=[f"$v{i}" for i in range(len(VERIFIERS))], **options)
    step.check()
    return run_step(step, made, out)


def text_of(renderable: Any) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(renderable)
    return console.export_text()


def test_a_label_model_writes_probabilities_a_page_and_what_show_prints(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    work = combined(made, tmp_path / "panel", method="label_model")
    table = pq.read_table(tmp_path / "panel/data/scores.parquet")
    assert work.counts["kept"] == table.num_rows == 800
    panel = work.result["panel"]
    assert {one["scorer"] for one in panel["scorers"]} == {*(f"lab_verifier:{i}" for i in range(5)), "majority"}
    page = (tmp_path / "panel/report.html").read_text()
    assert "true positives" in page and "lab_verifier:0" in page and "without labels" in page
    shown = text_of(panel_table(json.loads(json.dumps(panel))))
    assert "Right responses: " in shown and "lab_verifier:0" in shown
    # what it says of the best verifier is what the exact check says of it
    gold = np.array(made["gold"].table()["value"].to_pylist()) == 1
    yes = np.array(made["v0"].table()["value"].to_pylist()) == 1
    one = next(one for one in panel["scorers"] if one["scorer"] == "lab_verifier:0")
    assert one["true_positive"][0] == pytest.approx(yes[gold].mean(), abs=0.12)
    assert one["true_negative"][0] == pytest.approx((~yes[~gold]).mean(), abs=0.12)


def test_ways_to_choose_are_compared(made: dict[str, Artifact], tmp_path: Path) -> None:
    more = dict(made)
    ways = {
        "mean": {"method": "mean"},
        "label_model": {"method": "label_model"},
        "supervised": {"method": "supervised", "labels": ["$gold"], "labeled_prompts": 20},
    }
    for name, options in ways.items():
        combined(made, tmp_path / name, **options)
        table = pq.read_table(tmp_path / name / "data" / "scores.parquet")
        more[name] = artifact(tmp_path / "made" / name, "scores", table)
    step = BestOf(
        responses="$responses",
        gold="$gold",
        ways={name: f"${name}" for name in ("v3", *ways)},
        roles={"v3": "control"},
    )
    step.check()
    work = run_step(step, more, tmp_path / "out")
    results = Results.model_validate_json((tmp_path / "out/results.json").read_text())
    found = {arm.name: arm.settings["best of 4"].estimate.value or 0 for arm in results.arms}
    assert found["oracle"] > found["label_model"] > found["one_response"] + 0.1
    assert found["label_model"] > found["v3"]
    assert work.result["verdict"]["status"] in ("improved", "partial")
    shown = text_of(choice_table(results))
    assert "chosen by" in shown and "gap recovered" in shown and "label_model" in shown
    assert {"arm", "run", "setting"} <= set(pq.read_schema(tmp_path / "out/data/scores.parquet").names)


def test_new_options_leave_the_keys_of_votes_and_means_alone() -> None:
    for method in ("vote", "mean"):
        step = Combine(scores=["$a"], method=method, seed=3)
        assert set(step.content()) == {"kind", "scores", "method", "weights", "thresholds"}
    assert {"label_model", "labels", "seed"} <= set(Combine(scores=["$a"], method="label_model").content())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "supervised"}, "method: supervised needs labels"),
        ({"method": "label_model", "labeled_prompts": 5}, "labeled_prompts needs labels"),
        ({"method": "label_model", "label_model": {"binarize": "labels"}}, "binarize: labels needs labels"),
        ({"method": "mean", "labels": ["$gold"]}, "labels belong to method: label_model and supervised"),
        ({"method": "label_model", "weights": {"a": 2}}, "weights belong to method: vote and mean"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Combine(scores=["$a"], **options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": {"oracle": "$a"}}, "'oracle' cannot name a way"),
        ({"ways": {"a": "$a"}, "roles": {"b": "control"}}, "roles: b is not a way"),
        ({"ways": {"a": "$a"}, "baseline": "c"}, "baseline: c is not a way"),
    ],
)
def test_ways_that_are_not_there(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BestOf(responses="$r", gold="$g", **options).check()
