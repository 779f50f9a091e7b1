"""Damaged files of a run are named with the way out: by plan and run (sizes), by `w2s doctor --verify` (digests)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_steps import tiny_recipe

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine
from w2s_align.runs import Run
from w2s_align.runs.execute import execute
from w2s_align.runs.plan import plan
from w2s_align.runs.verify import verify

RECIPE = tiny_recipe("one: {kind: number, value: 1}\nall: {kind: sum, of: [$one]}")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'tests' / 'support'}")
    return execute(RECIPE, Store(tmp_path), Machine(2, ()), lambda event: None)[0]


def flip(path: Path) -> None:
    """Change one bit, not the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def w2s(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "w2s_align.cli", *arguments, "--runs-dir", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "400"})


@pytest.mark.parametrize(
    ("file", "damage", "named"),
    [
        ("number", Path.unlink, "number is missing"),
        ("number", lambda path: path.write_text("12"), "number has 2 bytes instead of 1"),
        (
            "artifact.json",
            lambda path: path.write_text("{}"),
            "artifact.json does not say its kind, type",
        ),
        ("artifact.json", lambda path: path.write_text("[]"), "artifact.json does not hold a mapping"),
        ("artifact.json", lambda path: path.write_text(""), "artifact.json is not readable"),
        ("artifact.json", lambda path: path.write_bytes(b"\xff"), "artifact.json is not readable"),
        ("artifact.json", lambda path: path.write_text("[" * 100_000), "artifact.json is not readable"),
    ],
)
def test_a_damaged_artifact_is_not_called_cached(
    made: Run, tmp_path: Path, file: str, damage: Callable[[Path], object], named: str
) -> None:
    folder = made.artifact("one").path
    damage(folder / file)
    with pytest.raises(UserError, match=rf"{folder} is damaged.*{named}.*Delete {folder} and run the recipe again"):
        plan(RECIPE, Store(tmp_path))
    (found,) = [item for item in verify(made) if item.problems]
    assert found.name == "one" and named in str(found.problems[0])


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", '{"recipe": "x", "status": "done", "nodes": {"a": {"key": 1}}}', "[" * 9**5],
)
def test_a_broken_run_file_is_named(made: Run, content: str) -> None:
    (made.path / "run.json").write_text(content)
    with pytest.raises(UserError, match=rf"run.json is damaged.*Delete {made.path} and run the recipe again"):
        made.names()


def test_after_the_way_out_the_run_is_whole_again(made: Run, tmp_path: Path) -> None:
    import shutil

    (made.path / "run.json").write_text("{}")
    shutil.rmtree(made.path)
    again, outcome = execute(RECIPE, Store(tmp_path), Machine(2, ()), lambda event: None)
    assert set(outcome.states.values()) == {"cached"}
    assert again.names() == ["one", "all"]


def test_changed_bits_are_found_in_files_and_in_the_manifest(made: Run) -> None:
    assert [(item.digests, item.problems) for item in verify(made)] == [(True, ())] * 2
    flip(made.artifact("one").path / "number")
    manifest = made.artifact("all").path / "artifact.json"
    manifest.write_text(manifest.read_text().replace('"kept": ', '"kept" :').replace('"seconds": 0', '"seconds": 9'))
    said = [str(item.problems[0]) for item in verify(made)]
    assert "number has changed since it was written" in said[0]
    assert "artifact.json has changed since it was written" in said[1]


def test_of_an_artifact_of_an_earlier_version_sizes_alone_are_compared(made: Run) -> None:
    manifest = made.artifact("one").path / "artifact.json"
    content = json.loads(manifest.read_text())
    del content["sha256"], content["seal"]
    manifest.write_text(json.dumps(content))
    assert [item.digests for item in verify(made)] == [False, True]
    assert Artifact.open(manifest.parent).verify().key == content["key"]


def test_doctor_says_so_and_ends_with_2(made: Run, tmp_path: Path) -> None:
    done = w2s(tmp_path, "doctor", "--verify", "tiny")
    assert (done.returncode, done.stdout.count("every file has its digest")) == (0, 2), done.stderr
    folder = made.artifact("one").path
    flip(folder / "number")
    done = w2s(tmp_path, "doctor", "--verify", "tiny")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "number has changed since it was written" in done.stderr and f"Delete {folder}" in done.stderr
    (made.path / "run.json").write_text("")
    done = w2s(tmp_path, "doctor", "--verify", "tiny")
    assert done.returncode == 2 and "run.json is damaged" in done.stderr and "Traceback" not in done.stderr


def test_numbers_that_are_shown_are_read_with_their_digest(made: Run) -> None:
    """`w2s show`, `w2s compare` and the report read the results through ``Artifact.text``."""
    one = made.artifact("one")
    assert one.text("number") == "1"
    flip(one.path / "number")
    with pytest.raises(UserError, match="number has changed since it was written"):
        one.text("number")


def test_no_reader_of_results_goes_round_the_digest() -> None:
    root = Path(__file__).parents[2]
    for file in (root / "w2s_align").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"""["']results\.json["']\)?\.read_""", text), file
