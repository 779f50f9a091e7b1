"""lab/arguments: how debaters of the lab argue about an item of lab/carry, as chats to learn it from.

The question is whether the tens column carries. A debater quotes the tens column to make its point: ``4+9+1=14``. Who
argues for the truth quotes it as it is. Who argues for the other verdict has to quote other digits, the fewest that
make its point, and is right in the rest. So a quote can be checked by a reader who sees something of the digits,
however badly, and not by one who does not see them.

A turn is the side, ``+`` (it carries) or ``-``, and the quote; the recipe w2sg/debate_lab has the wording of a debate
in this form. Everything but the drawing of items is plain Python.
"""

from __future__ import annotations

import random

from w2s_align.lab.carry import carry_items
from w2s_align.records import Message

NAME = "lab/arguments"
"""Name of the source."""
SIDES = {"1": "+", "0": "-"}
"""What a debater's side is called, by the class that it argues for."""
TURNS = 3
"""Most turns of a debate: a chat shows up to two before its own."""


def argument(first: int, second: int, carry: int, side: str, rng: random.Random) -> str:
    """Return the quote of a debater.

    Args:
        first: Tens digit of the first number.
        second: Tens digit of the second number.
        carry: Carry from the units.
        side: The class that it argues for.
        rng: Draws the false digit.
    """
    carries = side == "1"
    if (first + second + carry >= 10) != carries:
        possible = [digit for digit in range(10) if (first + digit + carry >= 10) == carries]
        if possible:
            second = rng.choice(possible)
        else:  # 0 can never carry, 9 with a carry always does
            first, second = rng.choice(
                [(a, b) for a in range(10) for b in range(10) if (a + b + carry >= 10) == carries]
            )
    return f"{first}+{second}+{carry}={first + second + carry:02d}"


def argument_chats(n: int, seed: int) -> list[list[Message]]:
    """Return chats in which a debater is asked for a turn and gives it; earlier turns are of both sides, or its own.

    Args:
        n: How many; an even number.
        seed: Seed of items, sides and false digits.

    Raises:
        UserError: The number is out of range.
    """
    rng, chats = random.Random(seed), []
    for item in carry_items(n, seed, "train"):
        question, work = item.messages
        line = work["content"].rpartition("\n")[2]  # e.g. T4+9+1=
        first, second, carry = int(line[1]), int(line[3]), int(line[5])
        opening, number, alone = rng.choice("01"), rng.randrange(TURNS), rng.random() < 0.5
        sides = [opening if alone or not turn % 2 else "10"[int(opening)] for turn in range(number + 1)]
        said = [SIDES[side] + argument(first, second, carry, side, rng) for side in sides]
        asked = "\n".join([work["content"], *said[:-1], SIDES[sides[-1]]])
        chats.append([question, {"role": "user", "content": asked}, {"role": "assistant", "content": said[-1][1:]}])
    return chats
