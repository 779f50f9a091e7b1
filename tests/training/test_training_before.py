"""What happens before and beside the steps: pre-flight, reference cache, held-out rows, adapters as starts, 4 bits."""

import importlib.util
import json
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from w2s_align.errors import UserError
from w2s_align.training import (
    DPOSettings,
    KTOSettings,
    Lora,
    SFTSettings,
    TrainResources,
    train,
)
from w2s_align.training import preflight as preflight_module
from w2s_align.training.adapters import merge_adapter
from w2s_align.training.counts import RowCounts
from w2s_align.training.formats import responses_as_chats
from w2s_align.training.health import Health
from w2s_align.training.layout import Layout
from w2s_align.training.methods import all_methods
from w2s_align.training.models import load_model, open_start, weights_digest
from w2s_align.training.plan import plan_training
from w2s_align.training.preflight import format_preflight, preflight
from w2s_align.training.reference import reference_key
from w2s_align.training.tokens import ChatEncoder
from w2s_align.training.verify import probe_logits

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 3, "lr_scheduler_type": "constant", "warmup_steps": 0}
PROBE = [[1, 3, 7, 16, 8, 17, 4, 9, 9]]
SINGLE = Layout()


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def plan_of(tiny, student, tmp_path):
    """Make the plan of a training without training it."""
    from w2s_align.training.prepare import prepare_pairs

    def make(settings=None, layout=SINGLE, model=None, resources=None, pairs=None, **changes):
        settings = settings or DPOSettings(**PLAIN | changes)
        resources = resources or TrainResources()
        start = open_start(model or student)
        encoder = ChatEncoder(start.tokenizer, start.stop_ids, settings.chat_template_kwargs)
        rows = pairs or tiny.pairs(10)
        data = prepare_pairs(rows, encoder, settings, tmp_path / "cache", ld_alpha=settings.ld_alpha)
        return plan_training(all_methods()["dpo"], start, data, tmp_path, settings, resources, 0, layout)

    return make


def test_the_preflight_says_what_will_happen(plan_of):
    plan = plan_of(
        batch_size=8,
        max_steps=None,
        num_train_epochs=3,
        held_out=2,
        layout=Layout("zero2", "zero2.yaml", 2, 1, "deepspeed", 2),
        resources=TrainResources(micro_batch_size=2),
    )
    found = preflight(plan)
    assert found["batch"] == {"effective": 8, "processes": 2, "micro": 2, "accumulation": 2}
    assert found["steps"] == 3  # 8 rows of 10 are trained on, in batches of 8
    assert found["rows"] == asdict(RowCounts(rows=10, kept=10, held_out=2))
    assert found["parameters"] == found["trained_parameters"] == 19_296
    assert found["tokens"]["prompt"] > 100
    # At the end of a forward pass: weights and half of the master weights; gradients of a pass before, shared by two,
    # and the head's; a half of the moments.
    memory = found["memory"]
    assert (memory["weights"], memory["optimizer"]) == (6 * 19_296, 4 * 19_296)
    assert memory["gradients"] == 2 * 19_296 + 4 * 22 * 32
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    assert memory["estimate"] == pytest.approx(sum(memory[part] for part in parts), abs=5)
    assert memory["device"] > 2**30
    text = format_preflight(found)
    assert "effective batch 8 = 2 processes x 2 rows x 2 accumulated   (launch: zero2)" in text
    assert "0 chosen" in text and "=<assistant>[" in text
    assert len(found["examples"]) == 16


def test_the_preflight_counts_an_adapters_weights(plan_of):
    found = preflight(plan_of(adapter=Lora(r=2)))
    trained = sum(2 * (rows + columns) for rows, columns in [(32, 32), (32, 16), (32, 16), (32, 32)]) * 2
    trained += sum(2 * (32 + 64) for _ in range(3)) * 2
    assert found["trained_parameters"] == trained
    assert found["dtype"] == {"weights": "float32", "base": "float32", "arithmetic": "float32", "saved": "float32"}


def test_the_preflight_is_printed_and_kept(tiny, student, tmp_path, capsys):
    report = train(student, tiny.pairs(4), tmp_path, DPOSettings(**PLAIN))
    assert "effective batch 4 = 1 processes x 4 rows x 1 accumulated" in capsys.readouterr().out
    assert report.preflight["steps"] == 3


def test_too_much_for_the_device_is_said(plan_of):
    found = preflight(plan_of())
    found["memory"]["device"] = 1
    assert "use an adapter, launch: zero3" in format_preflight(found)


def test_a_model_stored_in_float32_can_be_trained_in_sixteen_bits(tiny, student, tmp_path):
    """Its logits, computed in 16 bits, are near those of the saved model, and not equal to them."""
    settings, cpu = DPOSettings(**PLAIN, dtype="bfloat16"), TrainResources()
    report = train(student, tiny.pairs(8), tmp_path, settings, resources=cpu)
    assert (report.dtype, report.save_dtype) == ("bfloat16", "float32")
    assert 1e-4 < report.verified["logit_error"] < 0.05


def test_rows_fill_up_the_last_batch_of_an_epoch(tiny, student, tmp_path):
    """Six rows in batches of four: the second batch is the other two and two rows again."""
    report = train(student, tiny.pairs(6), tmp_path, SFTSettings(**PLAIN | {"max_steps": None, "num_train_epochs": 2}))
    assert (report.steps, report.counts.repeated) == (4, 2)


CHANGES = {
    "beta": {"beta": 5.0},
    "learning rate": {"learning_rate": 1.0},
    "loss": {"loss": "sigmoid_norm"},
    "weight decay": {"weight_decay": 0.1},
    "steps": {"max_steps": 9},
    "batch": {"batch_size": 2},
    "a maximum that cuts nothing": {"max_length": 100},
    "an adapter in the same precision": {"adapter": Lora(r=2)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_reference_key_does_not_change_with(plan_of, name):
    changed = plan_of(**CHANGES[name])
    assert reference_key(changed, {"ld_alpha": None}) == reference_key(plan_of(), {"ld_alpha": None})


def test_the_reference_key_changes_with(tiny, student, plan_of, tmp_path):
    other = tiny.model(tmp_path / "other", tiny.tokenizer(), seed=1)
    template = tiny.template.replace("{{ bos_token }}", "{{ bos_token }}+")
    marked = tiny.model(tmp_path / "marked", tiny.tokenizer(template))
    assert weights_digest(student) == weights_digest(shutil.copytree(student, tmp_path / "copy"))
    keys = {
        "itself": reference_key(plan_of(), {"ld_alpha": None}),
        "weights": reference_key(plan_of(model=other), {"ld_alpha": None}),
        "template": reference_key(plan_of(model=marked), {"ld_alpha": None}),
        "tokens": reference_key(plan_of(pairs=tiny.pairs(10, seed=1)), {"ld_alpha": None}),
        "truncation": reference_key(plan_of(max_length=16, too_long="truncate"), {"ld_alpha": None}),
        "loss family": reference_key(plan_of(), {"ld_alpha": 0.5}),
        "arithmetic": reference_key(plan_of(dtype="bfloat16"), {"ld_alpha": None}),
    }
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize("adapter", [None, Lora(r=2, alpha=4)])
def test_a_sweep_computes_the_reference_once_and_trains_as_without_a_cache(tiny, student, tmp_path, adapter):
    rows = tiny.pairs(6)
    cached = TrainResources(cache_dir=str(tmp_path / "cache"))
    sweep = [({}, 0), ({"beta": 1.0, "learning_rate": 1e-3}, 3), ({"loss": "sigmoid_norm", "held_out": 0}, 5)]

    def files():
        return {str(file): file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.arrow")}

    seen = {}
    for number, (changes, seed) in enumerate(sweep):
        settings = DPOSettings(**PLAIN | changes, adapter=adapter)
        train(student, rows, tmp_path / f"with{number}", settings, resources=cached, seed=seed)
        seen = seen or files()
        assert files() == seen
        assert len(seen) == 1
        train(student, rows, tmp_path / f"without{number}", settings, seed=seed)
        for one, other in zip(
            metrics(tmp_path / f"with{number}"), metrics(tmp_path / f"without{number}"), strict=True
        ):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert one["rewards/margins"] == pytest.approx(other["rewards/margins"], abs=1e-5)


def test_known_log_probabilities_are_used_and_not_computed_again(tiny, student, tmp_path, monkeypatch):
    """With a cache full of zeros the first step shows margins that are not 0, which the health check stops."""
    import pyarrow as pa

    rows, cached = tiny.pairs(6), TrainResources(cache_dir=str(tmp_path / "cache"))
    settings = DPOSettings(**PLAIN, adapter=Lora(r=2), beta=1.0)
    train(student, rows, tmp_path / "a", settings, resources=cached)
    (file,) = (tmp_path / "cache").rglob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    zeros = pa.table({name: pa.array([float(i) for i in range(6)], pa.float32()) for name in table.column_names})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, zeros.schema) as writer:
        writer.write_table(zeros)
    with pytest.raises(UserError, match="Before the first update"):
        train(student, rows, tmp_path / "b", settings, resources=cached, seed=1)


def test_kto_shares_its_reference_over_beta_alone(tiny, student, tmp_path):
    cached = TrainResources(cache_dir=str(tmp_path / "cache"))
    for number, (beta, seed) in enumerate([(0.1, 0), (0.5, 0), (0.5, 1)]):
        settings = KTOSettings(**PLAIN, beta=beta, kl_batch=4)
        train(student, tiny.pairs(4), tmp_path / str(number), settings, resources=cached, seed=seed)
        assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1 + seed


def test_a_cache_that_cannot_be_written_is_said_first(tiny, student, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        resources = TrainResources(cache_dir=str(tmp_path / "file" / "cache"))
        train(student, tiny.pairs(4), tmp_path / "out", DPOSettings(**PLAIN), resources=resources)


def test_held_out_rows_are_measured_and_stop_a_training_that_learns_nothing_general(tiny, student, tmp_path):
    settings = SFTSettings(
        **PLAIN | {"max_steps": 60, "learning_rate": 3e-2}, held_out=0.25, evaluate_every=5, early_stopping=2
    )
    report = train(student, tiny.pairs(16), tmp_path, settings)
    assert (report.rows, report.counts.held_out) == (12, 4)
    assert [row["step"] for row in report.held_out] == list(range(5, report.steps + 1, 5))
    losses = [row["loss"] for row in report.held_out]
    assert report.steps < 60
    assert min(losses) == losses[-3]  # two measurements later it stopped
    assert any("Stopped early at step" in note for note in report.notes)


def test_held_out_pairs_are_measured_against_the_reference(tiny, student, tmp_path):
    report = train(
        student,
        tiny.pairs(8),
        tmp_path,
        DPOSettings(**PLAIN, held_out=4, evaluate_every=1, loss="sigmoid_norm", beta=5),
    )
    assert [row["step"] for row in report.held_out] == [1, 2, 3]
    assert {"loss", "rewards/margins", "rewards/accuracies"} <= report.held_out[0].keys()
    assert report.metrics["last"]["rewards_per_token/margins"] != 0


def test_rewards_of_normalized_losses_have_the_scale_of_the_loss():
    row = {"rewards/chosen": 30.0, "rewards/rejected": -40.0}
    assert Health(lengths=(10.0, 20.0)).normalized(row) == row | {
        "rewards_per_token/chosen": 3.0,
        "rewards_per_token/rejected": -2.0,
        "rewards_per_token/margins": 5.0,
    }
    assert Health().normalized(row) == row


def test_an_alarm_can_stop_a_training(tiny, student, tmp_path):
    settings = SFTSettings(**PLAIN | {"learning_rate": 1e-20}, stop_on_alarm=True)
    with pytest.raises(UserError, match=r"Stopped at step 1: None of \d+ sampled weights moved"):
        train(student, tiny.pairs(4), tmp_path, settings)


def test_an_adapter_as_a_start_is_merged_first_and_is_the_reference(tiny, student, tmp_path):
    first = train(student, tiny.pairs(8), tmp_path / "first", DPOSettings(**PLAIN, adapter=Lora(r=4)))
    second = train(first.adapter_dir, tiny.pairs(8), tmp_path / "second", DPOSettings(**PLAIN, adapter=Lora(r=2)))
    assert second.start == first.adapter_dir
    assert metrics(tmp_path / "second")[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    # An adapter on top of another one has no base that is kept, so that only the merged model is.
    assert second.adapter_dir is None
    assert not (tmp_path / "second" / "start").exists() and not (tmp_path / "second" / "adapter").exists()
    again = train(first.model_dir, tiny.pairs(8), tmp_path / "again", DPOSettings(**PLAIN, adapter=Lora(r=2)))
    one, other = (probe_logits(load_model(report.model_dir), PROBE)[0] for report in (second, again))
    assert torch.allclose(one, other, atol=1e-4)


def test_an_adapter_of_another_base_is_refused(tiny, student, tmp_path):
    report = train(student, tiny.pairs(4), tmp_path / "out", DPOSettings(**PLAIN, adapter=Lora(r=2)))
    from transformers import LlamaConfig, LlamaForCausalLM

    other = shutil.copytree(student, tmp_path / "other")
    config = LlamaConfig.from_pretrained(student, hidden_size=16, head_dim=16)
    LlamaForCausalLM(config).save_pretrained(other)
    path = tmp_path / "out" / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(other)}))
    with pytest.raises(UserError, match=r"does not fit .*other"):
        train(report.adapter_dir, tiny.pairs(4), tmp_path / "next", DPOSettings(**PLAIN))


@pytest.mark.parametrize("kind", [{"use_rslora": True}, {"use_dora": True}])
def test_other_adapters_are_merged_to_what_was_trained(tiny, student, tmp_path, kind):
    report = train(student, tiny.pairs(8), tmp_path, DPOSettings(**PLAIN, adapter=Lora(r=2, alpha=4, **kind)))
    assert report.verified["logit_error"] < 1e-4 < report.verified["logit_change"]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_an_adapter_on_a_base_in_four_bits_is_merged_into_the_full_one(tiny, tmp_path):
    student = tiny.model(tmp_path / "student", tiny.tokenizer(), width=64)
    settings = DPOSettings(**PLAIN, adapter=Lora(r=4, alpha=8, load_in_4bit=True))
    report = train(student, tiny.pairs(8), tmp_path / "out", settings)
    assert metrics(tmp_path / "out")[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert report.verified["logit_error"] > 0
    # Also after the reference was evaluated, gradients reach every layer: the first as well as the last.
    adapter = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 28 and all(bool(tensor.any()) for tensor in adapter.values())
    merged = merge_adapter(open_start(student), tmp_path / "out" / "adapter").state_dict()
    saved = load_model(report.model_dir).state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in merged.items())
    assert any("what the 4 bits cost" in note for note in report.notes)
    assert load_model(report.model_dir, "auto").dtype == torch.float32
    assert report.preflight["dtype"]["base"] == "4 bits"


def test_four_bits_without_the_package_are_refused(tiny, student, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package bitsandbytes"):
        train(student, tiny.pairs(4), tmp_path, DPOSettings(**PLAIN, adapter=Lora(load_in_4bit=True)))


@pytest.mark.parametrize(("name", "message"), [("wandbb", "not a tracker"), ("comet_ml", "is not installed")])
def test_a_tracker_that_is_not_there_is_refused(tiny, student, tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        train(student, tiny.pairs(4), tmp_path, DPOSettings(**PLAIN), resources=TrainResources(report_to=[name]))


def test_pairs_without_a_prompt_are_refused(tiny, student, tmp_path):
    rows = [{**row, "prompt": []} for row in tiny.pairs(4)]
    with pytest.raises(UserError, match="Give each pair a prompt"):
        train(student, rows, tmp_path, DPOSettings(**PLAIN))


@pytest.mark.parametrize("changes", [{"pad_token": None}, {"pad_token": "</s>"}])
def test_a_base_without_padding_or_with_eos_for_it_trains_to_the_same_weights(tiny, student, tmp_path, changes):
    other = shutil.copytree(student, tmp_path / "student")
    tiny.tokenizer(**changes).save_pretrained(other)
    losses = []
    for name, model in (("a", student), ("b", other)):
        train(model, tiny.pairs(4), tmp_path / name, DPOSettings(**PLAIN))
        losses.append([row["loss"] for row in metrics(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert open_start(tmp_path / "b" / "model").tokenizer.pad_token == changes["pad_token"]


def test_responses_become_chats_and_what_is_cut_or_missing_is_counted():
    import pyarrow as pa

    from w2s_align.records import Prompt, Response, to_table

    prompts = [Prompt.of("1+2="), Prompt.of("3+4=")]
    made = [("3", "stop"), ("4", "length"), (None, "error"), ("7", "stop")]
    responses = [
        Response(prompts[i // 3].id, i % 3, "weak", text, finish_reason=reason)
        for i, (text, reason) in enumerate(made)
    ]
    chats, counts = responses_as_chats(to_table(prompts), to_table(responses))
    assert isinstance(chats, pa.Table)
    assert chats.to_pylist() == [
        {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for question, answer in (("1+2=", "3"), ("3+4=", "7"))
    ]
    assert counts == {"cut_short": 1, "without_response": 1}


@pytest.mark.slow
def test_the_merged_model_and_its_adapter_give_the_same_greedy_text_in_both_engines(tiny, tmp_path):
    """vLLM and transformers, on both; a random model's answers differ from prompt to prompt."""
    from w2s_align.generation import Engine, Sampling, generate

    student = tiny.model(tmp_path / "student", tiny.tokenizer(), width=64)
    settings = DPOSettings(**PLAIN, adapter=Lora(r=4, alpha=8, use_rslora=True))
    report = train(student, tiny.pairs(8), tmp_path / "out", settings)
    questions = [f"{i}+{i + 1}=" for i in range(12)]
    made = {
        (engine, model): generate(
            model, questions, Sampling(temperature=0, max_tokens=12), engine=Engine(name=engine)
        ).table()["text"]
        for engine in ("transformers", "vllm")
        for model in (report.model_dir, report.adapter_dir)
    }
    first, *others = (texts.to_pylist() for texts in made.values())
    assert all(texts == first for texts in others)
    before = generate(student, questions, Sampling(temperature=0, max_tokens=12), engine=Engine(name="transformers"))
    assert before.table()["text"].to_pylist() != first
    assert len(set(first)) > 1
