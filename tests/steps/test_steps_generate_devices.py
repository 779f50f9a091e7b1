"""What a generation takes of the machine, and adapters as models of a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from w2s_align.artifacts.identity import model_identity
from w2s_align.recipe.schema import Resources
from w2s_align.steps.generate import Generate


def step(**options: Any) -> Generate:
    return Generate(model="m", prompts="$prompts", sampling={"temperature": 1, "max_tokens": 8}, **options)


@pytest.mark.parametrize(
    ("options", "claims"),
    [
        ({}, Resources(gpus=1)),
        ({"resources": {"tensor_parallel_size": 2, "data_parallel_size": 4}}, Resources(gpus=8)),
        ({"resources": {"data_parallel_size": 2, "gpus": 3, "cpus": 5}}, Resources(cpus=5, gpus=3)),
        ({"engine": {"name": "ray"}, "resources": {"replicas": 3}}, Resources()),
        ({"engine": {"name": "ray"}, "resources": {"ray_address": "auto"}}, Resources(cpus=1, gpus=0)),
    ],
)
def test_the_devices_that_a_generation_claims(
    options: dict[str, Any], claims: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert step(**options).claims() == claims


def test_fewer_gpus_than_the_engines_need() -> None:
    with pytest.raises(ValidationError, match=r"gpus is 3, but data_parallel_size x .* is 4; raise gpus"):
        step(resources={"gpus": 3, "data_parallel_size": 2, "tensor_parallel_size": 2})


def test_an_adapter_is_identified_with_its_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = model_identity(str(adapter))
    assert set(before) == {"folder", "base"}
    assert before["base"] == model_identity(str(base))
    (base / "config.json").write_text('{"hidden_size": 2}')
    after = model_identity(str(adapter))
    assert after["folder"] == before["folder"]
    assert after["base"] != before["base"]
