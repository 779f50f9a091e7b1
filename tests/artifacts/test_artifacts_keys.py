"""Keys change with everything that can change an artifact's content, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.runs import recipe_from_text
from w2s_align.runs.plan import plan

TEXT = """\
name: keys
seed: 0
steps:
  prompts: {kind: prompts, source: FILE}
  weak: {kind: generate, model: some/weak, prompts: $prompts, sampling: {temperature: 1, max_tokens: 8}}
  weaker: {kind: generate, model: some/weaker, prompts: $prompts, sampling: {temperature: 1, max_tokens: 8}}
  pairs: {kind: pair, rule: model_order, chosen: $weak, rejected: $weaker}
  dpo: {kind: dpo, model: some/student, pairs: $pairs, learning_rate: 1e-6}
"""


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n')
    return path


def keys(text: str, file: Path, root: Path) -> dict[str, str]:
    recipe = recipe_from_text(text.replace("FILE", str(file))).recipe
    return {name: item.key for name, item in plan(recipe, Store(root)).items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_order_of_keys_resources_and_folders_do_not_matter(prompts_file: Path, tmp_path: Path) -> None:
    before = keys(TEXT, prompts_file, tmp_path / "one")
    text = TEXT.replace("temperature: 1, max_tokens: 8", "max_tokens: 8, temperature: 1.0")
    text = text.replace("learning_rate: 1e-6}", "learning_rate: 0.000001, resources: {cpus: 1, micro_batch_size: 2}}")
    moved = tmp_path / "elsewhere" / prompts_file.name
    moved.parent.mkdir()
    moved.write_bytes(prompts_file.read_bytes())
    assert not changed(before, keys(text, moved, tmp_path / "two"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("learning_rate: 1e-6", "learning_rate: 2e-6", {"dpo"}),
        ("learning_rate: 1e-6", "learning_rate: 1e-6, beta: 5", {"dpo"}),
        ("learning_rate: 1e-6", "learning_rate: 1e-6, seed: 1", {"dpo"}),
        ("rule: model_order", "rule: model_order, control: reversed", {"pairs", "dpo"}),
        ("some/weaker", "some/weakest", {"weaker", "pairs", "dpo"}),
        ("seed: 0", "seed: 1", {"prompts", "weak", "weaker", "pairs", "dpo"}),
        ("name: keys", "name: other", set()),
    ],
)
def test_a_change_reaches_what_depends_on_it(
    old: str, new: str, expected: set[str], prompts_file: Path, tmp_path: Path
) -> None:
    before = keys(TEXT, prompts_file, tmp_path)
    assert changed(before, keys(TEXT.replace(old, new), prompts_file, tmp_path)) == expected


def test_the_content_of_a_file_counts(prompts_file: Path, tmp_path: Path) -> None:
    before = keys(TEXT, prompts_file, tmp_path)
    prompts_file.write_text('{"prompt": "b"}\n')
    assert "prompts" in changed(before, keys(TEXT, prompts_file, tmp_path))


def test_renaming_a_step_does_not_make_its_readers_anew(prompts_file: Path, tmp_path: Path) -> None:
    before = keys(TEXT, prompts_file, tmp_path)
    after = keys(TEXT.replace("  pairs:", "  couples:").replace("$pairs", "$couples"), prompts_file, tmp_path)
    assert before["pairs"] == after["couples"]
    assert before["dpo"] == after["dpo"]


def test_a_changed_weight_file_changes_the_key(
    prompts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"one")
    text = TEXT.replace("some/weak,", f"{model},")
    before = keys(text, prompts_file, tmp_path)
    assert not changed(before, keys(text, prompts_file, tmp_path))
    (model / "model.safetensors").write_bytes(b"two")
    assert changed(before, keys(text, prompts_file, tmp_path)) == {"weak", "pairs", "dpo"}


def test_a_folder_without_a_model_is_refused_before_anything_runs(prompts_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        keys(TEXT.replace("some/weak,", f"{tmp_path / 'empty'},"), prompts_file, tmp_path)
