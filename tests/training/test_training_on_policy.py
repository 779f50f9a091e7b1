"""Trainings on the student's own responses: the fused teacher, masks, rewards, resume after a kill, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from w2s_align.errors import UserError
from w2s_align.families.fused_logits import fused_log_probs
from w2s_align.records import Prompt, to_table
from w2s_align.scoring.scorers.reward import RewardScorer
from w2s_align.training import TrainResources, train
from w2s_align.training.fused_teacher import load_teacher
from w2s_align.training.layout import Layout
from w2s_align.training.methods import all_methods
from w2s_align.training.methods.distill import DistillSettings
from w2s_align.training.methods.grpo import GRPOSettings, RLOOSettings
from w2s_align.training.methods.online_dpo import OnlineDPOSettings
from w2s_align.training.methods.oprd import OPRDSettings
from w2s_align.training.models import load_model
from w2s_align.training.rewards import check_reward, reward_function
from w2s_align.training.rollouts import RECORD, RolloutHealth

OTHER_MODEL = RewardScorer(model="some/reward-model")
STEPS = {
    "learning_rate": 1e-3,
    "batch_size": 4,
    "max_steps": 2,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "max_completion_length": 6,
}


@pytest.fixture(scope="module")
def weak(tiny, tmp_path_factory):
    """Two models of the student's vocabulary, of other widths."""
    folder = tmp_path_factory.mktemp("teachers")
    return [
        str(tiny.model(folder / name, tiny.tokenizer(), seed=seed, width=width))
        for name, seed, width in (("plus", 1, 16), ("minus", 2, 48))
    ]


def prompts(number=8, answer="7"):
    return to_table([Prompt.of(f"{i}+1=", answer=answer, task="digits") for i in range(number)], Prompt)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def test_the_teacher_says_what_the_weighted_sum_of_logits_says(student, weak):
    plus, minus = weak
    ids = torch.randint(5, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    contrasts = [(1.5, plus, minus), (-0.5, minus, str(student))]
    teacher = load_teacher(str(student), contrasts, load_model, 0.1, rows=23)
    hidden = teacher.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    z = {name: logits_of(load_model(name), ids) for name in (str(student), *weak)}
    total = z[str(student)] + 1.5 * (z[plus] - z[minus]) - 0.5 * (z[minus] - z[str(student)])
    assert torch.allclose(teacher.get_output_embeddings()(hidden), total, atol=1e-4)
    pairs = [(alpha, z[one], z[other]) for alpha, one, other in contrasts]
    assert torch.allclose(teacher.log_probs(hidden), fused_log_probs(z[str(student)], pairs, 0.1), atol=1e-4)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert len(teacher.base_model.members) == 3  # a model in several places is loaded once


def test_the_students_own_start_is_no_teacher(student, weak, tmp_path):
    """With alpha 0 the target is the anchor, which the student equals before its first step."""
    plus, minus = weak
    changes = {"contrasts": [{"plus": plus, "minus": minus, "alpha": 0}], "max_steps": 1}
    with pytest.raises(UserError, match="Training changed no weight"):
        train(student, prompts(), tmp_path, DistillSettings(**STEPS | changes | {"learning_rate": 1e-12}))
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("adapter", [None, {"r": 4, "alpha": 8}])
def test_a_mask_that_keeps_everything_trains_as_trl_does(student, weak, tmp_path, adapter):
    plus, minus = weak
    given = STEPS | {"contrasts": [{"plus": plus, "minus": minus}], "adapter": adapter}
    masks = {
        "trl": {"plausibility": None},
        "masked": {"plausibility": 1e-9},
        "top": {"plausibility": None, "top_k": 23},
    }
    for name, mask in masks.items():
        train(student, prompts(), tmp_path / name, DistillSettings(**given | {"plausibility": None} | mask), seed=3)
    losses = {name: [row["loss"] for row in metrics(tmp_path / name)] for name in masks}
    assert losses["masked"] == pytest.approx(losses["trl"], rel=1e-4)
    assert losses["top"] == pytest.approx(losses["trl"], rel=1e-4)
    entropies = {name: [row["entropy"] for row in metrics(tmp_path / name)] for name in masks}
    assert entropies["masked"] == pytest.approx(entropies["trl"], rel=1e-4)
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("trl", "masked")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_distillation_moves_the_student_towards_its_target_and_leaves_the_teachers(student, weak, tmp_path):
    plus, minus = weak
    before = [load_file(f"{model}/model.safetensors") for model in weak]
    changes = {"contrasts": [{"plus": plus, "minus": minus}], "max_steps": 25, "learning_rate": 3e-3, "batch_size": 32}
    report = train(student, prompts(), tmp_path, DistillSettings(**STEPS | changes))
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert report.tokens == sum(row["tokens"] for row in metrics(tmp_path))
    after = [load_file(f"{model}/model.safetensors") for model in weak]
    assert all(torch.equal(a[name], b[name]) for a, b in zip(before, after, strict=True) for name in a)


def test_gold_answers_are_not_read(student, weak, tmp_path):
    plus, minus = weak
    settings = DistillSettings(**STEPS | {"contrasts": [{"plus": plus, "minus": minus}], "max_steps": 1})
    for name, answer in (("with", "7"), ("without", None)):
        train(student, prompts(answer=answer), tmp_path / name, settings)
    texts = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert texts[0] == texts[1]


SCRIPT = """
import sys
from w2s_align.training import TrainResources, train
from w2s_align.training.methods.distill import DistillSettings
from w2s_align.training.methods.grpo import GRPOSettings
import pyarrow.parquet as pq
kind, student, out, rows, settings = sys.argv[1:6]
made = {"distill": DistillSettings, "grpo": GRPOSettings}[kind].model_validate_json(settings)
train(student, rows, out, made, seed=1, resources=TrainResources(save_every=2),
      progress=lambda done, total, note: print("done", done, flush=True))
"""


@pytest.mark.parametrize("kind", ["distill", pytest.param("grpo", marks=pytest.mark.slow)])
def test_a_killed_training_ends_as_an_undisturbed_one(student, weak, tmp_path, kind):
    import pyarrow.parquet as pq

    pq.write_table(prompts(), tmp_path / "prompts.parquet")
    plus, minus = weak
    own = {"contrasts": [{"plus": plus, "minus": minus}]} if kind == "distill" else {"num_generations": 2}
    own |= {} if kind == "distill" else {"reward": "feature:chars"}
    made = {"distill": DistillSettings, "grpo": GRPOSettings}[kind](**STEPS | own | {"max_steps": 5})
    command = [sys.executable, "-c", SCRIPT, kind, str(student)]
    rest = [str(tmp_path / "prompts.parquet"), made.model_dump_json()]
    process = subprocess.Popen([*command, str(tmp_path / "killed"), *rest], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "done 3":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    subprocess.run([*command, str(tmp_path / "killed"), *rest], check=True, capture_output=True)
    report = train(student, prompts(), tmp_path / "whole", made, seed=1, resources=TrainResources(save_every=2))
    weights = [
        load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "whole", tmp_path / "killed")
    ]
    assert json.loads((tmp_path / "killed" / "training.json").read_text())["resumed_from"] == 2
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [row["tokens"] for row in metrics(tmp_path / "killed")] == [
        row["tokens"] for row in metrics(tmp_path / "whole")
    ]
    assert report.resumed_from == 0


@pytest.mark.parametrize(
    ("settings", "sign"),
    [
        (GRPOSettings(**STEPS, num_generations=4, reward="feature:chars", variant="grpo"), 1),
        # It leaves responses out that were cut at their limit, so that longer ones cannot be the aim.
        (GRPOSettings(**STEPS, num_generations=4, reward="feature:chars", reward_weights=[-1], variant="dapo"), -1),
        (RLOOSettings(**STEPS, reward=["feature:chars", "feature:words"], reward_weights=[1, 0.5]), 1),
        (OnlineDPOSettings(**STEPS, reward="feature:chars"), 1),
    ],
    ids=["grpo", "dapo", "rloo", "online_dpo"],
)
def test_rewards_teach(student, tmp_path, settings, sign):
    changes = {"max_steps": 16, "learning_rate": 1e-2, "batch_size": 16}
    train(student, prompts(), tmp_path, settings.model_copy(update=changes))
    name = "objective/scores" if isinstance(settings, OnlineDPOSettings) else "rewards/feature_chars/mean"
    rewards = [sign * row[name] for row in metrics(tmp_path)]
    assert sum(rewards[-4:]) > sum(rewards[:4]), rewards


def test_equal_responses_teach_nothing_online(student, tmp_path):
    """With a reward that is always equal TRL would take the first response for the better one."""
    made = OnlineDPOSettings(**STEPS | {"reward": "exact", "max_steps": 3})
    with pytest.raises(UserError, match="Training changed no weight"):
        train(student, prompts(answer="a text that is never written"), tmp_path, made)
    assert [row["ties"] for row in metrics(tmp_path)] == [1, 1, 1]
    assert [row["grad_norm"] for row in metrics(tmp_path)] == [0, 0, 0]


@pytest.mark.parametrize("direction", ["teacher", "random"])
def test_oprd_trains_and_without_strength_it_is_grpo(student, weak, tmp_path, direction):
    plus, minus = weak
    given = STEPS | {"num_generations": 4, "reward": "feature:chars", "teacher": plus, "teacher_start": minus}
    for name, strength in (("none", 0.0), ("some", 5.0)):
        made = OPRDSettings(**given | {"strength": strength, "strength_warmup": 0, "direction": direction})
        train(student, prompts(), tmp_path / name, made)
    norms = {name: [row["grad_norm"] for row in metrics(tmp_path / name)] for name in ("none", "some")}
    assert norms["none"][0] != pytest.approx(norms["some"][0])
    plain = GRPOSettings(**STEPS | {"num_generations": 4, "reward": "feature:chars", "variant": "dr_grpo"})
    train(student, prompts(), tmp_path / "plain", plain)
    # dr_grpo divides by the longest response allowed, OPRD by the tokens there are.
    first, other = metrics(tmp_path / "plain")[0], metrics(tmp_path / "none")[0]
    factor = 4 * STEPS["max_completion_length"] / (4 * first["completions/mean_length"])
    assert other["grad_norm"] == pytest.approx(factor * first["grad_norm"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["ddp", "zero2"])
@pytest.mark.parametrize("kind", ["distill", "grpo"])
def test_two_processes_train_together(student, weak, tmp_path, kind, launch):
    plus, minus = weak
    own = {"contrasts": [{"plus": plus, "minus": minus}]} if kind == "distill" else {"num_generations": 2}
    own |= {} if kind == "distill" else {"reward": "feature:chars"}
    made = {"distill": DistillSettings, "grpo": GRPOSettings}[kind](**STEPS | own)
    report = train(student, prompts(), tmp_path, made, resources=TrainResources(processes=2), launch=launch)
    assert report.steps == 2 and report.batch["processes"] == 2
    assert report.tokens == sum(row["tokens"] for row in metrics(tmp_path)) > 0


def reward(scorer, answers, completions, length=None):
    records = [json.dumps(row) for row in to_table(answers, Prompt).to_pylist()]
    logged = {}
    found = reward_function(check_reward(scorer), stops={1})(
        completions=[[{"role": "assistant", "content": text}] for text in completions],
        completion_ids=[[5, 1]] * len(completions),
        log_metric=logged.__setitem__,
        **{RECORD: [record for record in records for _ in range(len(completions) // len(records))]},
    )
    return found, logged


def test_a_reward_that_is_missing_is_the_mean_of_its_group_and_not_zero():
    asked = [Prompt.of("1+1=", answer="2", task="t"), Prompt.of("1+2=", answer="3", task="t")]
    found, logged = reward("numeric", asked, ["2", "2", "5", "4", "3", "3"])
    assert found == [1, 1, 0, 0, 1, 1] and logged == {"unscored": 0}
    asked[1] = Prompt.of("1+2=", answer=None, task="t")
    found, logged = reward("numeric", [asked[0], asked[0], asked[1]], ["2", "2", "5", "4", "3", "3"])
    assert found == [1, 1, 0, 0, 0, 0] and logged == {"unscored": pytest.approx(1 / 3)}
    with pytest.raises(UserError, match="2 of 2 responses of a batch could not be scored by numeric"):
        reward("numeric", [asked[1]], ["2", "3"])


def test_what_cannot_work_is_refused_before_the_first_step(student, weak, tiny, tmp_path):
    plus, minus = weak
    contrasts = [{"plus": plus, "minus": minus}]
    with pytest.raises(ValueError, match="there is nothing to learn"):
        DistillSettings(**STEPS)
    with pytest.raises(ValueError, match="would be the adapter's base and not its start"):
        DistillSettings(**STEPS, contrasts=contrasts, merge_start=False)
    with pytest.raises(ValueError, match="batch_size 4 counts responses and must be a multiple of num_generations 3"):
        GRPOSettings(**STEPS, num_generations=3)
    with pytest.raises(ValueError, match="reward has 1 scorers and reward_weights 2 numbers"):
        GRPOSettings(**STEPS, num_generations=2, reward_weights=[1, 2])
    with pytest.raises(UserError, match="vllm_colocate needs a GPU"):
        train(student, prompts(), tmp_path, DistillSettings(**STEPS, contrasts=contrasts, rollouts="vllm_colocate"))
    with pytest.raises(UserError, match="gives 2 processes no whole groups of 4"):
        GRPOSettings(**STEPS, num_generations=4).check_rollouts(TrainResources(), Layout("ddp", None, 2, 1, "ddp", 0))
    with pytest.raises(UserError, match="asks a model"):
        check_reward(OTHER_MODEL)
    with pytest.raises(UserError, match="compares all responses"):
        check_reward("self_consistency")
    other = tiny.model(tmp_path / "other", tiny.tokenizer(bos_token="<unk>", unk_token="<s>"))
    swapped = other / "tokenizer.json"
    swapped.write_text(swapped.read_text().replace('"0": 6', '"0": 7').replace('"1": 7', '"1": 6'))
    with pytest.raises(UserError, match="has another vocabulary than"):
        train(
            student,
            prompts(),
            tmp_path / "out",
            DistillSettings(**STEPS, contrasts=[{"plus": str(other), "minus": minus}]),
        )


def test_alarms_about_what_the_student_writes():
    health = RolloutHealth()
    for step in range(1, 61):
        grown = 10 if step <= 20 else 50
        health.observe(
            {
                "step": step,
                "loss": 0.1,
                "completions/mean_length": grown,
                "completions/clipped_ratio": 0.9 if step > 20 else 0.0,
                "frac_reward_zero_std": 1.0,
            }
        )
    assert [alarm["kind"] for alarm in health.alarms] == ["no_signal", "longer", "cut"]


def test_the_new_kinds_are_listed():
    assert {"distill", "grpo", "rloo", "oprd", "online_dpo"} <= all_methods().keys()


def test_rewards_of_prompts_without_ids_are_refused(student, tmp_path):
    with pytest.raises(UserError, match="columns prompt"):
        train(student, [{"prompt": "1+1="}], tmp_path, GRPOSettings(learning_rate=1e-3, batch_size=8, max_steps=1))
