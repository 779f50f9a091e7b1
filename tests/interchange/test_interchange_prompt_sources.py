"""Prompt sources: every format, columns, splits by group, stable ids, and a count for every row that is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.interchange.prompt_sources import load_prompts
from w2s_align.records import Prompt, from_table, prompt_id

ROWS = [{"question": f"What is {n} + 1?", "gold": n + 1, "topic": f"t{n // 4}"} for n in range(40)]
COLUMNS = {"prompt": "question", "answer": "gold", "group": "topic"}


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"sums{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif suffix == ".csv":
        path.write_text("question,gold,topic\n" + "".join(f"{r['question']},{r['gold']},{r['topic']}\n" for r in ROWS))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_file_format_gives_the_same_prompts(suffix: str, tmp_path: Path) -> None:
    prompts = from_table(Prompt, load_prompts(str(write(tmp_path, suffix)), columns=COLUMNS).table)
    assert len(prompts) == 40
    assert prompts[2] == Prompt(
        id=prompt_id([{"role": "user", "content": "What is 2 + 1?"}]),
        messages=[{"role": "user", "content": "What is 2 + 1?"}],
        answer="3",
        task="sums",
        group="t0",
        meta={},
    )


def test_the_id_of_a_prompt_never_changes() -> None:
    assert Prompt.of("What is 2 + 1?").id == "333629d0448786a1"
    assert Prompt.of("a").id != Prompt.of("b").id
    assert Prompt.of("a").id != Prompt.of([{"role": "system", "content": ""}, {"role": "user", "content": "a"}]).id


def test_groups_stay_on_one_side_of_a_split_and_the_sides_cover_everything(tmp_path: Path) -> None:
    path = str(write(tmp_path, ".jsonl"))
    sides = {
        part: from_table(Prompt, load_prompts(path, columns=COLUMNS, hold_out=0.3, part=part).table)
        for part in ("train", "test")
    }
    groups = {part: {p.group for p in prompts} for part, prompts in sides.items()}
    assert groups["train"] and groups["test"] and not groups["train"] & groups["test"]
    assert len(sides["train"]) + len(sides["test"]) == 40


def test_left_out_rows_are_counted_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        '{"prompt": "good"}',
        '{"prompt": "good"}',
        '{"prompt": "  "}',
        '{"prompt": 7}',
        "{broken",
        "[1]",
        '{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}',
        '{"prompt": [{"role": "assistant", "content": "a"}]}',
        '{"prompt": [{"role": "user"}]}',
        '{"prompt": "half a pair \\ud83d", "answer": "\\udc00"}',
    ]
    path.write_text("\n".join(lines))
    loaded = load_prompts(str(path))
    assert [p.messages for p in from_table(Prompt, loaded.table)] == [
        [{"role": "user", "content": "good"}],
        [{"role": "user", "content": "q"}],
        [{"role": "user", "content": "half a pair \N{REPLACEMENT CHARACTER}"}],
    ]
    assert loaded.counts == {
        "rows_in": 10,
        "kept": 3,
        "dropped": {
            "duplicate": 1,
            "empty prompt": 1,
            "no prompt": 1,
            "not JSON": 1,
            "not a JSON object": 1,
            "no user turn at the end": 1,
            "broken messages": 1,
        },
    }


def test_limit_and_shuffle_draw_by_the_seed(tmp_path: Path) -> None:
    path = str(write(tmp_path, ".jsonl"))

    def ids(**options: int | bool) -> list[str]:
        return load_prompts(path, columns=COLUMNS, **options).table["id"].to_pylist()  # type: ignore[arg-type]

    assert ids(limit=5) == ids()[:5]
    assert ids(limit=5, shuffle=True, seed=1) == ids(limit=5, shuffle=True, seed=1)
    assert ids(limit=5, shuffle=True, seed=1) != ids(limit=5, shuffle=True, seed=2)


def test_a_template_surrounds_each_prompt(tmp_path: Path) -> None:
    loaded = load_prompts(str(write(tmp_path, ".csv")), columns=COLUMNS, template="Q: {prompt}\nA:", limit=1)
    assert loaded.table["messages"][0].as_py()[0]["content"] == "Q: What is 0 + 1?\nA:"
    with pytest.raises(UserError, match="does not contain"):
        load_prompts("x.csv", template="Q:")


def test_reasoning_gym_tasks_bring_what_their_checker_needs() -> None:
    pytest.importorskip("reasoning_gym")
    first = load_prompts("reasoning_gym/chain_sum", limit=6, seed=1)
    prompts = from_table(Prompt, first.table)
    assert len(prompts) == 6
    assert prompts[0].task == "reasoning_gym/chain_sum"
    assert prompts[0].meta["entry"]["answer"] == prompts[0].answer
    assert first.table.equals(load_prompts("reasoning_gym/chain_sum", limit=6, seed=1).table)
    with pytest.raises(UserError, match="Did you mean chain_sum"):
        load_prompts("reasoning_gym/chain_sun", limit=6)


def test_lab_tasks_have_disjoint_splits() -> None:
    train = load_prompts("lab/addition", limit=50, split="train").table["id"].to_pylist()
    test = load_prompts("lab/addition", limit=50, split="test").table["id"].to_pylist()
    assert len(train) == len(test) == 50 and not set(train) & set(test)
    with pytest.raises(UserError, match="has no split dev"):
        load_prompts("lab/addition", limit=5, split="dev")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "gives no prompt: it is empty"),
        ('{"a": 1}\n', {}, "No column of .* looks like a prompt. .*It has: a."),
        (
            '{"prompt": "x"}\n',
            {"columns": {"prompt": "quest"}},
            "has no column quest for the prompt. .*It has: prompt.",
        ),
        ('{"prompt": "x"}\n', {"columns": {"promt": "prompt"}}, "columns has no promt"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    content: str, options: dict[str, dict[str, str]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_prompts(str(path), **options)  # type: ignore[arg-type]


def test_a_missing_file_and_a_missing_dataset_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_prompts(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(UserError, match=r"The dataset nobody/nothing .* cannot be loaded"):
        load_prompts("nobody/nothing")
