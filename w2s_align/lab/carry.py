"""lab/carry: a question whose answer a lab model has at its last position, and two supervisors that see less of it.

An item is an addition with its author's work, cut before the token that decides: ``7846+3895``, then ``U6+5+0=11``,
``T4+9+1=``. The class is whether the tens column carries, which is the next token: 1 or 0. Both classes are equally
frequent, columns have large or small letters at random, and no carry is forgotten.

Each item has two views (``meta["views"]``), for supervisors that are about equally good and fail in opposite ways:

    noisy    every digit is replaced by a random one with probability ``noise``: its errors are random
    blind    the second number, and all that follows from it, is "?": its errors are the same in every item

A student that learns from the labels of the first can be right where its supervisor is not, since nothing else
explains the errors; the blind spot of the second can be learned like a rule. Everything is numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from w2s_align.errors import UserError
from w2s_align.lab.tasks import Characters, Numbers, Split, draw_different, find_task, texts_of
from w2s_align.records import VIEWS, Prompt

NAME = "lab/carry"
"""Name of the source, and of the task of its items."""
NOISE = 0.4
"""Probability that a digit is replaced: the best noisy supervisor (.754) is then as good as the best blind one."""
CUT = len("U6+5+0=11\nT4+9+1=")
"""Characters of the author's work that stand in an item."""
MOST_ITEMS = 100_000
"""Most items of one call."""
HIDDEN = ord("?")
"""What a blind supervisor sees in place of a digit."""


def carry_items(n: int, seed: int, split: Split, *, noise: float = NOISE, draws: int = 1) -> list[Prompt]:
    """Make items, half of either class; no two have the same numbers in any order, and the splits share none.

    Args:
        n: How many; an even number.
        seed: Seed of the items and of their noise.
        split: ``train`` or ``test``.
        noise: Probability that a digit is replaced in the view ``noisy``.
        draws: Noisy views of each item: ``noisy``, ``noisy_2``, ``noisy_3``, ...

    Raises:
        UserError: Unknown split, or a number out of range.
    """
    check_options({"noise": noise, "draws": draws})
    if split not in ("train", "test"):
        raise UserError(f"{split} is not a split of {NAME}.", fix="Available: train, test.")
    if not 2 <= n <= MOST_ITEMS or n % 2:
        raise UserError(f"{n} items of {NAME} cannot be drawn.", fix=f"Give an even number from 2 to {MOST_ITEMS:,}.")
    task, rng = find_task("lab/addition"), np.random.default_rng(seed)
    first, second = draw_different(task, 3 * n + 200, rng, split)  # .5 of each class: enough for n / 2 of either
    carries = _carries(first, second)
    kept = np.sort(np.concatenate([np.flatnonzero(carries == which)[: n // 2] for which in (True, False)]))
    first, second, carries = first[kept], second[kept], carries[kept]
    questions = task.questions(first, second)
    small = rng.random((n, 4)) < 0.5
    solutions, _ = task.solutions(first, second, forgets=np.zeros((n, 3), dtype=bool), small=small)
    work = solutions[:, :CUT]
    views = {"blind": _blind(questions, work)}
    for draw in range(draws):
        noisy = _noisy(questions, noise, rng), _noisy(work, noise, rng)
        views["noisy" if draw == 0 else f"noisy_{draw + 1}"] = noisy
    chats = {name: _chats(*parts) for name, parts in views.items()}
    return [
        Prompt.of(
            chat,
            answer=str(int(carry)),
            task=NAME,
            group=f"{min(a, b)},{max(a, b)}",
            meta={VIEWS: {name: texts[row] for name, texts in chats.items()}},
        )
        for row, (chat, carry, a, b) in enumerate(zip(_chats(questions, work), carries, first, second, strict=True))
    ]


def check_options(options: dict[str, float]) -> None:
    """Refuse options that :func:`carry_items` does not take.

    Raises:
        UserError: With those that it takes.
    """
    unknown = options.keys() - {"noise", "draws"}
    if unknown:
        raise UserError(f"{NAME} has no option {', '.join(sorted(unknown))}.", fix="Its options are noise and draws.")
    if not 0 <= options.get("noise", NOISE) <= 1:
        raise UserError(f"noise {options['noise']} is no probability.", fix="Give a number from 0 to 1.")
    draws = options.get("draws", 1)
    if draws != int(draws) or not 1 <= draws <= 64:
        raise UserError(f"draws {draws} is no number of noisy views.", fix="Give a whole number from 1 to 64.")


def _carries(first: Numbers, second: Numbers) -> NDArray[np.bool_]:
    """Return whether the tens column carries."""
    return first % 100 + second % 100 >= 100


def _chats(questions: Characters, work: Characters) -> list[list[dict[str, str]]]:
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        for question, text in zip(texts_of(questions), texts_of(work), strict=True)
    ]


def _noisy(characters: Characters, noise: float, rng: np.random.Generator) -> Characters:
    digits = (characters >= ord("0")) & (characters <= ord("9"))
    replaced = digits & (rng.random(characters.shape) < noise)
    drawn = rng.integers(ord("0"), ord("9") + 1, characters.shape)
    return np.where(replaced, drawn, characters).astype(np.uint8)


def _blind(questions: Characters, work: Characters) -> tuple[Characters, Characters]:
    """Hide the second number, its copies, the result of the units line, and the carry into the tens."""
    hidden_question, hidden_work = questions.copy(), work.copy()
    hidden_question[:, len("7846+") :] = HIDDEN
    for place in (*_places("U6+*+0=**"), *(len("U6+5+0=11\n") + place for place in _places("T4+*+*="))):
        hidden_work[:, place] = HIDDEN
    return hidden_question, hidden_work


def _places(pattern: str) -> list[int]:
    return [place for place, character in enumerate(pattern) if character == "*"]


def best_supervisors(noise: float = NOISE) -> dict[str, float]:
    """Return the accuracy of the best possible supervisors: closed forms, to hold measured ones against.

    ``blind`` knows the first number's tens digit. ``noisy`` reads the tens line, each of its digits replaced with
    probability ``noise`` (what the units line and the question add is left out). Digits are uniform, a carry comes
    from the units in .45, and the classes are equally frequent.

    Args:
        noise: Probability that a digit is replaced.
    """
    a, b, c = np.meshgrid(np.arange(10), np.arange(10), np.arange(2), indexing="ij")
    weight = np.where(c == 1, 0.45, 0.55) / 100
    carry = a + b + c >= 10
    joint = np.stack([np.where(carry == which, weight, 0.0) for which in (False, True)])
    joint = 0.5 * joint / joint.sum(axis=(1, 2, 3), keepdims=True)  # class, a, b, c
    channel = (1 - noise) * np.eye(10) + noise / 10  # true digit, seen digit
    seen = np.einsum("kabc,ax,by,cz->kxyz", joint, channel, channel, channel[:2])
    return {"blind": float(joint.sum(axis=(2, 3)).max(axis=0).sum()), "noisy": float(seen.max(axis=0).sum())}
