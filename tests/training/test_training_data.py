"""Tokens, masks and counts, as literal tables for the character tokenizer of conftest.py."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.records import Pair, to_table
from w2s_align.training import DPOSettings, SFTSettings
from w2s_align.training.counts import RowCounts
from w2s_align.training.prepare import prepare_chats, prepare_labeled, prepare_pairs
from w2s_align.training.tokens import ChatEncoder

# ids: 0 <pad>, 1 <s>, 2 </s>, 3 <user>, 4 <assistant>, 5 <unk>, then 0-9 are 6-15, + 16, = 17, space 18, newline 19
EOS = 2


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def encoder(tiny):
    """Make an encoder whose template has one text replaced by another."""

    def make(old="", new="", on_problem="error", **changes):
        template = tiny.template.replace(old, new) if old else tiny.template
        return ChatEncoder(tiny.tokenizer(template, **changes), frozenset([EOS]), on_problem=on_problem)

    return make


def pair(prompt, chosen, rejected):
    return {"prompt": [user(prompt)], "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}


def sft(**settings):
    return SFTSettings(learning_rate=1e-3, **settings)


def dpo(**settings):
    return DPOSettings(learning_rate=1e-3, **settings)


def test_only_the_response_carries_loss(tmp_path, encoder):
    data = prepare_chats([{"messages": [user("1+2="), assistant("3")]}], encoder(), sft(), tmp_path)
    assert data.dataset()[:] == {
        "input_ids": [[1, 3, 7, 16, 8, 17, 4, 9, 2]],
        "labels": [[-100, -100, -100, -100, -100, -100, -100, 9, 2]],
    }
    assert data.lengths == {
        "prompt": {"min": 7, "mean": 7, "max": 7, "total": 7},
        "response": {"min": 2, "mean": 2, "max": 2, "total": 2},
    }
    assert data.preview == [
        {
            "row": 0,
            "side": "response",
            "tokens": 9,
            "first": [
                ["<s>", False],
                ["<user>", False],
                ["1", False],
                ["+", False],
                ["2", False],
                ["=", False],
                ["<assistant>", False],
                ["3", True],
                ["</s>", True],
            ],
            "last": [],
        }
    ]


def test_of_several_turns_only_the_last_answer_carries_loss(tmp_path, encoder):
    chat = [user("1"), assistant("2"), user("3"), assistant("4")]
    data = prepare_chats([{"messages": chat}], encoder(), sft(), tmp_path)
    assert data.dataset()[0]["labels"] == [-100] * 9 + [10, 2]


@pytest.mark.parametrize(
    ("row", "side", "response"),
    [
        (pair("1", "2", "3"), "chosen", [8, 2]),
        (pair("1", "2", "3"), "rejected", [9, 2]),
        ({"prompt": [user("1")], "completion": [assistant("4")]}, "chosen", [10, 2]),
        ({"chosen": [user("1"), assistant("2")], "rejected": [user("1"), assistant("3")]}, "rejected", [9, 2]),
    ],
)
def test_formats_of_chats(tmp_path, encoder, row, side, response):
    data = prepare_chats([row], encoder(), sft(), tmp_path, side=side)
    assert data.dataset()[0]["labels"][-2:] == response


def test_a_true_end_of_sequence_is_trained_when_pad_equals_it(tmp_path, encoder):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    chats = [{"messages": [user("1"), assistant("2")]}, {"messages": [user("1"), assistant("234")]}]
    data = prepare_chats(chats, encoder(pad_token="</s>"), sft(), tmp_path)
    batch = DataCollatorForLanguageModeling(pad_token_id=EOS)(list(data.dataset()))
    assert batch["input_ids"].tolist() == [[1, 3, 7, 4, 8, 2, 2, 2], [1, 3, 7, 4, 8, 9, 10, 2]]
    assert batch["labels"].tolist() == [[-100] * 4 + [8, 2, -100, -100], [-100] * 4 + [8, 9, 10, 2]]


def test_pairs_of_the_record_schema_in_parquet(tmp_path, encoder):
    record = Pair([user("1")], [assistant("2")], [assistant("3")], "id", "weak", "weaker", 0, 0, None, None, None, "r")
    pq.write_table(to_table([record]), tmp_path / "pairs.parquet")
    data = prepare_pairs(tmp_path / "pairs.parquet", encoder(), dpo(), tmp_path / "cache")
    assert data.dataset()[:] == {key: [value] for key, value in pair("1", "2", "3").items()}


def test_whole_chats_on_both_sides_are_split_at_the_last_turn(tmp_path, encoder):
    rows = [
        {"chosen": [user("1"), assistant("2")], "rejected": [user("1"), assistant("3")]},
        {"chosen": [user("1"), assistant("2")], "rejected": [user("9"), assistant("3")]},
    ]
    data = prepare_pairs(rows, encoder(), dpo(), tmp_path)
    assert data.dataset()[0] == pair("1", "2", "3")
    assert data.counts == RowCounts(rows=2, kept=1, dropped={"different_prompts": 1})


LONG = [pair("1", "2", "3"), pair("1", "22222", "3"), pair("1", "2", "33333"), pair("1", "22222", "33333")]


def test_too_long_rows_are_dropped_and_counted_by_side(tmp_path, encoder):
    rows = [*LONG, pair("123456789", "2", "3")]
    data = prepare_pairs(rows, encoder(), dpo(max_length=8), tmp_path)
    reasons = ("chosen_too_long", "rejected_too_long", "both_too_long", "prompt_too_long")
    assert data.counts == RowCounts(rows=5, kept=1, dropped=dict.fromkeys(reasons, 1))


def test_too_long_rows_are_cut_and_counted_by_side(tmp_path, encoder):
    data = prepare_pairs(LONG, encoder(), dpo(max_length=8, too_long="truncate"), tmp_path)
    assert data.counts == RowCounts(rows=4, kept=4, cut={"chosen": 2, "rejected": 2})
    assert data.lengths["chosen"] == {"min": 2, "mean": 3, "max": 4, "total": 12}
    assert data.longest == 8


def test_a_cut_response_loses_its_end_of_turn(tmp_path, encoder):
    rows = [{"messages": [user("1"), assistant("23456")]}]
    data = prepare_chats(rows, encoder(), sft(max_length=8, too_long="truncate"), tmp_path)
    assert data.dataset()[0] == {"input_ids": [1, 3, 7, 4, 8, 9, 10, 11], "labels": [-100] * 4 + [8, 9, 10, 11]}


def test_too_long_can_be_an_error(tmp_path, encoder):
    with pytest.raises(UserError, match="10 tokens; max_length is 8"):
        prepare_pairs(LONG, encoder(), dpo(max_length=8, too_long="error"), tmp_path)


def test_identical_pairs_are_counted_and_refused_when_there_is_nothing_else(tmp_path, encoder):
    data = prepare_pairs([pair("1", "2", "3"), pair("1", "2", "2")], encoder(), dpo(), tmp_path)
    assert data.counts.identical == 1
    assert data.notes == ["In 1 pairs the chosen response equals the rejected one."]
    with pytest.raises(UserError, match="In all 2 pairs"):
        prepare_pairs([pair("1", "2", "2")] * 2, encoder(), dpo(), tmp_path)


def test_pairs_that_differ_only_beyond_the_cut_are_equal(tmp_path, encoder):
    late = pair("1", "23456", "23457")
    settings = dpo(max_length=8, too_long="truncate")
    data = prepare_pairs([late, pair("1", "2", "3")], encoder(), settings, tmp_path)
    assert (data.counts.identical, data.rows) == (1, 2)
    with pytest.raises(UserError, match=r"In all 2 pairs .* after the template and max_length.*Raise max_length"):
        prepare_pairs([late, late], encoder(), settings, tmp_path)
    assert prepare_pairs([late], encoder(), dpo(max_length=10), tmp_path).counts.identical == 0


def test_good_responses_that_equal_a_bad_one_are_counted_and_refused_when_there_is_nothing_else(tmp_path, encoder):
    options = {"seed": 0, "together": 1}
    settings = dpo(max_length=8, too_long="truncate", batch_size=2)
    late = pair("1", "23456", "23457")
    data = prepare_labeled([late, pair("1", "2", "3")], encoder(), settings, tmp_path, **options)
    assert (data.counts.identical, data.rows) == (1, 4)
    assert data.notes == ["In 1 pairs the chosen response equals the rejected one."]
    with pytest.raises(UserError, match=r"In all 2 pairs .*Raise max_length"):
        prepare_labeled([late, pair("4", "2", "2")], encoder(), settings, tmp_path, **options)
    other = [pair("1", "2", "3"), pair("4", "3", "2"), pair("1", "5", "6")]
    assert prepare_labeled(other, encoder(), settings, tmp_path, **options).counts.identical == 0


def test_pairs_that_the_template_makes_equal_are_equal(tmp_path, encoder):
    trims = encoder("m['content'] }}{{ eos_token", "m['content'] | trim }}{{ eos_token")
    with pytest.raises(UserError, match="In all 1 pairs"):
        prepare_pairs([pair("1", "2", "2 ")], trims, dpo(), tmp_path)


def test_labels_may_be_texts_and_one_class_is_noted(tmp_path, encoder):
    rows = [
        {"prompt": [user("1")], "completion": [assistant(text)], "label": label}
        for text, label in (("2", "true"), ("3", "False"))
    ]
    options = {"seed": 0, "together": 2}
    settings = DPOSettings(learning_rate=1e-3, batch_size=2)
    both = prepare_labeled(rows, encoder(), settings, tmp_path, **options)
    assert sorted(both.dataset()["label"]) == [False, True]
    assert both.notes == []
    one = prepare_labeled([rows[1], rows[1], rows[0] | {"label": "?"}], encoder(), settings, tmp_path, **options)
    assert one.counts.dropped == {"unknown_label": 1}
    assert one.notes == [
        "All 2 responses are labeled bad: there is nothing to tell them from, and training moves all of them down."
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"Needed are prompt \+ chosen \+ rejected"),
        (pa.table({"question": ["a"]}), "The data has the columns question"),
        ([{"prompt": "1", "chosen": "2", "rejected": "3"}], "plain texts where chats belong"),
        ([{"prompt": [], "chosen": [], "rejected": []}], "no row to train on"),
        ([pair("1", "2", "3") | {"tools": "[]"}], "column tools"),
        ("no/such/file.parquet", "has no training data"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path, encoder, rows, message):
    with pytest.raises(UserError, match=message):
        prepare_pairs(rows, encoder(), dpo(), tmp_path)


def test_a_file_that_is_no_parquet(tmp_path, encoder):
    (tmp_path / "pairs.parquet").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        prepare_pairs(tmp_path / "pairs.parquet", encoder(), dpo(), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}", "two BOS"),
        ("{{ eos_token }}", "", "does not end with an end-of-turn"),
        ("{{ eos_token }}", "{{ eos_token }}{{ eos_token }}", "two end-of-turn"),
        ("<assistant>{% endif %}", "<assistant> {% endif %}", "differently alone"),
        ("{{ bos_token }}", "{{ raise_exception('no system turns') }}", "no system turns"),
    ],
)
def test_templates_that_would_break_training_in_silence(tmp_path, encoder, old, new, message):
    with pytest.raises(UserError, match=message):
        prepare_pairs([pair("1", "2", "3")], encoder(old, new), dpo(), tmp_path)


def test_a_template_that_ends_a_turn_with_a_newline_is_fine(tmp_path, encoder):
    newline = encoder("{{ eos_token }}", "{{ eos_token }}{{ '\\n' }}")
    data = prepare_chats([{"messages": [user("1"), assistant("2")]}], newline, sft(), tmp_path)
    assert data.dataset()[0]["labels"] == [-100] * 4 + [8, 2, 19]


def test_problems_can_be_accepted_and_are_noted(tmp_path, encoder):
    lenient = encoder("<assistant>{% endif %}", "<assistant> {% endif %}", on_problem="warn")
    data = prepare_pairs([pair("1", "2", "3")], lenient, dpo(), tmp_path)
    assert len(data.notes) == 1
    assert data.notes[0].startswith("2 rows: The chat template renders the prompt differently alone")


def test_an_end_of_turn_at_which_generation_does_not_stop_is_noted(tmp_path, encoder):
    data = prepare_pairs([pair("1", "2", "3")], encoder("{{ eos_token }}", "<user>"), dpo(), tmp_path)
    assert "2 answers end with '<user>'" in data.notes[0]


def test_the_file_is_named_after_its_content(tmp_path, encoder):
    first = prepare_pairs(LONG, encoder(), dpo(max_length=8, too_long="truncate"), tmp_path)
    again = prepare_pairs(LONG, encoder(), dpo(max_length=8, too_long="truncate", beta=5), tmp_path)
    longer = prepare_pairs(LONG, encoder(), dpo(max_length=9, too_long="truncate"), tmp_path)
    weighted = prepare_pairs(LONG, encoder(), dpo(max_length=8, too_long="truncate"), tmp_path, ld_alpha=0.5)
    assert first.file == again.file
    assert len({first.file, longer.file, weighted.file}) == 3
    assert not list(tmp_path.glob("partial-*"))
