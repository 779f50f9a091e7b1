"""The written folder: what datasets opens and what TRL accepts."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from w2s_align.errors import UserError
from w2s_align.interchange import CardFacts, export_pairs, pair_export
from w2s_align.pairing import model_order


@pytest.fixture
def pairs(make):
    names = [str(i) for i in range(5)]
    weak = make.responses([(p, "org/weak", 0, f"good {p} — ü", "stop", 10) for p in names])
    weaker = make.responses([(p, "org/weaker", 0, f"bad {p}", "stop", 3) for p in names])
    return model_order(weak, weaker, make.prompts(names))


def test_folder_opens_as_a_dataset(pairs, tmp_path):
    from datasets import load_dataset

    facts = CardFacts(name="Addition", license="apache-2.0", generator_licenses={"org/weak": "mit"}, language=["en"])
    files = export_pairs(pairs.table, tmp_path / "out", facts, audit=pairs.audit(), counts=pairs.counts)
    assert [file.name for file in files] == ["train-00000-of-00001.parquet"]
    assert pq.read_table(files[0]).equals(pairs.table.combine_chunks())
    for opened in (
        load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")),
        load_dataset("parquet", data_files=[str(files[0])], split="train", cache_dir=str(tmp_path / "cache")),
    ):
        assert opened[0]["chosen"] == [{"role": "assistant", "content": "good 0 — ü"}]
        assert opened[0]["prompt"] == [{"role": "user", "content": "question 0"}]
        assert opened.to_list() == pairs.table.to_pylist()
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---")[1])
    assert header == {
        "license": "apache-2.0",
        "task_categories": ["text-generation"],
        "tags": ["preference", "dpo", "weak-to-strong"],
        "size_categories": ["n<1K"],
        "pretty_name": "Addition",
        "language": ["en"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]},
        ],
    }
    assert "| org/weak | mit |\n| org/weaker | not stated |" in text
    assert "Chosen is longer in 100% of pairs" in text


def test_trl_sees_conversational_pairs_with_explicit_prompt(pairs, tmp_path):
    from datasets import load_dataset
    from trl.data_utils import is_conversational, maybe_extract_prompt

    export_pairs(pairs.table, tmp_path)
    dataset = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    example = dataset[0]
    assert is_conversational(example)
    assert maybe_extract_prompt(example) == example
    assert {key for side in ("prompt", "chosen", "rejected") for turn in example[side] for key in turn} == {
        "role",
        "content",
    }


def test_large_tables_are_split_into_shards(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(pair_export, "SHARD_ROWS", 2)
    files = export_pairs(pairs.table, tmp_path)
    assert [file.name for file in files] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_metadata(file).num_rows for file in files] == [2, 2, 1]


def test_wrong_tables_are_refused(pairs, tmp_path):
    with pytest.raises(UserError, match="not a table of pairs"):
        export_pairs(pairs.table.drop_columns(["delta"]), tmp_path)
    with pytest.raises(UserError, match="No pairs to write"):
        export_pairs(pairs.table.slice(0, 0), tmp_path)


def test_importing_the_packages_is_light():
    heavy = [
        "torch",
        "transformers",
        "trl",
        "vllm",
        "datasets",
        "matplotlib",
        "polars",
        "scipy",
        "pandas",
        "huggingface_hub",
        "sympy",
    ]
    ours = "w2s_align.interchange, w2s_align.pairing, w2s_align.scoring"
    code = f"import sys, {ours}; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
