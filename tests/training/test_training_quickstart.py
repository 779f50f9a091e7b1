"""The lab quickstart under ZeRO-2: the same trainings and the same verdict from two processes as from one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from w2s_align.runs import Run, load_recipe
from w2s_align.terminal.catalogue import recipes_folder

TRAININGS = ("dpo@1", "dpo@2", "dpo@3")


def quickstart(folder: Path, *overrides: str) -> Run:
    return load_recipe(recipes_folder() / "quickstart.yaml", overrides).run(folder)


def curve(run: Run, name: str) -> list[float]:
    rows = (run.artifact(name).path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


@pytest.mark.slow
def test_the_quickstart_under_zero2_has_the_same_curves_and_the_same_verdict(tmp_path: Path) -> None:
    """Some ten minutes on two cores. Where a training runs is no part of a key: what came of these is removed."""
    one = quickstart(tmp_path / "one")
    shutil.copytree(tmp_path / "one" / "artifacts", tmp_path / "two" / "artifacts", symlinks=True)
    for name in one.names():
        if not name.startswith(("dpo@", "scores/dpo/")) and name not in ("scores", "report"):
            continue
        path = one.artifact(name).path.resolve()
        shutil.rmtree(tmp_path / "two" / path.relative_to((tmp_path / "one").resolve()))
    two = quickstart(tmp_path / "two", "dpo.launch=zero2", "dpo.resources.processes=2")
    for name in TRAININGS:
        batch = two.artifact(name).manifest["result"]["preflight"]["batch"]
        assert (batch["effective"], batch["processes"]) == (32, 2)
        assert curve(two, name) == pytest.approx(curve(one, name), rel=1e-4, abs=1e-4)
    assert two.verdict() == one.verdict() != ""
