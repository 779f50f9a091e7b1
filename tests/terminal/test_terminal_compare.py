"""What `w2s compare` says of two recipes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from w2s_align.terminal.compare import differences


def test_a_step_of_one_run_alone_is_one_line() -> None:
    first: Any = SimpleNamespace(options={"dpo.kind": "dpo", "dpo.beta": 1, "sft.kind": "sft", "sft.seed": 3})
    second: Any = SimpleNamespace(options={"dpo.kind": "dpo", "dpo.beta": 2, "dpo.resources.gpus": 4})
    assert differences([first, second]) == {"sft": ["sft", None], "dpo.beta": [1, 2]}
