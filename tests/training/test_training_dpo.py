"""DPO through TRL: losses against the formulas, adapters, resume after SIGKILL, refusals."""

import json
import math
import signal
import subprocess
import sys

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.training import DPOSettings, Lora, TrainingReport, TrainResources, train
from w2s_align.training.adapters import merge_adapter
from w2s_align.training.methods.dpo import DPO_LOSSES
from w2s_align.training.models import load_model, open_start
from w2s_align.training.verify import probe_logits

PROBE = [[1, 3, 7, 16, 8, 17, 4, 9, 9]]


def settings(**changes):
    return DPOSettings(
        **{
            "learning_rate": 1e-3,
            "batch_size": 4,
            "max_steps": 2,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
        }
        | changes
    )


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def log_probabilities(model, tokenizer, prompt, answer):
    """Sum of the answer's token log-probabilities and their number, one sequence at a time."""
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer.apply_chat_template(prompt + answer, return_dict=True)["input_ids"]
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
    return sum(float(scores[i - 1, ids[i]]) for i in range(len(start), len(ids))), len(ids) - len(start)


BETA, EPSILON = 0.5, 0.1
LN2 = math.log(2)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        ("sigmoid", LN2),
        ("sigmoid_norm", LN2),
        ("hinge", 1),
        ("ipo", 1 / (4 * BETA**2)),
        ("exo_pair", 0.5 * math.log(0.5 / (1 - EPSILON)) + 0.5 * math.log(0.5 / EPSILON)),
        ("nca_pair", 2 * LN2),
        ("robust", LN2),
        ("bco_pair", 2 * LN2),
        ("sppo_hard", 1 / (2 * BETA**2)),
        ("aot", LN2),
        ("aot_unpaired", LN2),
        ("apo_zero", 1),
        ("apo_down", 1),
        ("discopop", 0.5 * LN2 + 0.5),
    ],
)
def test_every_loss_starts_at_its_known_value(tiny, student, tmp_path, loss, value):
    chosen = settings(loss=loss, beta=BETA, label_smoothing=EPSILON, max_steps=1)
    assert chosen.start_loss() == pytest.approx(value)
    train(student, tiny.pairs(4), tmp_path, chosen)
    (row,) = metrics(tmp_path)
    assert row["loss"] == pytest.approx(value, rel=1e-5)
    assert row["rewards/margins"] == pytest.approx(0, abs=1e-4)


def test_every_loss_is_covered_above():
    cases = test_every_loss_starts_at_its_known_value.pytestmark[0].args[1]
    assert {name for name, _ in cases} | {"sft"} == set(DPO_LOSSES)


def test_a_weighted_sum_of_losses(tiny, student, tmp_path):
    both = settings(loss=["sigmoid", "sft"], loss_weights=[1.0, 0.25], max_steps=1)
    assert both.start_loss() is None
    rows = tiny.pairs(4)
    train(student, rows, tmp_path, both)
    model, tokenizer = load_model(student), open_start(student).tokenizer
    sums = [log_probabilities(model, tokenizer, row["prompt"], row["chosen"]) for row in rows]
    per_token = sum(total for total, _ in sums) / sum(length for _, length in sums)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(LN2 - 0.25 * per_token, rel=1e-4)


def test_the_length_normalized_loss_against_its_formula(tiny, student, tmp_path):
    """loss = -log sigmoid(beta * (r_c / L_c - r_r / L_r)), the mean over the batch (spec: delta_learning 8.2)."""
    rows = tiny.pairs(4)
    chosen = {"loss": "sigmoid_norm", "beta": 5.0, "learning_rate": 1e-2}
    one_step = train(student, rows, tmp_path / "one", settings(**chosen, max_steps=1))
    train(student, rows, tmp_path / "two", settings(**chosen, max_steps=2))

    tokenizer = open_start(student).tokenizer
    before, after = load_model(student), load_model(one_step.model_dir)
    losses = []
    for row in rows:
        ratio = {}
        for side in ("chosen", "rejected"):
            policy, length = log_probabilities(after, tokenizer, row["prompt"], row[side])
            reference, _ = log_probabilities(before, tokenizer, row["prompt"], row[side])
            ratio[side] = (policy - reference) / length
        losses.append(math.log1p(math.exp(-5.0 * (ratio["chosen"] - ratio["rejected"]))))
    expected = sum(losses) / len(losses)
    assert abs(expected - LN2) > 0.01
    assert metrics(tmp_path / "two")[1]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("adapter", [None, Lora(r=4, alpha=8)])
def test_another_reference_than_the_start(tiny, student, tmp_path, adapter):
    other = tiny.model(tmp_path / "other", tiny.tokenizer(), seed=5)
    rows, shared = tiny.pairs(4), TrainResources(cache_dir=str(tmp_path / "cache"))
    chosen = settings(beta=BETA, reference=str(other), max_steps=1, adapter=adapter)
    assert chosen.start_loss() is None
    train(student, rows, tmp_path / "a", chosen, resources=shared)
    tokenizer = open_start(student).tokenizer
    policy, reference = load_model(student), load_model(other)
    losses = []
    for row in rows:
        ratio = {
            side: log_probabilities(policy, tokenizer, row["prompt"], row[side])[0]
            - log_probabilities(reference, tokenizer, row["prompt"], row[side])[0]
            for side in ("chosen", "rejected")
        }
        losses.append(math.log1p(math.exp(-BETA * (ratio["chosen"] - ratio["rejected"]))))
    expected = sum(losses) / len(losses)
    assert abs(expected - LN2) > 0.01
    assert metrics(tmp_path / "a")[0]["loss"] == pytest.approx(expected, rel=1e-4)
    # What was computed for it is not taken for the start's.
    train(student, rows, tmp_path / "b", settings(beta=BETA, max_steps=1, adapter=adapter), resources=shared)
    assert metrics(tmp_path / "b")[0]["loss"] == pytest.approx(LN2, rel=1e-5)


def test_a_reference_with_another_vocabulary_is_refused(tiny, student, tmp_path):
    other = tiny.model(tmp_path / "other", tiny.tokenizer(unk_token="<pad>"))
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(other)
    with pytest.raises(UserError, match="another vocabulary"):
        train(student, tiny.pairs(4), tmp_path / "a", settings(reference=str(other), max_steps=1))


def test_micro_batches_do_not_change_the_result(tiny, student, tmp_path):
    rows = tiny.pairs(8)
    whole = train(student, rows, tmp_path / "a", settings(), resources=TrainResources(micro_batch_size=4))
    split = train(student, rows, tmp_path / "b", settings(), resources=TrainResources(micro_batch_size=1))
    assert (whole.batch["accumulation"], split.batch["accumulation"]) == (1, 4)
    assert [row["loss"] for row in metrics(tmp_path / "a")] == pytest.approx(
        [row["loss"] for row in metrics(tmp_path / "b")], rel=1e-4
    )


def test_the_report_and_what_is_left_in_the_folder(tiny, student, tmp_path):
    seen = []
    report = train(student, tiny.pairs(10), tmp_path, settings(max_steps=3), progress=lambda *a: seen.append(a))
    assert report == TrainingReport.load(tmp_path)
    assert (report.steps, report.rows, report.counts.rows, report.alarms) == (3, 10, 10, [])
    assert report.verified["changed_share"] > 0.9
    assert report.verified["moved_in_first_update"] > 0.9
    assert report.verified["logit_error"] < 1e-5 < report.verified["logit_change"]
    assert {file.name for file in tmp_path.iterdir()} == {"model", "metrics.jsonl", "training.json", "request.json"}
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3]
    assert [done for done, total, _ in seen if total == 3] == [1, 2, 3]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "direct preference optimization" in card
    assert "| kept | 10 |" in card
    # Asked again, it answers from the folder; asked for another training, it refuses.
    assert train(student, tiny.pairs(10), tmp_path, settings(max_steps=3)) == report
    with pytest.raises(UserError, match=r"another training.*seed"):
        train(student, tiny.pairs(10), tmp_path, settings(max_steps=3), seed=1)


def test_an_adapter_is_merged_into_the_full_precision_base(tiny, student, tmp_path):
    lora = Lora(r=4, alpha=8)
    report = train(student, tiny.pairs(8), tmp_path, settings(adapter=lora, learning_rate=1e-2))
    start = open_start(student)
    merged = merge_adapter(start, tmp_path / "adapter")
    saved = load_model(report.model_dir)
    for name, weight in merged.state_dict().items():
        assert torch.equal(weight, saved.state_dict()[name])
    # By hand: W + alpha / r * B A for one layer.
    from safetensors.torch import load_file

    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layer = "model.layers.0.mlp.up_proj"
    a, b = (adapter[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
    expected = start.load().state_dict()[f"{layer}.weight"] + 8 / 4 * b @ a
    assert torch.allclose(saved.state_dict()[f"{layer}.weight"], expected, atol=1e-6)
    assert report.adapter_dir == str(tmp_path / "adapter")
    difference = probe_logits(saved, PROBE)[0] - probe_logits(start.load(), PROBE)[0]
    assert float(difference.abs().max()) > 1e-3


def test_the_saved_precision_is_the_start_models(tiny, tmp_path):
    model = tiny.model(tmp_path / "half", tiny.tokenizer(), dtype="bfloat16")
    report = train(model, tiny.pairs(4), tmp_path / "out", settings(max_steps=1))
    assert (report.dtype, report.save_dtype) == ("float32", "bfloat16")
    assert load_model(report.model_dir, "auto").dtype == torch.bfloat16


def test_a_training_that_changes_nothing_is_refused(tiny, student, tmp_path):
    with pytest.raises(UserError, match="Training changed no weight"):
        train(student, tiny.pairs(4), tmp_path, settings(learning_rate=1e-20))
    with pytest.raises(UserError, match="every LoRA-B matrix is zero"):
        train(
            student,
            tiny.pairs(4),
            tmp_path / "lora",
            settings(adapter=Lora(r=2), max_steps=1, warmup_steps=1, lr_scheduler_type="linear"),
        )


def test_cut_rows_train_and_keep_their_length(tiny, student, tmp_path):
    report = train(student, tiny.pairs(8), tmp_path, settings(max_length=16, too_long="truncate"))
    assert report.counts.cut["chosen"] > 0
    assert report.lengths["chosen"]["max"] + report.lengths["prompt"]["min"] <= 16


@pytest.mark.parametrize("template_kwargs", [{}, {"marked": True}])
def test_trl_tokenizes_pairs_as_they_were_checked(tiny, tmp_path, template_kwargs):
    from trl import DPOConfig, DPOTrainer

    from w2s_align.training.prepare import prepare_pairs
    from w2s_align.training.tokens import ChatEncoder

    template = tiny.template.replace("{{ bos_token }}", "{{ bos_token }}{% if marked %}+{% endif %}")
    student = tiny.model(tmp_path / "student", tiny.tokenizer(template))
    start = open_start(student)
    encoder = ChatEncoder(start.tokenizer, start.stop_ids, template_kwargs)
    rows = tiny.pairs(5)
    data = prepare_pairs(rows, encoder, settings(chat_template_kwargs=template_kwargs), tmp_path / "cache")
    config = DPOConfig(str(tmp_path / "out"), max_length=None, bf16=False, use_cpu=True, report_to="none")
    trainer = DPOTrainer(str(student), args=config, train_dataset=data.dataset(), processing_class=start.tokenizer)
    checked = encoder.encode(*([row[side] for row in rows] for side in ("prompt", "chosen", "rejected")))
    for row, (chosen, rejected) in zip(trainer.train_dataset, checked, strict=True):
        assert len(row["prompt_ids"]) == chosen.start == rejected.start
        assert row["prompt_ids"] + row["chosen_ids"] == chosen.ids
        assert row["prompt_ids"] + row["rejected_ids"] == rejected.ids
        assert (chosen.ids[1] == 16) == bool(template_kwargs)


@pytest.mark.parametrize(
    ("changes", "resources", "message"),
    [
        ({}, {"micro_batch_size": 3}, "Use a micro_batch_size of 1, 2, 4"),
        ({"loss": "aot"}, {"micro_batch_size": 2}, "aot losses sort"),
        ({"trl": {"reference_fre": True}}, {}, "not an argument of DPOConfig"),
        ({"trl": {"max_length": 5}}, {}, "decided by another setting"),
        ({"max_length": 3}, {}, "no row to train on"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tiny, student, tmp_path, changes, resources, message):
    with pytest.raises(UserError, match=message):
        train(student, tiny.pairs(4), tmp_path, settings(**changes), resources=TrainResources(**resources))
    assert not (tmp_path / "model").exists()


def test_rows_beyond_the_models_context_are_refused(tiny, student, tmp_path):
    long = tiny.pairs(1)
    long[0]["prompt"][0]["content"] = "1" * 200
    with pytest.raises(UserError, match="Set max_length to 128 or less"):
        train(student, long, tmp_path, settings())


def test_several_gpus_in_one_process_are_refused(tiny, student, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UserError, match="2 GPUs are visible"):
        train(student, tiny.pairs(4), tmp_path, settings())


KILLED = """
import json, os, signal, sys
import torch
from w2s_align.training import DPOSettings, Lora, TrainResources, train
torch.set_num_threads(1)
student, pairs, out, settings, kill_at = json.loads(sys.argv[1])
def progress(done, total, note):
    if done == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
train(student, pairs, out, DPOSettings(**settings), resources=TrainResources(save_every=2), progress=progress)
"""


@pytest.mark.parametrize("adapter", [None, {"r": 4, "dropout": 0.1}])
def test_a_killed_training_ends_as_an_undisturbed_one(tiny, student, tmp_path, adapter):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    chosen = settings(max_steps=8, adapter=adapter, disable_dropout=adapter is None)
    rows = tiny.pairs(10)
    resources = TrainResources(save_every=2)
    undisturbed = train(student, rows, tmp_path / "undisturbed", chosen, resources=resources)

    arguments = json.dumps([str(student), rows, str(tmp_path / "killed"), chosen.model_dump(), 5])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert (checkpoints / "checkpoint-4").exists()
    # A checkpoint that the kill left half written.
    (checkpoints / "checkpoint-6").mkdir(exist_ok=True)
    (checkpoints / "checkpoint-6" / "model.safetensors").write_bytes(b"half")

    resumed = train(student, rows, tmp_path / "killed", chosen, resources=resources)
    torch.set_num_threads(threads)
    assert (undisturbed.resumed_from, resumed.resumed_from) == (0, 4)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "undisturbed")
    assert [row["step"] for row in metrics(tmp_path / "killed")] == list(range(1, 9))
    one, other = load_model(undisturbed.model_dir).state_dict(), load_model(resumed.model_dir).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not checkpoints.exists()
    assert resumed.verified["moved_in_first_update"] == undisturbed.verified["moved_in_first_update"]


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path):
    from w2s_align.training.checkpoints import last_checkpoint

    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "complete.json").write_text(json.dumps({"step": 3, "world_size": 4}))
    with pytest.raises(UserError, match=r"made by 4 processes \(single\); there are 1 \(single\) now"):
        last_checkpoint(tmp_path, 1)
