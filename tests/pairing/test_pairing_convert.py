"""Other tools' preference data in, other formats out."""

import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import model_order, read_pairs, read_unpaired, to_sft, to_unpaired

U, A = [{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}]
B = [{"role": "assistant", "content": "b"}]
EXPECTED = (U, A, B)


def sides(found):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in found.table.to_pylist()]


@pytest.mark.parametrize(
    ("row", "scores"),
    [
        ({"prompt": U, "chosen": A, "rejected": B}, (None, None)),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, (None, None)),
        ({"chosen": U + A, "rejected": U + B}, (None, None)),
        (
            {
                "prompt": "q",
                "prompt_id": "x",
                "chosen": U + A,
                "rejected": U + B,
                "messages": U + A,
                "score_chosen": 8.0,
                "score_rejected": 5.5,
            },
            (8.0, 5.5),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            },
            (None, None),
        ),
        (
            {
                "instruction": "q",
                "chosen_response": "a",
                "rejected_response": "b",
                "chosen_rating": 5,
                "rejected_rating": 2,
            },
            (5.0, 2.0),
        ),
        ({"instruction": "q", "generations": ["x", "b", "a"], "ratings": [3, 1, 5]}, (5.0, 1.0)),
        ({"prompt": U, "chosen": [{**A[0], "extra": None}], "rejected": B}, (None, None)),
    ],
)
def test_every_layout_is_told_from_its_columns(row, scores):
    found = read_pairs([row])
    assert sides(found) == [EXPECTED]
    made = found.table.to_pylist()[0]
    assert (made["score_chosen"], made["score_rejected"]) == scores
    assert found.counts == {"rows": 1, "rows used": 1, "pairs": 1}


def test_broken_rows_are_counted_and_never_passed_on():
    good = {"chosen": U + A, "rejected": U + B}
    other = [{"role": "user", "content": "other"}]
    rows = [
        good,
        {"chosen": U + A, "rejected": U + A},
        {"chosen": U + A, "rejected": other + B},
        {"chosen": U, "rejected": U},
        {"chosen": U + A, "rejected": [*U, {"role": "user", "content": "b"}]},
        {"chosen": None, "rejected": U + B},
        {"chosen": "the sky", "rejected": "the sky is"},
        {"chosen": U + A, "rejected": [*U, {"role": "assistant", "content": None}]},
        {"chosen": U + A, "rejected": [*U, {"role": "assistant", "content": " "}]},
        {"chosen": A + A, "rejected": A + B},
        good,
    ]
    found = read_pairs(rows)
    assert sides(found) == [EXPECTED, EXPECTED]
    assert found.dropped.to_pylist() == [
        {"row": 1, "reason": "identical responses"},
        {"row": 2, "reason": "the chats differ before the last turn"},
        {"row": 3, "reason": "the chats differ before the last turn"},
        {"row": 4, "reason": "the last turn is not the assistant's"},
        {"row": 5, "reason": "not of the layout implicit: TypeError"},
        {"row": 6, "reason": "two strings without a prompt"},
        {"row": 7, "reason": "a turn without a known role and a text"},
        {"row": 8, "reason": "empty response"},
        {"row": 9, "reason": "the prompt does not end with a user turn"},
    ]
    assert found.counts["rows"] == 11 and found.counts["rows used"] == found.counts["pairs"] == 2
    assert sum(number for name, number in found.counts.items() if name.startswith("dropped: ")) == 9


def test_unknown_columns_are_named():
    with pytest.raises(UserError, match="columns answer, question"):
        read_pairs([{"question": "q", "answer": "a"}])


def test_unpaired_there_and_back(make):
    weak = make.responses([("a", "w", 0, "yes"), ("b", "w", 0, "good")])
    weaker = make.responses([("a", "v", 0, "no"), ("b", "v", 0, "bad")])
    pairs = model_order(weak, weaker, make.prompts("ab")).table
    unpaired = to_unpaired(pairs)
    assert unpaired["label"].to_pylist() == [True, True, False, False]
    assert unpaired["completion"][3].as_py() == [{"role": "assistant", "content": "bad"}]
    more = [
        {"prompt": "alone", "completion": "x", "label": True},
        {"prompt": "alone", "completion": "x", "label": "yes"},
        {"prompt": None, "completion": "x", "label": True},
    ]
    back = read_unpaired([*unpaired.to_pylist(), *more])
    assert sides(back) == [tuple(row[name] for name in ("prompt", "chosen", "rejected")) for row in pairs.to_pylist()]
    reasons = [
        "no completion with the other label",
        "not one completion with a label",
        "not of the unpaired layout: TypeError",
    ]
    assert back.counts == {"rows": 7, "rows used": 4, "pairs": 2, **{f"dropped: {reason}": 1 for reason in reasons}}
    assert back.dropped.to_pylist() == [{"row": 4 + i, "reason": reason} for i, reason in enumerate(reasons)]


def test_trl_agrees_with_the_unpaired_format(make):
    from datasets import Dataset
    from trl import unpair_preference_dataset

    weak, weaker = make.responses([("a", "w", 0, "yes")]), make.responses([("a", "v", 0, "no")])
    pairs = model_order(weak, weaker, make.prompts("a")).table
    own = to_unpaired(pairs)
    theirs = unpair_preference_dataset(Dataset(pairs.select(["prompt", "chosen", "rejected"])))
    assert theirs.to_list() == own.to_pylist()


def test_to_sft(make):
    weak, weaker = make.responses([("a", "w", 0, "yes")]), make.responses([("a", "v", 0, "no")])
    pairs = model_order(weak, weaker, make.prompts("a")).table
    user = {"role": "user", "content": "question a"}
    assert to_sft(pairs).to_pylist() == [{"messages": [user, {"role": "assistant", "content": "yes"}]}]
    assert to_sft(pairs, "rejected")["messages"][0].as_py()[1]["content"] == "no"
