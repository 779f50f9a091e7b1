"""Step `debate` in a recipe: a transcript for each seed, counts, turns cut for the reader, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.records import Prompt, from_table
from w2s_align.runs import recipe_from_text

RECIPE = """\
name: debates
seed: 0
steps:
  strong: {{kind: stand_in_model, like: Qwen/Qwen2.5-7B-Instruct}}
  items: {{kind: prompts, source: {source}}}
  talks:
    kind: debate
    model: $strong
    items: $items
    verdicts: {{"1": the answer is right, "0": the answer is wrong}}
    sampling: {{temperature: 1, max_tokens: 12}}
    seeds: [1, 2]
    engine: {{name: transformers}}
    reader: $strong
    reader_length: {length}
"""


def source(folder: Path) -> Path:
    path = folder / "items.jsonl"
    texts = ["Is 7 prime? Answer: yes.", "Is 9 prime? Answer: yes.", "Is it so? " + "really " * 420]
    path.write_text("".join(json.dumps({"prompt": text, "answer": "1"}) + "\n" for text in texts))
    return path


def test_a_recipe_has_a_transcript_for_each_seed_that_fits_the_reader(tmp_path: Path) -> None:
    run = recipe_from_text(RECIPE.format(source=source(tmp_path), length=390)).run(tmp_path / "runs")
    items = {item.id: item for item in from_table(Prompt, run.artifact("items").table())}
    shown = {}
    for seed in (1, 2):
        artifact = run.artifact(f"talks@{seed}")
        counts = artifact.manifest["counts"]
        assert (counts["rows_in"], counts["kept"], counts["dropped"]) == (3, 2, {"item leaves no room": 1})
        for item in from_table(Prompt, artifact.table()):
            assert item.answer == "1" and item.messages[-1]["content"].startswith(
                items[item.id].messages[-1]["content"]
            )
            shown[seed, item.id] = item.messages[-1]["content"]
        turns = artifact.table("turns").to_pylist()
        assert [turn["speaker"] for turn in turns] == ["A", "B", "A"] * 3
        assert all(a["verdict"] != b["verdict"] for a, b in zip(turns[::3], turns[1::3], strict=True))
    assert len(set(shown.values())) == 4  # another seed, another transcript
    again = recipe_from_text(RECIPE.format(source=source(tmp_path), length=390)).run(tmp_path / "runs")
    assert again.artifact("talks@1").path == run.artifact("talks@1").path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: [1, 2]", "form: market_making", "market_making argues against the labels of a weak model"),
        ("reader_length: 390", "turns: 2", "reader and reader_length belong together"),
        ("max_tokens: 12", "max_tokens: 12, n: 4", "a turn is one text"),
        ('"0": the answer is wrong', '"0": the answer is right', "two different statements"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_runs(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe_from_text(RECIPE.format(source=source(tmp_path), length=390).replace(old, new))
