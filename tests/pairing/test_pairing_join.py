"""Several sets of pairs as one: what repeats goes, once; the rest comes in the shares that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import model_order
from w2s_align.pairing.join import NOT_DRAWN, SAME_PAIR, SAME_PROMPT, PairSet, join_pairs
from w2s_align.records import Prompt, Response, to_table


def pair_set(name: str, questions: Sequence[str], better: str = "good") -> PairSet:
    prompts = [Prompt.of(question) for question in questions]
    sides = [
        to_table([Response(p.id, 0, model, f"{model} {i}", finish_reason="stop") for i, p in enumerate(prompts)])
        for model in (better, "bad")
    ]
    pairs = model_order(*sides, to_table(prompts))
    return PairSet(name, pairs.table, pairs.lengths)


LONG = "Please tell me in a few plain words why the sky over the sea is blue in the morning number {}"
FIRST = pair_set("first", [f"first question number {i} about a thing" for i in range(30)] + [LONG.format("one")])
SECOND = pair_set("second", [f"second topic with the number {i} in it" for i in range(9)] + [LONG.format("two!")])


def test_all_pairs_come_set_after_set_and_the_same_pair_once() -> None:
    joined = join_pairs([FIRST, SECOND, FIRST])
    assert joined.tasks.to_pylist() == ["first"] * 31 + ["second"] * 10
    assert joined.counts.dropped == {"pair": {SAME_PAIR: 31}}
    assert (joined.counts.given["pair"], joined.counts.kept["pair"]) == (72, 41)
    assert joined.lengths.num_rows == joined.table.num_rows == 41
    other = pair_set("other", ["first question number 3 about a thing"], better="best")
    assert join_pairs([FIRST, other]).counts.kept["pair"] == 32  # the same prompt with another pair stays


def test_a_prompt_that_nearly_repeats_one_of_an_earlier_set_goes_and_within_a_set_it_stays() -> None:
    joined = join_pairs([FIRST, SECOND], near_duplicate_prompts=0.7)
    assert joined.counts.dropped == {"pair": {SAME_PROMPT: 1}, "prompt": {"no pair was kept": 1}}
    assert joined.dropped["excerpt"].to_pylist() == [f"prompt: {LONG.format('two!')}"]
    turned = join_pairs([SECOND, FIRST], near_duplicate_prompts=0.7)
    assert turned.tasks.to_pylist() == ["second"] * 10 + ["first"] * 30
    twice = pair_set("twice", [LONG.format("three"), LONG.format("four")])
    assert join_pairs([twice, SECOND], near_duplicate_prompts=0.7).tasks.to_pylist() == ["twice"] * 2 + ["second"] * 9


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"counts": [5, 10]}, (5, 10)),
        ({"weights": [2, 1]}, (20, 10)),
        ({"weights": [0.5, 0.5]}, (10, 10)),
        ({}, (31, 10)),
    ],
)
def test_counts_and_weights(options: dict[str, list[float]], sizes: tuple[int, int]) -> None:
    joined = join_pairs([FIRST, SECOND], seed=4, **options)  # type: ignore[arg-type]
    names = joined.tasks.to_pylist()
    assert (names.count("first"), names.count("second")) == sizes
    assert joined.counts.lost("pair", NOT_DRAWN) == 41 - sum(sizes)
    again = join_pairs([FIRST, SECOND], seed=4, **options)  # type: ignore[arg-type]
    assert again.table.equals(joined.table)
    assert len(set(joined.table["prompt_id"].to_pylist())) == sum(sizes)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"second has 10 pairs .* 11 are to be drawn"):
        join_pairs([FIRST, SECOND], counts=[1, 11])
    with pytest.raises(UserError, match="2 sets and 1 counts"):
        join_pairs([FIRST, SECOND], weights=[1])


def test_the_audit_counts_each_set() -> None:
    joined = join_pairs([FIRST, SECOND])
    assert joined.audit().tasks == {"first": 31, "second": 10}
