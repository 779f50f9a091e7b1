"""Options that cannot work are refused with a reason."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineResources, Sampling, generate, resolve_engine_name


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0}, "max_tokens"),
        ({"max_tokens": 5}, "temperature"),
        ({"temperature": -1, "max_tokens": 5}, "temperature"),
        ({"temperature": 0, "max_tokens": 5, "n": 2}, "all responses are equal"),
        ({"temperature": 0, "max_tokens": 5, "stop": [".", " ", ""]}, "empty stop text"),
        ({"temperature": 0, "max_tokens": 5, "max_length": 3}, "max_length"),
    ],
)
def test_sampling_refuses(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Sampling(**options)


def test_sampling_defaults_are_neutral() -> None:
    assert Sampling(temperature=1, max_tokens=5).model_dump() == {
        "temperature": 1.0,
        "max_tokens": 5,
        "n": 1,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": [],
        "logprobs": False,
    }


@pytest.mark.parametrize("group", [Sampling, Engine, EngineResources])
def test_every_option_has_a_help_text(group: type[Sampling]) -> None:
    assert [name for name, option in group.model_fields.items() if not option.description] == []


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, w2s_align.generation, w2s_align.generation.settings;"
        "print([m for m in ('torch', 'transformers', 'vllm', 'datasets', 'pandas', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_vllm_transformers_takes_over_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name))
    assert resolve_engine_name("auto") == "transformers"
    with pytest.warns(UserWarning, match="vLLM is not installed"), pytest.raises(UserError, match="nothing"):
        generate(tmp_path / "nothing", ["a"], Sampling(temperature=0, max_tokens=1))
    with pytest.raises(UserError, match="vllm"):
        resolve_engine_name("vllm")
