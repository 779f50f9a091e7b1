"""Rehearsals: nothing reaches outside, everything that makes the method stays, and real ones run from end to end."""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from w2s_align.errors import UserError
from w2s_align.recipe import parse_document, read_document
from w2s_align.rehearsal.rehearse import ITEMS, LEARNING_RATE, STEPS, Rehearsal, rehearsal
from w2s_align.rehearsal.rows import stand_in_rows
from w2s_align.steps.train import TrainStep
from w2s_align.terminal.catalogue import shipped_recipes

RECIPES = shipped_recipes()
FOLDERS = ("delta_learning", "tulu3", "olmo3", "small", "w2sg")
OF_THE_HUB = [name for name, path in RECIPES.items() if "kind: lab_model" not in path.read_text(encoding="utf-8")]
PUBLISHED = [name for name in OF_THE_HUB if name.split("/")[0] in (*FOLDERS, "reasoning")]
NAMES = [read_document(RECIPES[name]).data["name"] for name in PUBLISHED]
REPRESENTATIVE = "delta_learning/ladder_sft"
"""Two models by vLLM, pairs, and a training on two processes."""
CHANGED = {
    *("kind", "model", "pairs", "data", "learning_rate", "max_steps", "num_train_epochs", "seed", "seeds", "launch"),
    *("resources", "dtype", "adapter", "held_out", "early_stopping"),
}
"""Options of a training that a rehearsal may change, and says so."""


@functools.cache
def rehearse(name: str, folder: Path) -> Rehearsal:
    return rehearsal(read_document(RECIPES[name]), folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all rehearsals: what two recipes share is made once."""
    return tmp_path_factory.mktemp("rehearsals")


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_of_a_rehearsal_needs_the_hub_or_a_gpu(name: str, shared: Path) -> None:
    rehearsed = rehearse(name, shared / "rows")
    assert rehearsed.models
    for node in rehearsed.recipe.nodes.values():
        config: Any = node.config
        for reference in config.references():
            assert reference.step is not None, f"{node.name} still names {reference.value}"
        if config.kind in ("prompts", "import_pairs"):
            generated = config.source.startswith("reasoning_gym/")
            assert generated or Path(config.source).is_file()
            assert config.limit <= (ITEMS if name.startswith("w2sg") else 24)
        if isinstance(config, TrainStep):
            assert config.resources.device == "cpu" and not config.resources.report_to
            assert (config.launch == "single") == (config.resources.processes is None)
        assert config.kind != "likelihood"
        if config.kind == "task":
            assert Path(config.definition().data.source).is_file() and config.definition().limit <= 24
        assert getattr(config, "engine", None) is None or config.engine.name in ("auto", "vllm", "transformers")


MADE_UP = ("items", "decompose")
"""Steps whose rows are made up in a rehearsal: local files stand in for them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_makes_the_method_stays(name: str, shared: Path) -> None:
    from w2s_align.recipe import load
    from w2s_align.steps import CATALOGUE

    real, rehearsed = load(read_document(RECIPES[name]), CATALOGUE), rehearse(name, shared / "rows").recipe
    ours = {node.step: node.config for node in rehearsed.nodes.values() if node.step == node.name.partition("@")[0]}
    for node in real.nodes.values():
        if node.step != node.name.partition("@")[0]:
            continue  # implied by an evaluation
        config, other = node.config, ours[node.step]
        assert other.kind == ("prompts" if config.kind in MADE_UP else config.kind)
        if isinstance(config, TrainStep):
            before, after = config.model_dump(exclude=CHANGED), other.model_dump(exclude=CHANGED)
            assert before == after
            assert config.launch == other.launch
            assert (other.learning_rate, other.max_steps) == (LEARNING_RATE, STEPS)  # type: ignore[attr-defined]
        elif config.kind == "pair":
            kept = {"rule", "filters", "control", "margin", "pick"}
            assert config.model_dump(include=kept) == other.model_dump(include=kept)


def test_weak_models_are_called_by_the_names_of_their_stand_ins(tmp_path: Path) -> None:
    text = """\
name: weak
steps:
  prompts: {kind: prompts, source: some/dataset}
  a: &a {kind: generate, model: Qwen/Qwen3-8B, prompts: $prompts, sampling: {temperature: 1, max_tokens: 9}}
  b: {<<: *a, model: Qwen/Qwen3-1.7B}
  ratings: {kind: judge, model: Qwen/Qwen3-8B, responses: [$a, $b], mode: pointwise}
  pairs: {kind: pair, rule: worst_of_weak, responses: [$a, $b], scores: [$ratings], weak_models: [Qwen/Qwen3-1.7B]}
"""
    config: Any = rehearsal(parse_document(text, "weak.yaml"), tmp_path).recipe.nodes["pairs"].config
    assert config.weak_models == ["stand_in_qwen3_1_7b"]


def test_nothing_is_pushed_tracked_or_asked_of_a_server(tmp_path: Path) -> None:
    text = """\
name: outside
steps:
  prompts: {kind: prompts, source: some/dataset, columns: {prompt: question, group: topic}, hold_out: 0.1, part: test}
  answers: {kind: generate, model: some/model, prompts: $prompts, sampling: {temperature: 1, max_tokens: 9000, n: 8},
            engine: {name: openai, served_model: x}, resources: {base_url: "http://127.0.0.1:1/v1"}}
  judged: {kind: judge, model: some/judge, responses: [$answers], engine: {name: openai, api: chat}, mode: pointwise,
           resources: {base_url: "http://127.0.0.1:1/v1"}}
  pairs: {kind: import_pairs, source: other/pairs}
  dpo: {kind: dpo, model: some/student, pairs: $pairs, learning_rate: 1e-6, launch: fsdp2,
        quick_task: {prompts: $prompts, scorer: math, max_tokens: 4096}, resources: {report_to: [wandb]}}
  export: {kind: export, pairs: $pairs, push_to_hub: me/pairs}
"""
    rehearsed = rehearsal(parse_document(text, "outside.yaml"), tmp_path)
    nodes: Any = {name: node.config for name, node in rehearsed.recipe.nodes.items()}
    assert nodes["answers"].engine.name == "auto" and nodes["answers"].resources.base_url is None
    assert (nodes["answers"].sampling.n, nodes["answers"].sampling.max_tokens) == (2, 64)
    assert nodes["judged"].engine.api == "completions" and nodes["judged"].sampling.temperature == 0.3
    assert nodes["dpo"].launch == "fsdp2" and nodes["export"].push_to_hub is None
    assert (nodes["dpo"].quick_task.scorer, nodes["dpo"].quick_task.max_tokens) == ("exact", 64)
    assert nodes["dpo"].resources.report_to == []
    said = "\n".join(rehearsed.changes)
    for change in ("pushed", "trackers", "server", "processes on the CPU", "some/dataset", "other/pairs"):
        assert change in said


def test_the_metrics_of_tasks_stay(shared: Path) -> None:
    recipe = rehearse("olmo3/instruct_7b", shared / "rows").recipe
    scores: Any = recipe.nodes["scores"].config
    assert {task.metric for task in scores.definitions().values()} == {"mean", "pass@10"}
    drawn = {task.metric: task.sampling for task in scores.definitions().values()}
    assert (drawn["pass@10"].n, drawn["pass@10"].max_tokens) == (10, 64)
    assert drawn["mean"].n == 1


def test_a_mistake_in_the_recipe_is_reported_with_its_line(tmp_path: Path) -> None:
    text = "name: wrong\nsteps:\n  dpo: {kind: dpo, model: some/student, pairs: $piars, learning_rate: 1}\n"
    with pytest.raises(UserError, match=r"wrong\.yaml:3.*\$piars"):
        rehearsal(parse_document(text, "wrong.yaml"), tmp_path)


def test_stand_in_rows_have_the_shape_of_their_dataset() -> None:
    def first(columns: dict[str, str], layout: Any) -> Any:
        return json.loads(stand_in_rows("some/dataset", columns, layout).splitlines()[0])

    asked = first({"prompt": "messages", "group": "topic"}, "prompts")
    assert [turn["role"] for turn in asked["messages"]] == ["user", "assistant"] and asked["topic"] == "group 0"
    paired = first({"chosen": "3_sections", "rejected": "2_sections"}, "pairs")
    assert set(paired) == {"3_sections", "2_sections"}
    assert paired["3_sections"][0] == paired["2_sections"][0] and paired["3_sections"] != paired["2_sections"]


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        ("source: some/pairs", 16),
        ("source: some/ratings, layout: ratings", 16),
        ("source: some/feedback, columns: {prompt: instruction, completions: completions}", 16),
        ("source: some/labels, layout: labels", 8),
    ],
)
def test_stand_in_rows_of_every_layout_become_pairs(options: str, pairs: int, tmp_path: Path) -> None:
    from w2s_align.interchange import import_pairs

    text = f"name: layouts\nsteps:\n  pairs: {{kind: import_pairs, {options}}}\n"
    config: Any = rehearsal(parse_document(text, "layouts.yaml"), tmp_path).recipe.nodes["pairs"].config
    made = import_pairs(config.source, limit=config.limit, columns=config.columns)
    assert made.table.num_rows == pairs and not made.counts.lost("row") and not made.counts.lost("prompt")


def test_a_reward_model_is_stood_in_for_by_one(tmp_path: Path) -> None:
    text = """\
name: scored
steps:
  prompts: {kind: prompts, source: some/dataset}
  answers: {kind: generate, model: some/model, prompts: $prompts, sampling: {temperature: 1, max_tokens: 9}}
  scores: {kind: score, responses: $answers, scorer: {name: reward, model: some/reward-model}}
  again: {kind: score, responses: $answers, scorer: {name: logprob, model: some/model}}
"""
    rehearsed = rehearsal(parse_document(text, "scored.yaml"), tmp_path)
    nodes: Any = {name: node.config for name, node in rehearsed.recipe.nodes.items()}
    assert nodes["scores"].scorer.model == "$stand_in_reward_reward_model"
    assert nodes["again"].scorer.model == nodes["answers"].model == "$stand_in_model"
    assert nodes["stand_in_reward_reward_model"].reward and not nodes["stand_in_model"].reward
    assert rehearsed.models == ["some/model", "some/reward-model"]


def test_what_learns_from_right_answers_has_something_simple_in_its_place(tmp_path: Path) -> None:
    text = """\
name: panel
steps:
  prompts: {kind: prompts, source: some/dataset}
  answers: {kind: generate, model: some/model, prompts: $prompts, sampling: {temperature: 1, max_tokens: 9}}
  gold: {kind: score, responses: $answers}
  chars: {kind: score, responses: $answers, scorer: "feature:chars"}
  ranked: {kind: meta_ranking, model: some/ranker, responses: $answers, known: $answers, gold: $gold}
  panel:
    kind: combine
    method: label_model
    scores: [$ranked, $chars]
    labels: [$gold]
    labeled_prompts: 5
    label_model: {prior: 0.3}
  vote: {kind: combine, scores: [$ranked, $chars], thresholds: {"feature:chars": 5}}
"""
    rehearsed = rehearsal(parse_document(text, "panel.yaml"), tmp_path)
    nodes: Any = {name: node.config for name, node in rehearsed.recipe.nodes.items()}
    assert (nodes["ranked"].kind, nodes["ranked"].mode) == ("judge", "verdict")
    assert nodes["ranked"].model == "$stand_in_ranker" and nodes["ranked"].responses == ["$answers"]
    assert nodes["panel"].method == "mean" and not nodes["panel"].labels
    assert nodes["vote"].method == "vote" and nodes["vote"].thresholds == {"feature:chars": 5}
    assert any("by their mean" in text for text in rehearsed.changes)


ONE = """\
name: one
steps:
  prompts: {kind: prompts, source: some/dataset, columns: {prompt: chosen}}
  weak: &generate
    kind: generate
    model: Qwen/Qwen2.5-3B-Instruct
    prompts: $prompts
    sampling: {temperature: 0, max_tokens: 2048}
    engine: {name: transformers}
  weaker: {<<: *generate, model: Qwen/Qwen2.5-1.5B-Instruct}
  pairs: {kind: pair, rule: model_order, chosen: $weak, rejected: $weaker}
  dpo: {kind: dpo, model: allenai/Llama-3.1-Tulu-3-8B-SFT, pairs: $pairs, loss: sigmoid_norm, beta: 5,
        learning_rate: 5.0e-8, adapter: {r: 8}}
"""


def w2s(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "w2s_align.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3000, env=os.environ | {"COLUMNS": "160"})


def test_rehearsals_run_from_end_to_end_and_say_what_they_did_not_check(tmp_path: Path) -> None:
    recipe, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    recipe.write_text(ONE)
    other.write_text(ONE.replace("name: one", "name: other").replace("loss: sigmoid_norm, ", ""))
    done = w2s("rehearse", str(recipe), str(other), "--runs-dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "Stood in for: " in done.stdout and "Llama-3.1-Tulu-3-8B-SFT" in done.stdout
    assert "Not checked:" in done.stdout
    assert "7 of 16 artifacts were cached" in done.stderr  # all but the trainings are the same
    again = w2s("rehearse", str(recipe), "--runs-dir", str(tmp_path / "runs"))
    assert again.returncode == 0 and "8 of 8 artifacts were cached" in again.stderr


@pytest.mark.slow
def test_a_published_recipe_is_rehearsed_with_its_own_engine_and_launch(shared: Path) -> None:
    done = w2s("rehearse", REPRESENTATIVE, "--runs-dir", str(shared))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_all_shipped_recipes_are_rehearsed_within_a_quarter_of_an_hour_on_two_cores(shared: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = w2s("rehearse", "--all", "--runs-dir", str(shared))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    states = {run.parent.parent.name: json.loads(run.read_text()) for run in shared.glob("runs/*/latest/run.json")}
    assert {state["name"]: state["status"] for state in states.values()} == dict.fromkeys(NAMES, "done")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2 * 900, f"{seconds:.0f} s of two cores"  # not the time on the clock: others may use the machine
