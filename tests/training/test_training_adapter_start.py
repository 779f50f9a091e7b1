"""An adapter as the start of a training that goes on with it: the reference, what is saved, a kill, refusals."""

import json

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.training import DPOSettings, Lora, RewardModelSettings, SFTSettings, TrainResources, train
from w2s_align.training.adapters import lora_of
from w2s_align.training.models import load_model
from w2s_align.training.verify import probe_logits

PROBE = [[1, 3, 7, 16, 8, 17, 4, 9, 9]]
SHARED = {"learning_rate": 1e-2, "batch_size": 4, "lr_scheduler_type": "constant", "warmup_steps": 0}


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def merged(base, adapter):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(base), str(adapter)).merge_and_unload()


@pytest.fixture(scope="module")
def adapter(tiny, student, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapter")
    train(student, tiny.pairs(8), out, SFTSettings(adapter=Lora(r=4, alpha=8), max_steps=2, **SHARED))
    return out / "adapter"


def test_dpo_goes_on_with_the_adapter_and_its_reference_is_the_adapter_as_it_started(tiny, student, adapter, tmp_path):
    started = (adapter / "adapter_model.safetensors").read_bytes()
    settings = DPOSettings(beta=0.5, merge_start=False, max_steps=2, **SHARED)
    report = train(adapter, tiny.pairs(8), tmp_path / "on", settings)
    rows = metrics(tmp_path / "on")
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-4)  # the policy equals its reference
    assert rows[1]["loss"] != pytest.approx(0.6931, abs=1e-4)
    assert report.settings["adapter"]["r"] == 4 and report.start == str(adapter)
    assert report.adapter_dir == str(tmp_path / "on" / "adapter")
    assert lora_of(tmp_path / "on" / "adapter").r == 4 and not (tmp_path / "on" / "adapter" / "ref").exists()
    assert (adapter / "adapter_model.safetensors").read_bytes() == started
    # On its base alone the saved adapter is the saved model: no merged start lies between them.
    (ours,) = probe_logits(merged(student, tmp_path / "on" / "adapter"), PROBE)
    (saved,) = probe_logits(load_model(tmp_path / "on" / "model"), PROBE)
    torch.testing.assert_close(ours, saved, atol=1e-4, rtol=1e-4)

    # A merged start with the adapter as its reference has the same first step.
    base = tmp_path / "merged"
    tokenizer = tiny.tokenizer()
    merged(student, adapter).save_pretrained(base)
    tokenizer.save_pretrained(base)
    train(base, tiny.pairs(8), tmp_path / "other", DPOSettings(beta=0.5, max_steps=1, **SHARED))
    assert metrics(tmp_path / "other")[0]["logps/chosen"] == pytest.approx(rows[0]["logps/chosen"], rel=1e-4)


def test_a_resumed_training_and_a_cached_reference_give_the_same_adapter(tiny, adapter, tmp_path, monkeypatch):
    settings = DPOSettings(beta=0.5, merge_start=False, max_steps=4, **SHARED)
    train(adapter, tiny.pairs(8), tmp_path / "whole", settings)
    resources = TrainResources(save_every=2, cache_dir=str(tmp_path / "cache"))

    def killed(steps, total, note):
        if steps == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(adapter, tiny.pairs(8), tmp_path / "parts", settings, resources=resources, progress=killed)
    report = train(adapter, tiny.pairs(8), tmp_path / "parts", settings, resources=resources)
    assert report.resumed_from == 2
    first, second = (probe_logits(load_model(tmp_path / name / "model"), PROBE)[0] for name in ("whole", "parts"))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def test_supervised_fine_tuning_goes_on_too(tiny, adapter, tmp_path):
    report = train(adapter, tiny.pairs(8), tmp_path, SFTSettings(merge_start=False, max_steps=1, **SHARED))
    assert report.adapter_dir and report.preflight["trained_parameters"] < report.preflight["parameters"]
    assert "start_adapter" in report.digests


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SFTSettings(merge_start=False, adapter=Lora(r=4), **SHARED), "merge_start: false and adapter are given"),
        (RewardModelSettings(merge_start=False, **SHARED), "another head"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny, adapter, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        train(adapter, tiny.pairs(4), tmp_path, settings)


def test_a_model_is_no_adapter_to_go_on_with(tiny, student, tmp_path):
    with pytest.raises(UserError, match="needs an adapter to start from"):
        train(student, tiny.pairs(4), tmp_path, SFTSettings(merge_start=False, **SHARED))
