"""Options that cannot work are refused with a reason."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from w2s_align.generation import Engine, EngineResources, Sampling


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0}, "max_tokens"),
        ({"max_tokens": 5}, "temperature"),
        ({"temperature": -1, "max_tokens": 5}, "temperature"),
        ({"temperature": 0, "max_tokens": 5, "n": 2}, "equal answers"),
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
        "print([m for m in ('torch', 'transformers', 'vllm', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
