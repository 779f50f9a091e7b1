"""The quick task: accuracy followed during a training, and a training that is stopped by it."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, Sampling, generate
from w2s_align.records import Prompt, to_table
from w2s_align.runs import recipe_from_text
from w2s_align.training import DPOSettings, Lora, QuickTask, SFTSettings, TrainResources, train

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "lr_scheduler_type": "constant", "warmup_steps": 0}


@pytest.fixture
def problems(tmp_path):
    """Ten problems, of which the answer to eight is 7."""
    path = tmp_path / "problems.parquet"
    rows = [Prompt.of(f"{i}+{i}=", answer="7" if i < 8 else "5") for i in range(10)]
    pq.write_table(to_table(rows), path)
    return path


def sevens(number):
    """Chats in which every answer is 7."""
    turns = [("user", "assistant"), ("{}+1=", "7")]
    return [
        {"messages": [{"role": r, "content": c.format(i)} for r, c in zip(*turns, strict=True)]} for i in range(number)
    ]


def task(problems, **changes):
    return QuickTask(**{"prompts": str(problems), "scorer": "numeric", "max_tokens": 4} | changes)


def test_a_training_ends_when_the_accuracy_has_not_risen_for_two_measurements(student, problems, tmp_path):
    settings = SFTSettings(
        **PLAIN, max_steps=60, quick_task=task(problems), evaluate_every=4, early_stopping=2, save_dtype="float32"
    )
    report = train(student, sevens(8), tmp_path / "out", settings)
    steps = [row["step"] for row in report.held_out]
    assert steps == list(range(0, report.steps + 1, 4)) and report.steps < 60
    accuracies = [row["accuracy"] for row in report.held_out]
    assert accuracies[0] == 0 and accuracies[-3:] == [0.8, 0.8, 0.8] and max(accuracies[:-3]) < 0.8
    assert report.held_out[-1] == {"step": report.steps, "accuracy": 0.8, "cut": 0, "unscored": 0}
    (note,) = [note for note in report.notes if "Stopped early" in note]
    assert f"accuracy on the quick task was highest at step {report.steps - 8} (0.8; now 0.8)" in note
    # What was measured is what the saved model does, and where the prompts lay is not in the record.
    questions = [f"{i}+{i}=" for i in range(10)]
    made = generate(
        report.model_dir, questions, Sampling(temperature=0, max_tokens=4), engine=Engine(name="transformers")
    )
    assert made.table()["text"].to_pylist() == ["7"] * 10
    assert "prompts" not in report.settings["quick_task"] and len(report.digests["quick_task"]) == 64


def test_accuracy_and_held_out_pairs_of_one_step_share_a_row_and_a_kill_changes_nothing(
    tiny, student, problems, tmp_path
):
    """An adapter, in passes without padding; the second training goes on from the first one's checkpoint."""
    settings = DPOSettings(
        **PLAIN, max_steps=4, held_out=4, quick_task=task(problems, limit=3), evaluate_every=2, adapter=Lora(r=2)
    )
    saving = TrainResources(save_every=1)

    class Killed(Exception):
        pass

    def kill(step, total, note):
        if step == 3:
            raise Killed

    whole = train(student, tiny.pairs(12), tmp_path / "whole", settings)
    assert list(whole.held_out[0]) == ["step", "accuracy", "cut", "unscored"]
    assert {"accuracy", "loss", "rewards/margins"} <= whole.held_out[1].keys()
    assert [row["step"] for row in whole.held_out] == [0, 2, 4]
    with pytest.raises(Killed):
        train(student, tiny.pairs(12), tmp_path / "killed", settings, resources=saving, progress=kill)
    again = train(student, tiny.pairs(12), tmp_path / "killed", settings, resources=saving)
    assert again.resumed_from == 2
    for one, other in zip(whole.held_out, again.held_out, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_two_processes_share_the_problems_and_stop_together(student, problems, tmp_path):
    settings = SFTSettings(**PLAIN, max_steps=40, quick_task=task(problems), evaluate_every=4, early_stopping=2)
    alone = train(student, sevens(8), tmp_path / "alone", settings)
    two = TrainResources(processes=2, device="cpu")
    shared = train(student, sevens(8), tmp_path / "shared", settings, resources=two, launch="ddp")
    assert shared.held_out == alone.held_out and shared.steps == alone.steps < 40


def test_what_cannot_be_measured_is_refused(student, problems, tmp_path):
    def refused(**changes):
        settings = SFTSettings(**PLAIN, max_steps=1, quick_task=task(**{"problems": problems} | changes))
        train(student, sevens(4), tmp_path / f"out{len(list(tmp_path.iterdir()))}", settings)

    with pytest.raises(UserError, match=r"there are no prompts in .*nowhere\.parquet"):
        refused(problems=tmp_path / "nowhere.parquet")
    with pytest.raises(UserError, match=r"may take 135 tokens; the context of .* is 128"):
        refused(max_tokens=128)
    shutil.copy(problems, tmp_path / "no_answers.parquet")
    pq.write_table(to_table([Prompt.of("1+1=")]), tmp_path / "no_answers.parquet")
    with pytest.raises(UserError, match=r"none of the answers could be scored. .*no gold answer \(1\)"):
        refused(problems=tmp_path / "no_answers.parquet")


RECIPE = """\
name: quick
seed: 0
steps:
  problems: {kind: prompts, source: lab/addition, limit: 20}
  student:  {kind: lab_model, layers: 1, width: 32, steps: 2, batch_size: 4}
  weak:     {kind: generate, model: $student, prompts: $problems, sampling: {temperature: 1, max_tokens: 8}}
  weaker:   {kind: generate, model: $student, prompts: $problems, sampling: {temperature: 1, max_tokens: 8}, seed: 1}
  pairs:    {kind: pair, rule: model_order, chosen: $weak, rejected: $weaker, filters: {truncated: false}}
  dpo:      {kind: dpo, model: $student, pairs: $pairs, learning_rate: 1e-3, early_stopping: 1,
             quick_task: {max_tokens: 32, prompts: $problems}}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "$problems}}",
            "$problms}}",
            r"dpo.quick_task.prompts refers to \$problms.*Did you mean \$problems",
        ),
        ("$problems}}", "$pairs}}", r"refers to \$pairs, which writes pairs"),
        ("$problems}}", "rows.parquet}}", "rows.parquet is not a reference"),
        (
            ",\n             quick_task: {max_tokens: 32, prompts: $problems}",
            "",
            "early_stopping needs something to measure",
        ),
        ("$problems}}", "$problems, scorer: numerc}}", "There is no scorer 'numerc'"),
        ("kind: dpo,", "kind: reward,", "A reward model writes no answers"),
        ("$problems}}", "$problems, scorer: reward}}", "The scorer 'reward' cannot be used by its name alone"),
    ],
)
def test_a_recipe_with_a_quick_task_that_cannot_work(old, new, message):
    recipe = recipe_from_text(RECIPE).recipe
    assert recipe.nodes["dpo"].inputs["quick_task.prompts"] == "problems"
    with pytest.raises(UserError, match=message):
        recipe_from_text(RECIPE.replace(old, new))


@pytest.mark.slow
def test_a_quick_task_in_a_recipe_is_part_of_the_key(tmp_path):
    text = RECIPE.replace("weak:     {kind: generate", "weak:     {kind: generate, engine: {name: transformers}")
    text = text.replace("weaker:   {kind: generate", "weaker:   {kind: generate, engine: {name: transformers}")
    run = recipe_from_text(text.replace("early_stopping: 1", "max_steps: 3, evaluate_every: 1")).run(tmp_path)
    found = run.artifact("dpo").manifest
    assert [row["step"] for row in found["result"]["held_out"]] == [0, 1, 2, 3]
    assert set(found["result"]["held_out"][0]) == {"step", "accuracy", "cut", "unscored"}
    assert str(tmp_path) not in json.dumps(found["result"])
    assert found["inputs"]["quick_task.prompts"]["name"] == "problems"
