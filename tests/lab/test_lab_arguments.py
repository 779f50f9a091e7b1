"""Arguments of the lab's debaters: the truth as it is, a lie in as few digits as it takes, and the chats."""

from __future__ import annotations

import random

import pyarrow as pa

from w2s_align.interchange.chats import import_chats
from w2s_align.lab.arguments import argument, argument_chats


def digits(quote: str) -> tuple[int, int, int, int]:
    column, _, result = quote.partition("=")
    first, second, carry = map(int, column.split("+"))
    return first, second, carry, int(result)


def test_a_quote_makes_its_point_and_only_a_lie_is_false() -> None:
    rng = random.Random(0)
    for first in range(10):
        for second in range(10):
            for carry in (0, 1):
                for side in "01":
                    a, b, c, result = digits(argument(first, second, carry, side, rng))
                    assert a + b + c == result and (result >= 10) == (side == "1") and c == carry
                    if (first + second + carry >= 10) == (side == "1"):
                        assert (a, b) == (first, second)
                    else:
                        cannot = first + carry == 0 if side == "1" else first + carry == 10
                        assert (a == first and b != second) or cannot


def test_chats_ask_for_a_turn_and_give_it_after_up_to_two_others() -> None:
    chats = argument_chats(60, 0)
    assert chats == argument_chats(60, 0) and chats != argument_chats(60, 1)
    turns = set()
    for question, asked, given in chats:
        lines = asked["content"].split("\n")
        turns.add(len(lines) - 3)
        assert lines[1].endswith("=") and lines[-1] in "+-" and question["content"].count("+") == 1
        assert (digits(given["content"])[3] >= 10) == (lines[-1] == "+")
    assert turns == {0, 1, 2}


def test_they_are_a_source_of_chats() -> None:
    found = import_chats("lab/arguments", limit=20)
    assert found.table["messages"].to_pylist() == argument_chats(20, 0) and found.counts["kept"] == 20
    assert isinstance(found.table, pa.Table)
