"""What a card says to the hub of where a model comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from w2s_align.steps.report import origin_of


class Made:
    """An artifact as far as its origin goes."""

    def __init__(self, kind: str, options: dict[str, Any], **inputs: Made) -> None:
        self.type, self.inputs = kind, inputs
        self.manifest = {"options": options, "inputs": dict.fromkeys(inputs)}

    def input(self, place: str) -> Made:
        return self.inputs[place]


def test_base_model_license_and_data_sets_go_through_all_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("w2s_align.pairing.licenses._card", lambda model: None)
    prompts = Made("prompts", {"source": "openai/gsm8k"})
    pairs = Made("pairs", {"source": "HuggingFaceH4/ultrafeedback_binarized"})
    sft = Made("model", {"model": "Qwen/Qwen2.5-7B-Instruct"}, data=prompts)
    dpo = Made("model", {"model": "$"}, model=sft, pairs=pairs)
    chain: Any = [prompts, sft, pairs, dpo]
    assert origin_of(chain) == {
        "base_model": "Qwen/Qwen2.5-7B-Instruct",
        "license": "apache-2.0",
        "datasets": ["openai/gsm8k", "HuggingFaceH4/ultrafeedback_binarized"],
    }


def test_what_is_not_on_the_hub_is_no_metadata(tmp_path: Path) -> None:
    own = Made("pairs", {"source": "mine.jsonl"})
    lab = Made("prompts", {"source": "lab/addition"})
    local = Made("model", {"model": str(tmp_path)}, data=own)
    chain: Any = [own, lab, local]
    assert origin_of(chain) == {"datasets": []}
