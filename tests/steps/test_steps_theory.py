"""The theory recipes run from the command line's side: a page, its twins and its plots."""

from __future__ import annotations

import json
from pathlib import Path

from w2s_align.runs import load_recipe
from w2s_align.terminal.catalogue import shipped_recipes


def test_theory_recipes_write_their_pages(tmp_path: Path) -> None:
    small = ["theory.dimension=50", "theory.batch=8192", "theory.repeats=1", "theory.steps=50"]
    run = load_recipe(shipped_recipes()["theory/delta_theory"], small).run(tmp_path)
    assert run.report is not None and "closed form" in run.report.read_text()
    folder = run.artifact("theory").path
    numbers = json.loads((folder / "report.json").read_text())
    assert all(check["held"] for check in numbers["checks"])
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "paths.png",
        "paths.svg",
        "chances.png",
        "chances.svg",
    }
    assert "| Reversed pairs never help, shared error 0.8 | yes |" in (folder / "report.md").read_text()
    assert run.verdict().startswith("All 12 predictions hold")

    toy = load_recipe(shipped_recipes()["theory/sections_toy"]).run(tmp_path)
    assert toy.artifact("sections").manifest["result"]["verdict"].startswith("Preference tuning follows")


def test_the_oracle_of_weak_to_strong_generalization_has_its_numbers(tmp_path: Path) -> None:
    run = load_recipe(shipped_recipes()["theory/w2sg_oracle"]).run(tmp_path)
    numbers = json.loads((run.artifact("oracle").path / "report.json").read_text())
    assert [check["name"] for check in numbers["checks"] if not check["held"]] == []
    assert len(numbers["checks"]) == 5 and len(numbers["outcomes"]) == 10
    assert run.verdict().startswith("All 5 checks hold: random errors are averaged away")
