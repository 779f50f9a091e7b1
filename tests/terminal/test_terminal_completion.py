"""What the shell offers at the tab key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from w2s_align.terminal.completion import kinds, recipes_and_files, runs_and_steps, steps_of


def test_recipes_kinds_and_the_steps_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("steps: {prompts: {}, pairs: {}, dpo: {}}")
    assert recipes_and_files("quick") == ["quickstart"] and recipes_and_files("mi") == ["mine.yaml"]
    assert sorted(kinds("import")) == ["import_chats", "import_model", "import_pairs"]
    context: Any = SimpleNamespace(params={"recipe": "mine.yaml"})
    assert steps_of(context, "p") == ["prompts", "pairs"]
    context.params["recipe"] = "missing"
    assert steps_of(context, "p") == []


def test_recipes_that_have_run_then_their_runs_and_steps(tmp_path: Path) -> None:
    for name in ("runs/mine/1/steps/dpo@1", "runs/other/1/steps"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/mine/latest").symlink_to("1")
    context: Any = SimpleNamespace(params={"runs_dir": tmp_path})
    assert runs_and_steps(context, "") == ["mine", "other"]
    assert runs_and_steps(context, "mine/") == ["mine/1", "mine/dpo@1"]
