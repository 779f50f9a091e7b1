"""Start models that cannot be used, and saved models that are not what was trained."""

import json
import shutil

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.training.models import load_model, open_start, save_model
from w2s_align.training.verify import probe_logits, verify_model

PROBES = [[1, 3, 7, 16, 8, 17, 4]]


def copy(student, folder):
    shutil.copytree(student, folder)
    return folder


def test_what_is_read_from_a_start_model(student):
    start = open_start(student)
    assert (start.dtype, start.parameters, start.stop_ids) == ("float32", 19_296, frozenset({2}))


def test_a_model_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="cannot be opened"):
        open_start(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("pattern", "missing"),
    [("config.json", "config.json"), ("tokenizer*", "tokenizer.json"), ("*.safetensors", "model.safetensors")],
)
def test_an_incomplete_folder_names_what_it_lacks(student, tmp_path, pattern, missing):
    folder = copy(student, tmp_path / "model")
    for file in folder.glob(pattern):
        file.unlink()
    with pytest.raises(UserError, match=f"lacks {missing}"):
        open_start(folder)


def test_a_tokenizer_without_a_chat_template(tiny, tmp_path):
    with pytest.raises(UserError, match="no chat template"):
        open_start(tiny.model(tmp_path / "model", tiny.tokenizer(template=None)))


def test_an_adapter_alone_is_no_start(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="is an adapter"):
        open_start(tmp_path)


def test_a_quantized_model_is_refused(student, tmp_path):
    folder = copy(student, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (folder / "config.json").write_text(json.dumps(config | quantized))
    with pytest.raises(UserError, match="stored quantized"):
        open_start(folder)


def test_a_saved_model_carries_tokenizer_template_and_generation_config(student, tmp_path):
    start = open_start(student)
    model = start.load()
    with torch.no_grad():
        model.model.norm.weight.add_(0.5)
    trained = probe_logits(model, PROBES)
    save_model(model, start, tmp_path, "float32")
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    assert open_start(tmp_path / "model").tokenizer.chat_template == start.tokenizer.chat_template
    found = verify_model(tmp_path / "model", start, "float32", PROBES, trained)
    assert found["changed_share"] == pytest.approx(32 / 19_296)
    assert found["max_change"] == pytest.approx(0.5)
    assert found["logit_error"] == 0
    assert found["logit_change"] > 0.1


def test_a_model_that_did_not_change_is_refused(student, tmp_path):
    start = open_start(student)
    model = start.load()
    trained = probe_logits(model, PROBES)
    save_model(model, start, tmp_path, "float32")
    with pytest.raises(UserError, match="Training changed no weight"):
        verify_model(tmp_path / "model", start, "float32", PROBES, trained)


def test_a_change_below_the_saved_precision_is_refused_with_the_way_out(student, tmp_path):
    start = open_start(student)
    model = start.load()
    with torch.no_grad():
        model.model.norm.weight.mul_(1 + 1e-5)
    trained = probe_logits(model, PROBES)
    save_model(model, start, tmp_path, "bfloat16")
    with pytest.raises(UserError, match="save_dtype: float32"):
        verify_model(tmp_path / "model", start, "bfloat16", PROBES, trained)


def test_a_saved_model_that_is_another_one_is_refused(tiny, student, tmp_path):
    other = tiny.model(tmp_path / "model", tiny.tokenizer(), seed=1)
    start = open_start(student)
    trained = probe_logits(load_model(student), PROBES)
    with pytest.raises(UserError, match="not the model that was trained"):
        verify_model(other, start, "float32", PROBES, trained)
