"""Columns and files of other tools: every column that means something is read or named, every cell stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from w2s_align.errors import UserError
from w2s_align.interchange import import_pairs, load_prompts
from w2s_align.pairing import Filters
from w2s_align.records import Prompt, from_table

ALPACA = [
    {"instruction": "Translate into French.", "input": text, "chosen": "oui", "rejected": "non"}
    for text in ("The cat sleeps.", "The dog runs.")
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prompts(source: str, **options: Any) -> list[Prompt]:
    return from_table(Prompt, load_prompts(source, **options).table)


@pytest.mark.parametrize("way", ["rows", "jsonl", "parquet"])
def test_the_input_belongs_to_the_instruction(way: str, tmp_path: Path) -> None:
    source: Any = ALPACA
    if way == "jsonl":
        source = write(tmp_path / "x.jsonl", ALPACA)
    elif way == "parquet":
        source = str(tmp_path / "x.parquet")
        pl.DataFrame(ALPACA).write_parquet(source)
    pairs = import_pairs(source)
    texts = [row["prompt"][0]["content"] for row in pairs.table.to_pylist()]
    assert texts == ["Translate into French.\n\nThe cat sleeps.", "Translate into French.\n\nThe dog runs."]
    assert pairs.counts.noticed == {}


def test_the_input_belongs_to_the_instruction_of_a_prompt_too(tmp_path: Path) -> None:
    loaded = load_prompts(write(tmp_path / "x.jsonl", ALPACA))
    texts = [row["messages"][0]["content"] for row in loaded.table.to_pylist()]
    assert texts == ["Translate into French.\n\nThe cat sleeps.", "Translate into French.\n\nThe dog runs."]
    assert loaded.counts["dropped"] == {}
    assert loaded.counts["not_read"] == {"chosen": 2, "rejected": 2}
    assert loaded.warnings == [
        f"Columns of {tmp_path / 'x.jsonl'} that were not read: chosen, rejected. The option columns maps them."
    ]


def test_system_and_earlier_turns_come_before_the_instruction(tmp_path: Path) -> None:
    rows = [
        {"instruction": "first"},
        {"instruction": "And now?", "input": "x", "history": [["Hi", "Hello"]], "system": "Be kind."},
        {"instruction": "Again?", "input": "", "history": [], "system": ""},
    ]
    expected = ["system", "user", "assistant", "user"]
    second = prompts(write(tmp_path / "x.jsonl", rows))[1]
    assert [turn["role"] for turn in second.messages] == expected
    assert [turn["content"] for turn in second.messages] == ["Be kind.", "Hi", "Hello", "And now?\n\nx"]
    with_sides = [{**row, "chosen": "a", "rejected": "b"} for row in rows]
    assert import_pairs(with_sides).table.to_pylist()[1]["prompt"] == second.messages
    assert [len(row["prompt"]) for row in import_pairs(with_sides).table.to_pylist()] == [1, 4, 1]


def test_a_chat_is_read_in_either_spelling(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}
    (found,) = prompts(write(tmp_path / "x.jsonl", [row]))
    assert found.messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("chosen-rating", "rejected-rating"),
        ("chosen_rating", "rejected_rating"),
        ("score_chosen", "score_rejected"),
        ("chosen_avg_rating", "rejected_avg_rating"),
        ("Chosen Rating", "Rejected Rating"),
        ("chosen_reward", "rejected_reward"),
    ],
)
def test_scores_are_read_under_their_usual_names(chosen: str, rejected: str) -> None:
    ratings = [("a", 4.5, 2.0), ("b", 3.0, 2.75)]
    rows = [{"prompt": q, "chosen": "x", "rejected": "y", chosen: high, rejected: low} for q, high, low in ratings]
    pairs = import_pairs(rows, filters=Filters(min_delta=1))
    assert [(row["score_chosen"], row["score_rejected"]) for row in pairs.table.to_pylist()] == [(4.5, 2.0)]
    assert pairs.counts.lost("pair", "delta too small") == 1


def completion(model: str, overall: float, fine: int) -> dict[str, Any]:
    aspects = {name: {"Rating": str(fine)} for name in ("helpfulness", "honesty")}
    return {"model": model, "response": f"of {model}", "overall_score": overall, "annotations": aspects}


def test_an_overall_score_that_contradicts_the_ratings_is_not_believed() -> None:
    completions = [completion("wrong", 10, 1), completion("good", 8.5, 4), completion("poor", 3, 2)]
    pairs = import_pairs([{"instruction": "q", "completions": completions}])
    (row,) = pairs.table.to_pylist()
    assert (row["chosen_model"], row["rejected_model"]) == ("good", "poor")
    assert pairs.counts.noticed == {"overall score that contradicts the fine-grained ratings: not used": 1}
    assert pairs.counts.lost("response", "unscored") == 1
    assert any("overall score" in name for name in pairs.counts.lines())


def test_every_column_that_is_not_read_is_named_once() -> None:
    rows = [{"prompt": q, "chosen": "a", "rejected": "b", "margin": 2, "note": None} for q in "xyz"]
    assert import_pairs(rows).counts.noticed == {"a column that was not read, margin": 3}


def test_the_mapping_that_fits_is_in_the_error(tmp_path: Path) -> None:
    rows = [{"input": "q", "chosen": "a", "rejected": "b"}]
    with pytest.raises(UserError, match=r"columns: \{prompt: input\}"):
        import_pairs(rows)
    assert import_pairs(rows, columns={"prompt": "input"}).counts.kept["pair"] == 1
    path = write(tmp_path / "x.jsonl", [{"input": "q", "target": "a"}])
    with pytest.raises(UserError, match=r"columns: \{prompt: input\}"):
        load_prompts(path)
    assert [(p.messages[0]["content"], p.answer) for p in prompts(path, columns={"prompt": "input"})] == [("q", "a")]
    path = write(tmp_path / "y.jsonl", [{"prompt": None, "input": "q"}])
    with pytest.raises(UserError, match=r"1 no prompt.*columns: \{prompt: input\}"):
        load_prompts(path)
    with pytest.raises(UserError, match=r"columns: \{prompt: input\}"):
        import_pairs([{"prompt": None, "input": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match=r"columns: \{prompt: query, chosen: better, rejected: worse\}"):
        import_pairs([{"query": "q", "better": "a", "worse": "b"}])


@pytest.mark.parametrize("way", ["rows", "parquet"])
@pytest.mark.parametrize(
    "columns",
    [
        {"chosen": "output.0", "rejected": "output.1"},
        {"chosen": "output[0]", "rejected": "output[1]"},
        {"chosen": "output", "rejected": "output"},
    ],
)
def test_a_list_of_a_better_and_a_worse_response_is_read_by_a_mapping(
    columns: dict[str, str], way: str, tmp_path: Path
) -> None:
    rows: Any = [{"instruction": "q", "output": ["better", "worse"]}]
    with pytest.raises(UserError, match=r"columns: \{prompt: instruction, chosen: output.0, rejected: output.1\}"):
        import_pairs(rows)
    if way == "parquet":
        pl.DataFrame(rows).write_parquet(tmp_path / "x.parquet")
        rows = tmp_path / "x.parquet"
    pairs = import_pairs(rows, columns=columns)
    (row,) = pairs.table.to_pylist()
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("better", "worse")
    assert pairs.counts.noticed == {}


@pytest.mark.parametrize("name", ["answer", "final_answer", "Gold", "ground-truth", "target", "solution", "label"])
def test_answers_are_found_under_their_usual_names_and_the_user_is_told(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"question": "q", name: 7}])
    loaded = load_prompts(path)
    assert loaded.table["answer"].to_pylist() == ["7"]
    assert bool(loaded.warnings) == (name != "answer")


def test_a_cell_of_a_csv_file_is_the_text_that_stands_there(tmp_path: Path) -> None:
    cells = ["12:30", "007", "3.10", "true", "NA", "1e5", "2024-01-02", "null", '"a, ""b""\nc"']
    (tmp_path / "x.csv").write_text(
        "\ufeffquestion,answer\n" + "".join(f"q{i},{cell}\n" for i, cell in enumerate(cells))
    )
    found = prompts(str(tmp_path / "x.csv"))
    assert [p.answer for p in found] == [*cells[:-1], 'a, "b"\nc']
    assert found[0].messages[0]["content"] == "q0"


def test_rows_of_a_csv_file_with_too_many_cells_are_counted_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('question,answer\n"two\nlines",1\na,b,c\nlast,2\n')
    loaded = load_prompts(str(tmp_path / "x.csv"))
    assert loaded.table["answer"].to_pylist() == ["1", "2"]
    assert loaded.warnings == [
        "1 of 3 rows cannot be read (1 3 cells where there are 2 columns), the first at x.csv line 4."
    ]


def test_the_encoding_of_a_csv_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("question,answer\nWo ist Köln?,am Rhein\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8: line 2 holds the byte 0xf6.*Latin-1") as caught:
        load_prompts(str(tmp_path / "x.csv"))
    assert "iconv -f ISO-8859-1 -t UTF-8" in caught.value.problems[0].fix
    (tmp_path / "y.csv").write_bytes("question,answer\n中国的首都是哪里,北京\n".encode("gb18030"))
    with pytest.raises(UserError, match="GB18030"):
        load_prompts(str(tmp_path / "y.csv"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "lines.json"])
def test_byte_order_marks_are_no_part_of_the_data(name: str, encoding: str, tmp_path: Path) -> None:
    rows = [{"question": f"Größe {i}?", "answer": f"{i}"} for i in range(3)]
    text = {
        "x.csv": "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in rows),
        "x.json": json.dumps(rows, ensure_ascii=False, indent=1),
    }.get(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert [p.answer for p in prompts(str(tmp_path / name))] == ["0", "1", "2"]
    assert prompts(str(tmp_path / name))[0].messages[0]["content"] == "Größe 0?"


def test_json_lines_may_be_called_json_for_pairs_too(tmp_path: Path) -> None:
    rows = [{"prompt": q, "chosen": "a", "rejected": "b"} for q in "xy"]
    assert import_pairs(write(tmp_path / "x.json", rows)).counts.kept["pair"] == 2


@pytest.mark.parametrize("kind", ["prompts", "pairs"])
def test_broken_lines_are_named_by_their_numbers(kind: str, tmp_path: Path) -> None:
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    lines = [
        json.dumps(good).encode(),
        b"[" * 100_000,
        '{"prompt": "Köln", "chosen": "a", "rejected": "b"}'.encode("latin-1"),
        b'{"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": ' + b"9" * 400 + b"}",
        json.dumps({**good, "prompt": "digits " + "7" * 400}).encode(),
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    reasons = {"not JSON": 1, "not Unicode": 1, "a number too large": 1}
    if kind == "pairs":
        counts = import_pairs(tmp_path / "x.jsonl").counts
        assert (counts.given["row"], counts.kept["row"], counts.dropped["row"]) == (5, 2, reasons)
        return
    loaded = load_prompts(str(tmp_path / "x.jsonl"))
    assert (loaded.counts["rows_in"], loaded.counts["kept"], loaded.counts["dropped"]) == (5, 2, reasons)
    assert loaded.warnings[0].startswith("3 of 5 rows cannot be read (")
    assert "the first at x.jsonl line 2, x.jsonl line 3, x.jsonl line 4." in loaded.warnings[0]


@pytest.mark.parametrize("good, bad", [("true", "false"), (1, 0), ("True", "False"), ("good", "bad"), (True, False)])
def test_labels_written_as_texts_or_numbers_are_read(good: Any, bad: Any) -> None:
    rows = [{"prompt": "q", "completion": text, "label": label} for text, label in (("a", good), ("b", bad))]
    (row,) = import_pairs(rows).table.to_pylist()
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("a", "b")


def test_labels_of_one_class_are_refused() -> None:
    rows = [{"prompt": q, "completion": "a", "label": "true"} for q in "xy"]
    with pytest.raises(UserError, match="All 2 responses are labeled good"):
        import_pairs(rows)
