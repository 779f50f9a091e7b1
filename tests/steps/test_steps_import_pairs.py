"""Preference data in, data sets out, and evaluation sets kept out: by recipes, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from w2s_align.errors import UserError
from w2s_align.runs import Run, recipe_from_text
from w2s_align.runs.find import find_target
from w2s_align.terminal.show import show_target

RECIPE = """\
name: imported
seed: 0
steps:
  rivers: {kind: prompts, source: FOLDER/rivers.jsonl}
  pairs:
    kind: import_pairs
    source: FOLDER/prefs.jsonl
    decontaminate: [$rivers]
    filters: {refusal: true}
    generator_licenses: {unknown: mit}
  kto: {kind: export, pairs: $pairs, format: unpaired, license: mit}
  chats: {kind: export, pairs: $pairs, format: sft, side: rejected, title: "Bad answers"}
  plain: {kind: export, pairs: $pairs}
"""
RIVER = "Name a river of Europe and say where it ends, please do."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"prompt": "How do I boil an egg?", "chosen": "Eight minutes in boiling water.", "rejected": "You boil it."},
        {"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "I'm sorry, but I cannot say."},
        {"prompt": RIVER, "chosen": "The Danube.", "rejected": "The Rhine."},
        {"prompt": "Say a colour.", "chosen": "[red]Red[/]", "rejected": "No."},
    ]
    lines = [json.dumps({**row, "source": f"s{number}"}) for number, row in enumerate(rows)]
    (folder / "prefs.jsonl").write_text("\n".join([lines[0], '{"prompt": "cut', *lines[1:]]) + "\n")
    (folder / "rivers.jsonl").write_text(json.dumps({"prompt": RIVER}) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return recipe_from_text(RECIPE.replace("FOLDER", str(folder))).run(folder / "runs")


def test_imported_pairs_are_filtered_counted_and_audited(run: Run) -> None:
    pairs = run.artifact("pairs")
    assert [row["chosen"][0]["content"] for row in run.table("pairs").to_pylist()] == [
        "Eight minutes in boiling water.",
        "[red]Red[/]",
    ]
    counts = pairs.manifest["counts"]
    assert counts["rows_in"] == 5 and counts["kept"] == 2
    assert counts["dropped"] == {"not JSON": 1, "contaminated": 1, "no response": 1}
    warnings = " ".join(pairs.manifest["warnings"])
    assert "1 of 5 rows cannot be read (1 not JSON), the first at prefs.jsonl line 2." in warnings
    assert "100.0% of the items of rivers occurred in prompts" in warnings
    audit = pairs.manifest["result"]["audit"]
    assert audit["tasks"] == {"s0": 1, "s3": 1} and audit["licenses"] == {"unknown": "mit"}
    assert "line 2" in audit["dropped"]["row: not JSON"]["examples"][0]
    page = (pairs.path / "audit.html").read_text(encoding="utf-8")
    assert "Eight minutes in boiling water." in page and "prefs.jsonl line 2" in page


def test_exports_are_what_trl_reads_with_a_card(run: Run) -> None:
    def rows(name: str) -> list[dict]:
        return pq.read_table(run.artifact(name).path / "data").to_pylist()

    assert [row["label"] for row in rows("kto")] == [True, True, False, False]
    assert [row["messages"][-1]["content"] for row in rows("chats")] == ["You boil it.", "No."]
    assert rows("plain") == run.table("pairs").to_pylist()
    card = (run.artifact("kto").path / "README.md").read_text()
    assert "license: mit" in card and "- kto" in card and "| unknown | mit |" in card and "not JSON: 1" in card
    assert "# Bad answers" in (run.artifact("chats").path / "README.md").read_text()


def test_show_has_the_audit_as_a_table_and_reads_no_more_than_it_shows(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    runs = run.path.parents[2]
    show_target("imported/pairs", runs, 1, 1)
    shown = capsys.readouterr().out
    assert "[red]Red[/]" in shown and "Eight minutes" not in shown
    assert "rows 1 to 1 of 2" in shown
    for line in ("licenses  unknown", "leaks     rivers", "row: not JSON"):
        assert line in shown
    assert "audit.html" in shown
    show_target("imported/pairs", runs, 7, 3)
    assert "no row of 2 is here" in capsys.readouterr().out
    show_target("imported/kto", runs, 0, 1)
    assert '"label": true' in capsys.readouterr().out


def test_a_moved_file_is_found_in_the_cache_and_a_changed_one_is_read_again(run: Run, folder: Path) -> None:
    moved = folder / "elsewhere"
    moved.mkdir()
    text = (folder / "prefs.jsonl").read_text()
    (moved / "prefs.jsonl").write_text(text)
    recipe = RECIPE.replace("FOLDER/prefs", str(moved / "prefs")).replace("FOLDER", str(folder))
    again = recipe_from_text(recipe).run(folder / "runs")
    assert again.artifact("pairs").key == run.artifact("pairs").key
    (moved / "prefs.jsonl").write_text(text.replace("Eight", "Nine"))
    changed = recipe_from_text(recipe).run(folder / "runs")
    assert changed.artifact("pairs").key != run.artifact("pairs").key
    assert find_target(str(changed.path / "steps" / "pairs"), folder / "runs").type == "pairs"


def refused(steps: str, folder: Path) -> str:
    with pytest.raises(UserError) as error:
        recipe_from_text(f"name: bad\nseed: 0\nsteps:\n{steps}").run(folder / "bad")
    return str(error.value)


def test_what_cannot_work_is_refused_before_anything_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder / "prefs.jsonl"
    assert "The file or folder nowhere.jsonl does not exist" in refused(
        "  p: {kind: import_pairs, source: nowhere.jsonl}", folder
    )
    assert "takes no rule" in refused(
        f"  p: {{kind: import_pairs, source: {data}, layout: pairs, rule: best_random}}", folder
    )
    assert "No data in" in refused(f"  p: {{kind: import_pairs, source: {tmp_path}}}", folder)
    pairs = f"  p: {{kind: import_pairs, source: {data}}}\n"
    assert "has no side" in refused(f"{pairs}  e: {{kind: export, pairs: $p, side: rejected}}", folder)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "HF_TOKEN is not set" in refused(f"{pairs}  e: {{kind: export, pairs: $p, push_to_hub: me/x}}", folder)
    stopped = refused(f"  p: {{kind: import_pairs, source: {data}, on_broken: stop}}", folder)
    assert "prefs.jsonl line 2 cannot be read: not JSON" in stopped


@pytest.mark.parametrize("step", ["import_pairs, source: org/data", "pair, rule: model_order", "export, pairs: $p"])
def test_an_old_spelling_is_told(step: str) -> None:
    with pytest.raises(UserError, match=r"p\.licence is not an option of .*It is called license\."):
        recipe_from_text(f"name: old\nsteps:\n  p: {{kind: {step}, licence: mit}}\n")
