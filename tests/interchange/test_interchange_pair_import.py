"""Other tools' preference data: every layout, every broken row counted, the same filters and controls as our own."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.interchange import import_pairs, readers, to_unpaired
from w2s_align.pairing import Filters, best_worst, model_order

U, A = [{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}]
B = [{"role": "assistant", "content": "b"}]
SYSTEM = {"role": "system", "content": "be kind"}
ULTRAFEEDBACK = {
    "prompt": "q", "prompt_id": "x", "messages": U + A, "chosen": U + A, "rejected": U + B,
    "score_chosen": 8.0, "score_rejected": 5.5,
}  # fmt: skip
SHAREGPT = {
    "conversations": [{"from": "human", "value": "q"}],
    "chosen": {"from": "gpt", "value": "a"},
    "rejected": {"from": "gpt", "value": "b"},
}
ARGILLA = {
    "instruction": "q", "chosen_response": "a", "rejected_response": "b", "chosen_rating": 5, "rejected_rating": "2",
}  # fmt: skip
COMPLETIONS = [
    {"model": "m1", "response": "b", "overall_score": "1.5", "annotations": {"honesty": {"Rating": "1"}}},
    {"model": "m2", "response": "x", "overall_score": 3, "annotations": None},
    {"model": "m3", "response": "a", "overall_score": 9},
]
LAYOUTS = {
    "explicit messages": ({"prompt": U, "chosen": A, "rejected": B}, (None, None)),
    "explicit strings": ({"prompt": "q", "chosen": "a", "rejected": "b"}, (None, None)),
    "implicit": ({"chosen": U + A, "rejected": U + B}, (None, None)),
    "ultrafeedback binarized": (ULTRAFEEDBACK, (8.0, 5.5)),
    "sharegpt ranking": (SHAREGPT, (None, None)),
    "argilla": (ARGILLA, (5.0, 2.0)),
    "distilabel": ({"instruction": "q", "generations": ["x", "b", "a"], "ratings": [3, 1, 5]}, (5.0, 1.0)),
    "ultrafeedback": ({"instruction": "q", "completions": COMPLETIONS}, (9.0, 1.5)),
    "HH-RLHF": ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}, (None, None)),
    "HH-RLHF with its prompt": (
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a", "rejected": "b"},
        (None, None),
    ),
    "PKU-SafeRLHF": (
        {"prompt": "q", "response_0": "b", "response_1": "a", "better_response_id": 1, "safer_response_id": 0},
        (None, None),
    ),
    "Chatbot Arena": (
        {"model_a": "m", "model_b": "n", "winner": "model_a", "conversation_a": U + A, "conversation_b": U + B},
        (None, None),
    ),
    "extra keys in turns": ({"prompt": U, "chosen": [{**A[0], "extra": None}], "rejected": B}, (None, None)),
}


def sides(pairs):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in pairs.table.to_pylist()]


def broken(pairs):
    return [(row["detail"], row["reason"]) for row in pairs.dropped.to_pylist() if row["unit"] == "row"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["rows", "jsonl", "json", "parquet", "folder"])
def test_every_layout_is_told_from_its_columns_however_it_comes(layout, way, tmp_path):
    row, scores = LAYOUTS[layout]
    source = [row]
    if way in ("jsonl", "folder"):
        source = tmp_path / "data.jsonl"
        source.write_text(json.dumps(row) + "\n")
    elif way == "json":
        source = tmp_path / "data.json"
        source.write_text(json.dumps([row]))
    elif way == "parquet":
        if layout in ("ultrafeedback", "argilla"):  # columns of one type, as in every Parquet file
            row = json.loads(
                json.dumps(row).replace('"overall_score": 3', '"overall_score": "3"').replace("9}", '"9"}')
            )
        source = tmp_path / "data.parquet"
        pq.write_table(pa.Table.from_pylist([row]), source)
    pairs = import_pairs(tmp_path if way == "folder" else source)
    assert sides(pairs) == [(U, A, B)]
    made = pairs.table.to_pylist()[0]
    assert (made["score_chosen"], made["score_rejected"]) == scores
    assert pairs.counts.given["row"] == pairs.counts.kept["row"] == pairs.counts.kept["pair"] == 1
    assert broken(pairs) == []
    if layout == "ultrafeedback":
        assert (made["chosen_model"], made["rejected_model"], made["rule"]) == ("m3", "m1", "best_worst")


def test_system_prompts_and_several_turns_stay():
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, *U]
    rows = [
        {"system": "be kind", "prompt": talk, "chosen": "a", "rejected": "b"},
        {"system": "be kind", "prompt": None, "chosen": [SYSTEM, *U, *A], "rejected": [SYSTEM, *U, *B]},
        {"system": "", "prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    assert sides(import_pairs(rows)) == [([SYSTEM, *talk], A, B), ([SYSTEM, *U], A, B), (U, A, B)]


UNKNOWN_TURN = "a turn without a known role and a text"
BROKEN = [
    ({"prompt": U, "chosen": None, "rejected": B}, "no chosen or no rejected response"),
    ({"prompt": U, "chosen": [], "rejected": B}, "no chosen or no rejected response"),
    ({"prompt": U, "chosen": 5, "rejected": B}, "no chosen or no rejected response"),
    ({"prompt": None, "chosen": "the sky", "rejected": "the sky is"}, "no prompt"),
    ({"prompt": None, "chosen": U + A, "rejected": U[:0] + B}, "the chats differ before the last turn"),
    (
        {"prompt": None, "chosen": U + A, "rejected": [{"role": "user", "content": "other"}, *B]},
        "the chats differ before the last turn",
    ),
    (
        {"prompt": U, "chosen": A + A, "rejected": A + B},
        "a response of several turns that does not contain the prompt",
    ),
    ({"prompt": U, "chosen": U, "rejected": B}, "the last turn is not the assistant's"),
    (
        {"prompt": None, "chosen": U + A, "rejected": [*U, {"role": "user", "content": "b"}]},
        "the last turn is not the assistant's",
    ),
    ({"prompt": [*U, *A], "chosen": A, "rejected": B}, "the prompt does not end with a user turn"),
    ({"prompt": U, "chosen": A, "rejected": [{"role": "robot", "content": "b"}]}, UNKNOWN_TURN),
    ({"prompt": U, "chosen": A, "rejected": [{"role": "assistant", "content": 7}]}, UNKNOWN_TURN),
    ({"prompt": ["q"], "chosen": A, "rejected": B}, UNKNOWN_TURN),
]


@pytest.mark.parametrize("way", ["rows", "jsonl"])
def test_broken_rows_of_mixed_types_are_counted_with_their_lines_and_never_passed_on(way, tmp_path):
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    rows = [good, *[row for row, _ in BROKEN], {**good, "prompt": U}]
    source, unit = rows, "row"
    if way == "jsonl":
        source, unit = tmp_path / "x.jsonl", "x.jsonl line"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = import_pairs(source)
    assert sides(pairs) == [(U, A, B)]  # the second is the same pair once more
    assert pairs.counts.lost("pair", "repeated pair") == 1
    assert broken(pairs) == [(f"{unit} {n}", reason) for n, (_, reason) in enumerate(BROKEN, start=2)]
    assert pairs.counts.given["row"] == pairs.counts.kept["row"] + len(BROKEN) == len(rows)


def test_lines_that_are_no_rows_are_counted_with_their_numbers(tmp_path):
    good = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"})
    lines = [good, '{"prompt": "cut', "", "[1, 2]", good.replace("q", "\\ud800"), good.replace("q", "p"), "null"]
    (tmp_path / "x.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"prompt": "\xff"}\n')
    pairs = import_pairs(tmp_path / "x.jsonl")
    assert broken(pairs) == [
        ("x.jsonl line 2", "not JSON"),
        ("x.jsonl line 4", "not a JSON object"),
        ("x.jsonl line 5", "not Unicode"),
        ("x.jsonl line 7", "not a JSON object"),
        ("x.jsonl line 8", "not Unicode"),
    ]
    assert pairs.counts.given["row"] == 7 and pairs.counts.kept["pair"] == 2
    assert pairs.dropped.to_pylist()[0]["excerpt"] == '{"prompt": "cut'
    with pytest.raises(UserError, match=r"x\.jsonl line 2 cannot be read: not JSON"):
        import_pairs(tmp_path / "x.jsonl", stop_on_broken=True)
    assert import_pairs(tmp_path / "x.jsonl", limit=3).counts.given["row"] == 3


def test_a_broken_line_in_the_middle_of_many_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BATCH_ROWS", 100)
    rows = [json.dumps({"prompt": f"q{i}", "chosen": f"a{i}", "rejected": "b"}) for i in range(1000)]
    rows[500] = rows[500][:-1]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    pairs = import_pairs(tmp_path / "x.jsonl")
    assert broken(pairs) == [("x.jsonl line 501", "not JSON")]
    assert [row["chosen"][0]["content"] for row in pairs.table.to_pylist()] == [
        f"a{i}" for i in range(1000) if i != 500
    ]
    pq.write_table(
        pa.Table.from_pylist([json.loads(row) for row in rows if row.endswith("}")]), tmp_path / "x.parquet"
    )
    assert import_pairs(tmp_path / "x.parquet").table.equals(pairs.table)


def test_ratings_become_pairs_by_a_rule_and_bad_ratings_are_no_zeros():
    def row(prompt, ratings, **more):
        return {"instruction": prompt, "generations": ["w", "x", "y"], "ratings": ratings, **more}

    rows = [
        row("a", [1, 2, 5]),
        row("b", [float("nan"), 2, "4"]),
        row("c", [3, 3, 3]),
        row("d", [None, None, 1]),
        row("e", [1, 2]),
        row("f", [1, "good", 2], generation_models=["m1", None, "m3"]),
        row("g", 5),
    ]
    pairs = import_pairs(rows)
    short = [(p[-1]["content"], c[0]["content"], r[0]["content"]) for p, c, r in sides(pairs)]
    assert short == [("a", "y", "w"), ("b", "y", "x"), ("f", "y", "w")]
    assert pairs.table["chosen_model"].to_pylist() == ["unknown", "unknown", "m3"]
    assert broken(pairs) == [
        ("row 5", "not as many ratings or models as responses"),
        ("row 7", "no responses or no ratings"),
    ]
    assert pairs.counts.lost("response", "unscored") == 4
    assert pairs.counts.dropped["prompt"] == {
        "one response only": 1,
        "all scores equal": 1,
    }
    assert import_pairs(rows, margin=3).counts.kept["pair"] == 1
    every = import_pairs(rows[:1], rule="score_gap")
    assert [row["delta"] for row in every.table.to_pylist()] == [4, 3, 1]
    random = {
        import_pairs(rows[:1], rule="best_random", seed=s).table["rejected_sample"][0].as_py() for s in range(20)
    }
    assert random == {0, 1}


def test_unpaired_there_and_back(make):
    weak = make.responses([("a", "w", 0, "yes"), ("b", "w", 0, "good")])
    weaker = make.responses([("a", "v", 0, "no"), ("b", "v", 0, "bad")])
    pairs = model_order(weak, weaker, make.prompts("ab"))
    more = [
        {"prompt": "alone", "completion": "x", "label": True},
        {"prompt": "alone", "completion": "y", "label": "perhaps"},
        {"prompt": None, "completion": "x", "label": True},
    ]
    back = import_pairs([*to_unpaired(pairs.table).to_pylist(), *more])
    assert sides(back) == sides(pairs)
    assert broken(back) == [("row 6", "not one completion with a label"), ("row 7", "no prompt")]
    assert back.counts.lost("response", "no response with the other label") == 1
    assert make.dropped(back, "prompt") == {import_pairs_id("alone"): "no response"}


def import_pairs_id(text):
    from w2s_align.records import Prompt

    return Prompt.of(text).id


def test_filters_controls_and_caps_work_as_on_pairs_of_our_own():
    rows = [
        {"prompt": "q", "chosen": "a fine answer", "rejected": "b", "source": "one"},
        {"prompt": "q", "chosen": "I'm sorry, but I can't help.", "rejected": "c", "source": "one"},
        {"prompt": "q", "chosen": "same", "rejected": "Same ", "source": "one"},
        {"prompt": "r", "chosen": "d", "rejected": " ", "source": "two"},
        {"prompt": "s", "chosen": "e", "rejected": "f", "source": "two"},
    ]
    pairs = import_pairs(rows, filters=Filters(refusal=True))
    assert [(c[0]["content"], r[0]["content"]) for _, c, r in sides(pairs)] == [("a fine answer", "b"), ("e", "f")]
    assert pairs.counts.dropped == {
        "pair": {"identical": 1},
        "prompt": {"no response": 1},
        "response": {"empty": 1, "refusal": 1, "the other side is dropped": 2},
    }
    assert pairs.tasks.to_pylist() == ["one", "two"]
    audit = pairs.audit()
    assert "The data does not say which models wrote all of the responses" in " ".join(audit.warnings)
    reversed_pairs = import_pairs(rows, control="reversed")
    assert sides(reversed_pairs)[0][1] == [{"role": "assistant", "content": "b"}]
    assert (
        import_pairs(rows).counts.kept["pair"] == 3 and import_pairs(rows, pairs_per_prompt=1).counts.kept["pair"] == 2
    )
    assert import_pairs(rows, task="mine").tasks.to_pylist() == ["mine"] * 3


def test_two_responses_and_which_is_better():
    def row(winner, **more):
        return {"prompt": f"q{winner}", "response_0": "a", "response_1": "b", "better_response_id": winner, **more}

    rows = [row(0), row("1"), row(1.0), row("response_0"), row(-1), row("tie"), row(None), row(True)]
    pairs = import_pairs(rows)
    assert [(p[0]["content"], c[0]["content"]) for p, c, _ in sides(pairs)] == [
        ("q0", "a"), ("q1", "b"), ("q1.0", "b"), ("qresponse_0", "a"),
    ]  # fmt: skip
    assert broken(pairs) == [(f"row {n}", "neither response is the better one") for n in (5, 6, 7, 8)]
    safer = [row(0, safer_response_id=1)]
    assert sides(import_pairs(safer))[0][1:] == (A, B)
    assert import_pairs(safer).counts.noticed == {"a column that was not read, safer_response_id": 1}
    assert sides(import_pairs(safer, columns={"winner": "safer_response_id"}))[0][1:] == (B, A)
    arena = {
        "winner": "tie (bothbad)",
        "model_a": "m",
        "model_b": "n",
        "conversation_a": U + A,
        "conversation_b": U + B,
    }
    late = {**arena, "winner": "model_b", "conversation_a": U + A + U + A, "conversation_b": U + B + U + B}
    pairs = import_pairs([arena, late, {**arena, "winner": "model_b"}])
    assert broken(pairs) == [
        ("row 1", "neither response is the better one"), ("row 2", "the chats differ before the last turn"),
    ]  # fmt: skip
    assert pairs.table["chosen_model"].to_pylist() == ["n"] and pairs.table["rejected_model"].to_pylist() == ["m"]


def test_chats_in_one_text_are_read_as_turns(tmp_path):
    head = "\n\nHuman: Who?\n\nAssistant: Me.\n\nHuman: Really?\n\nAssistant:"
    rows = [
        {"chosen": f"{head} Yes.\n\nI am.", "rejected": f"{head} No. "},
        {"chosen": f"{head} Yes.", "rejected": "\n\nHuman: Who else?\n\nAssistant: You."},
        {"chosen": f"{head} Yes.\n\nHuman: Well.", "rejected": f"{head} No."},
        {"chosen": f"{head}", "rejected": f"{head} No."},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hh.parquet")
    for source in (rows, tmp_path / "hh.parquet"):
        pairs = import_pairs(source)
        turns = [("user", "Who?"), ("assistant", "Me."), ("user", "Really?")]
        assert sides(pairs) == [
            (
                [{"role": role, "content": text} for role, text in turns],
                [{"role": "assistant", "content": "Yes.\n\nI am."}],
                [{"role": "assistant", "content": "No."}],
            )
        ]
        assert [reason for _, reason in broken(pairs)] == ["the chats differ before the last turn"] * 3


def test_cells_of_a_csv_file_are_texts(tmp_path):
    lines = 'prompt,chosen,rejected,chosen_score\n"1, or\n2?",007,3.10,5\nWhen?,12:30,NA,4\nq,a\nIs it?,true,,1\n'
    (tmp_path / "data.csv").write_text("\ufeff" + lines, encoding="utf-8")
    (tmp_path / "data.tsv").write_text(lines.split("\n", 1)[0].replace(",", "\t") + "\nq\t1,5\tb\t2\n")
    pairs = import_pairs(tmp_path / "data.csv")
    assert [(p[0]["content"], c[0]["content"], r[0]["content"]) for p, c, r in sides(pairs)] == [
        ("1, or\n2?", "007", "3.10"), ("When?", "12:30", "NA"),
    ]  # fmt: skip
    assert broken(pairs) == [("data.csv line 5", "2 cells where there are 4 columns")]
    assert pairs.counts.lost("response", "empty") == 1  # the last row has no rejected response
    assert sides(import_pairs(tmp_path / "data.tsv"))[0][1] == [{"role": "assistant", "content": "1,5"}]


def test_a_data_set_of_the_hub_comes_as_arrow_batches(monkeypatch):
    import datasets

    rows = [{"prompt": f"q{i}", "chosen": U + A, "rejected": U + B, "source": "hub"} for i in range(3)]
    rows = [{**row, "chosen": [{"role": "user", "content": row["prompt"]}, *A]} for row in rows]
    rows = [{**row, "rejected": [{"role": "user", "content": row["prompt"]}, *B]} for row in rows]
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.Dataset.from_list([*rows, {**rows[0], "rejected": None}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    pairs = import_pairs("org/prefs", split="train_prefs", config_name="main", revision="abc")
    assert asked == [(("org/prefs", "main"), {"split": "train_prefs", "revision": "abc"})]
    assert [p[-1]["content"] for p, _, _ in sides(pairs)] == ["q0", "q1", "q2"]
    assert broken(pairs) == [("org/prefs row 4", "no chosen or no rejected response")]


def test_a_later_file_with_other_columns_is_counted(tmp_path):
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    pq.write_table(pa.Table.from_pylist([good]), tmp_path / "1.parquet")
    pq.write_table(pa.Table.from_pylist([{"x": 1}, {"x": 2}]), tmp_path / "2.parquet")
    pairs = import_pairs(tmp_path)
    assert broken(pairs) == [(f"2.parquet row {n}", "no chosen or no rejected response") for n in (1, 2)]
    assert pairs.counts.given["row"] == 3 and pairs.counts.kept["pair"] == 1
    labels = [{"prompt": "q", "completion": text, "label": label} for text, label in (("a", True), ("b", False))]
    pq.write_table(pa.Table.from_pylist(labels), tmp_path / "1.parquet")
    assert broken(import_pairs(tmp_path)) == [
        (f"2.parquet row {n}", "not one completion with a label") for n in (1, 2)
    ]


def test_ids_agree_with_those_of_prompts(make):
    pairs = import_pairs([{"prompt": "question a", "chosen": "x", "rejected": "y"}])
    assert pairs.table["prompt_id"].to_pylist() == [make.id("a")]


def test_imported_ratings_give_what_the_rule_gives_on_tables(make):
    values = [3.0, 1.0, 2.0]
    responses = make.responses([("a", "unknown", s, f"t{s}") for s in range(3)])
    scores = make.scores([("a", "unknown", s, v) for s, v in enumerate(values)], scorer="rating")
    own = best_worst(responses, scores, make.prompts("a"))
    rows = [{"instruction": "question a", "generations": ["t0", "t1", "t2"], "ratings": values}]
    assert import_pairs(rows).table.equals(own.table)


def test_sources_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(UserError, match="columns answer, question do not fit any layout"):
        import_pairs([{"question": "q", "answer": "a"}])
    with pytest.raises(UserError, match="do not fit the layout labels"):
        import_pairs([{"prompt": "q", "chosen": "a", "rejected": "b"}], layout="labels")
    renamed = [{"ask": "q", "good": "a", "bad": "b"}]
    assert sides(import_pairs(renamed, columns={"prompt": "ask", "chosen": "good", "rejected": "bad"})) == [(U, A, B)]
    with pytest.raises(UserError, match="columns cannot map chosen to goood"):
        import_pairs(renamed, columns={"prompt": "ask", "chosen": "goood", "rejected": "bad"})
    with pytest.raises(UserError, match="No data in"):
        import_pairs(tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match="there are no rows"):
        import_pairs(tmp_path / "a.jsonl")
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="several types"):
        import_pairs(tmp_path)
    with pytest.raises(UserError, match=r"b.parquet cannot be read"):
        import_pairs(tmp_path / "b.parquet")
    (tmp_path / "c.json").write_text('{"prompt": "q"}')
    with pytest.raises(UserError, match="not a list of rows"):
        import_pairs(tmp_path / "c.json")
    (tmp_path / "d.xlsx").write_text("prompt,chosen,rejected\n")
    with pytest.raises(UserError, match="unknown file type"):
        import_pairs(tmp_path / "d.xlsx")
    with pytest.raises(UserError, match=r"org/none .* cannot be loaded"):
        import_pairs("org/none")
