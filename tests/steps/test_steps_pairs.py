"""Weak labels of pairs in a recipe: halves, scores, labels, students with and without a conflict, deception."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.evaluation import Results
from w2s_align.lab.tasks import problems
from w2s_align.runs import Run, load_recipe, recipe_from_text
from w2s_align.steps import CATALOGUE
from w2s_align.steps.half_pairs import HalfPairs
from w2s_align.steps.label_pairs import LabelPairs
from w2s_align.steps.score_pairs import ScorePairs
from w2s_align.steps.work import Work
from w2s_align.terminal.show import show_target

MODEL = "{kind: lab_model, layers: 2, width: 32, steps: 0"
FIT = "fit_pairs: $fit, fit_scores: $scored_fit"
FAST = "learning_rate: 5e-3, batch_size: 8, max_steps: 1, warmup_steps: 0"
RECIPE = f"""\
name: weak_pairs
seed: 0
steps:
  strong: {MODEL}, seed: 1}}
  small:  {MODEL}, seed: 2}}
  gold:   {{kind: import_pairs, source: %(gold)s}}
  second: {{kind: import_pairs, source: %(second)s}}
  helpful: {{kind: import_pairs, source: %(helpful)s}}
  teach:  {{kind: half_pairs, pairs: $gold, half: first, share: 0.75, apart_from: $helpful}}
  fit:    {{kind: half_pairs, pairs: $gold, half: second, share: 0.75}}
  weak:   {{kind: dpo, model: $small, pairs: $teach, {FAST}}}
  scored: {{kind: score_pairs, model: $weak, pairs: $second, by: logprob}}
  scored_fit: {{kind: score_pairs, model: $weak, pairs: $fit, by: logprob}}
  labels: {{kind: label_pairs, pairs: $second, scores: $scored, weights: confidence, {FIT}}}
  sure:   {{kind: label_pairs, pairs: $second, scores: $scored, temperature: 2, least_confidence: 0.6}}
  none:   &student {{kind: dpo, model: $strong, pairs: $labels, {FAST}, seeds: [1, 2]}}
"""
EVALUATED = """\
  test:   {kind: import_pairs, source: %(test)s}
  marked: {kind: label_pairs, pairs: $second, scores: $scored, gold_order: true}
  explicit: {<<: *student, pairs: $marked, conflict: {alpha: 0.5}, seeds: [1]}
  implicit: {<<: *student, pairs: [$labels, $helpful], seeds: [1]}
  ceiling:  {<<: *student, pairs: $second, seeds: [1]}
  scores:
    kind: evaluate_pairs
    pairs: $test
    by: logprob
    arms: {weak: $weak, none: $none, explicit: $explicit, implicit: $implicit, ceiling: $ceiling}
    roles: {weak: teacher, none: treatment, explicit: other, implicit: other, ceiling: ceiling}
    baseline: weak
    without_conflict: none
    fit_pairs: $fit
  report: {kind: report, of: $scores}
"""


def write_pairs(path: Path, number: int, seed: int, swap: bool = False) -> Path:
    """Write right additions over wrong ones; swapped at random, they are pairs whose gold labels nobody knows."""
    dice, coin = random.Random(seed), random.Random(1)
    rows = []
    for problem in problems("lab/addition", number, seed, "train"):
        sides = [f"{problem.answer}", f"{int(problem.answer) + dice.choice([1, 10, 100])}"]
        if swap and coin.random() < 0.5:
            sides.reverse()
        rows.append({"prompt": problem.messages[0]["content"], "chosen": sides[0], "rejected": sides[1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def files(root: Path) -> dict[str, Path]:
    numbers = {"gold": (32, 1), "second": (32, 2), "helpful": (32, 3), "test": (40, 4)}
    return {name: write_pairs(root / f"{name}.jsonl", *n) for name, n in numbers.items()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The whole recipe, with gold labels everywhere."""
    root = tmp_path_factory.mktemp("weak_pairs")
    return root, recipe_from_text((RECIPE + EVALUATED) % files(root)).run(root / "runs")


def test_the_labels_are_the_weak_models_order(done):
    _, run = done
    table, scores = run.artifact("labels").table(), run.artifact("scored").table()
    assert table.num_rows == 32 and scores.num_rows == 64
    assert min(table["delta"].to_pylist()) >= 0
    weights, p = (np.array(table[name].to_pylist()) for name in ("weight", "p_pref"))
    assert weights == pytest.approx(2 * (p - 0.5))
    assert run.artifact("labels").manifest["result"]["temperature"] > 0
    assert set(table["rule"].to_pylist()) == {"weak_label"}
    sure = run.artifact("sure")
    dropped = sure.manifest["counts"]["dropped"]
    assert 0 < sure.table().num_rows == 32 - dropped["the label is less sure than least_confidence"]
    assert min(sure.table()["p_pref"].to_pylist()) >= 0.6


def test_the_evaluation_counts_the_tax_of_each_conflict_and_region(done, capsys):
    root, run = done
    results = Results.model_validate_json(run.artifact("scores").text("results.json"))
    assert results.study == "pairs" and results.problems == 40
    assert {arm.name for arm in results.arms} == {"weak", "none", "explicit", "implicit", "ceiling"}
    rows = [(c.arm, c.seed, c.reading, c.against) for c in results.conflicts]
    assert rows == [
        ("none", "1", "no_conflict", "none 2"),
        ("none", "1", "ceiling", "ceiling 1"),
        ("none", "2", "no_conflict", "none 1"),
        ("none", "2", "ceiling", "ceiling 1"),
        ("explicit", "1", "no_conflict", "none 1"),
        ("explicit", "1", "ceiling", "ceiling 1"),
        ("implicit", "1", "no_conflict", "none 1"),
        ("implicit", "1", "ceiling", "ceiling 1"),
        ("ceiling", "1", "no_conflict", "none 1"),
    ]
    for found in results.conflicts:
        assert sum(region.tax.whole for region in found.regions) == found.tax.whole == 40
        assert sum(region.tax.part for region in found.regions) == found.tax.part == found.score.whole
        assert len(found.regions) == 4
    page = (run.artifact("report").path / "report.html").read_text()
    assert "Tax by region" in page and "strong knows, weak does not" in page
    show_target(str(run.artifact("scores").path), root / "runs", 0, 5)
    assert "Conflicts" in capsys.readouterr().out


def work(run: Run, out: Path, **inputs: str) -> Work:
    """Return a step at work on artifacts of a run."""
    artifacts = {place: run.artifact(name) for place, name in inputs.items()}
    return Work("step", out, artifacts, inputs, lambda done, total, note: None)


def test_without_gold_labels_of_the_second_half_the_files_are_the_same(done, tmp_path):
    """What is learned is the labels' file: chosen and rejected of the second half are swapped at random here."""
    _, run = done
    swapped = Artifact(tmp_path / "second", run.artifact("second").manifest)
    source = write_pairs(tmp_path / "second.jsonl", 32, 2, swap=True)
    at_work = Work("second", swapped.path, {}, {}, lambda done, total, note: None)
    CATALOGUE["import_pairs"].model_validate({"kind": "import_pairs", "source": str(source)}).run(at_work)
    assert swapped.table().num_rows == 32 and swapped.table() != run.artifact("second").table()
    scored = Artifact(tmp_path / "scored", run.artifact("scored").manifest)
    sources = {"model": "weak", "pairs": "second"}
    inputs = {"model": run.artifact("weak"), "pairs": swapped}
    ScorePairs(model="$weak", pairs="$second", by="logprob").run(Work("scored", scored.path, inputs, sources, print))
    inputs = {"pairs": swapped, "scores": scored}
    inputs |= {"fit_pairs": run.artifact("fit"), "fit_scores": run.artifact("scored_fit")}
    options = {"pairs": "$second", "scores": "$scored", "weights": "confidence"}
    fit = {"fit_pairs": "$fit", "fit_scores": "$scored_fit"}
    labels, sure = tmp_path / "labels", tmp_path / "sure"
    LabelPairs(**options, **fit).run(Work("labels", labels, inputs, {}, print))
    options = {"pairs": "$second", "scores": "$scored", "temperature": 2, "least_confidence": 0.6}
    LabelPairs(**options).run(Work("sure", sure, inputs, {}, print))
    for step, file in (
        ("scored", "data/scores.parquet"),
        ("labels", "data/train-00000-of-00001.parquet"),
        ("labels", "lengths.parquet"),
        ("sure", "data/train-00000-of-00001.parquet"),
    ):
        assert (run.artifact(step).path / file).read_bytes() == (tmp_path / step / file).read_bytes(), step


def test_a_models_own_pairs_are_left_out_or_refused(done, tmp_path):
    _, run = done
    at_work = work(run, tmp_path / "drop", model="weak", pairs="gold")
    ScorePairs(model="$weak", pairs="$gold", by="logprob").run(at_work)
    assert at_work.counts == {"rows_in": 32, "kept": 8, "dropped": {"trained_on": 24}, "unscored": 0}
    step = ScorePairs(model="$weak", pairs="$teach", by="logprob", own_pairs="refuse")
    with pytest.raises(UserError, match="24 of the 24 pairs are pairs that"):
        step.run(work(run, tmp_path / "refuse", model="weak", pairs="teach"))
    with pytest.raises(UserError, match="24 of the 24 items are in the test"):
        HalfPairs(pairs="$teach", half="first", apart_from="$gold").run(
            work(run, tmp_path / "half", pairs="teach", apart_from="gold")
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "nobody"}, "baseline: nobody is not an arm"),
        ({"without_conflict": "nobody"}, "without_conflict: nobody is not an arm"),
        ({"fit_pairs": None}, "after a temperature alone"),
        ({"without_conflict": None}, "fit_pairs is read with without_conflict alone"),
        (
            {"roles": {"weak": "teacher", "none": "treatment", "ceiling": "other"}},
            "No arm, or more than one, has the role ceiling",
        ),
    ],
)
def test_evaluations_that_cannot_work_are_refused(changes, said):
    step = {
        "kind": "evaluate_pairs",
        "pairs": "$test",
        "by": "logprob",
        "arms": {"weak": "$weak", "none": "$none", "ceiling": "$ceiling"},
        "roles": {"weak": "teacher", "none": "treatment", "ceiling": "ceiling"},
        "baseline": "weak",
        "without_conflict": "none",
        "fit_pairs": "$fit",
    }
    with pytest.raises(UserError, match=said):
        CATALOGUE["evaluate_pairs"].model_validate(step | changes).check()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("label_pairs", {"pairs": "$a", "scores": "$b", "fit_pairs": "$c"}, "belong together"),
        (
            "label_pairs",
            {"pairs": "$a", "scores": "$b", "weights": "preference"},
            "takes probabilities",
        ),
        ("score_pairs", {"pairs": "$a", "model": "$b", "reference": "$c"}, "A reward model needs no reference"),
    ],
)
def test_options_that_do_not_go_together_are_refused(kind, options, said):
    with pytest.raises(UserError, match=said):
        CATALOGUE[kind].model_validate({"kind": kind, **options}).check()


def test_the_lab_recipe_loads():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "w2sg" / "deception_lab.yaml")
    assert {"weak", "labels", "marked", "explicit@1", "implicit@2", "scores"} <= set(recipe.recipe.nodes)
