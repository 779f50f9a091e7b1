"""Pairs of several steps in one training: put together, counted by set, prompts of several sets counted."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from w2s_align.errors import UserError
from w2s_align.runs import recipe_from_text
from w2s_align.steps import CATALOGUE
from w2s_align.training import DPOSettings, SFTSettings, train
from w2s_align.training.counts import RowCounts

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 2, "lr_scheduler_type": "constant", "warmup_steps": 0}


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_sets_train_like_their_rows_in_one(tiny, student, tmp_path):
    first, second = tiny.pairs(5), tiny.pairs(6, seed=1)
    second[0] = {**second[0], "prompt": first[0]["prompt"]}
    second[1] = {**second[1], "prompt": []}
    tables = [pa.Table.from_pylist(rows) for rows in (first, second)]
    report = train(student, tables, tmp_path / "two", DPOSettings(**PLAIN))
    assert report.counts == RowCounts(
        rows=11, kept=10, dropped={"without_prompt": 1}, kept_by_set=[5, 5], shared_prompts=1, repeated=2
    )
    one = train(student, [*first, *second], tmp_path / "one", DPOSettings(**PLAIN))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert one.counts.kept_by_set == [] and one.digests == report.digests


def test_sft_takes_pairs_and_chats_together(tiny, student, tmp_path):
    chats = pa.Table.from_pylist([{"prompt": row["prompt"], "completion": row["chosen"]} for row in tiny.pairs(3)])
    sets = [pa.Table.from_pylist(tiny.pairs(5, seed=1)), chats]
    report = train(student, sets, tmp_path, SFTSettings(**PLAIN))
    assert report.counts.kept_by_set == [5, 3]


RECIPE = """\
name: two
steps:
  first:  {{kind: import_pairs, source: {folder}/first.jsonl}}
  second: {{kind: import_pairs, source: {folder}/second.jsonl}}
  train:  {{kind: {kind}, model: {student}, {field}: [$first, $second], learning_rate: 1e-3, batch_size: 8,
           max_steps: 1, warmup_steps: 0}}
"""


@pytest.fixture
def folder(tiny, tmp_path):
    rows = {"first": tiny.pairs(12), "second": [tiny.pairs(1)[0], *tiny.pairs(7, seed=1)]}
    for name, pairs in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tmp_path


@pytest.mark.parametrize("kind", ["dpo", "kto", "simpo", "cpo", "orpo", "reward", "sft"])
def test_every_training_on_pairs_takes_several_steps(kind, folder, student):
    field = "data" if kind == "sft" else "pairs"
    text = RECIPE.format(folder=folder, student=student, kind=kind, field=field)
    node = recipe_from_text(text).recipe.nodes["train"]
    assert {f"{field}.0": "first", f"{field}.1": "second"}.items() <= node.inputs.items()
    with pytest.raises(UserError, match=rf"train: {field} has \$first twice"):
        recipe_from_text(text.replace("$second]", "$first]"))
    with pytest.raises(
        UserError, match=rf"train.{field}.1 refers to \$secnd, which is not a step.*Did you mean \$second"
    ):
        recipe_from_text(text.replace("$second]", "$secnd]"))
    with pytest.raises(UserError, match=rf"train.{field}"):
        recipe_from_text(text.replace("[$first, $second]", "[]"))
    assert CATALOGUE[kind].model_validate({**node.config.model_dump(), field: "$first"}).check() is None


@pytest.mark.slow
def test_the_artifact_counts_rows_by_set_and_warns_of_shared_prompts(folder, student, tmp_path):
    text = RECIPE.format(folder=folder, student=student, kind="kto", field="pairs")
    run = recipe_from_text(text).run(tmp_path / "runs")
    found = run.artifact("train").manifest
    kept = [2 * run.table(name).num_rows for name in ("first", "second")]
    assert found["counts"]["sets"] == {"kept": kept, "prompt_in_an_earlier_set": 1}
    assert "1 rows have a prompt that an earlier set of pairs has too." in found["warnings"]
