"""The lab's tasks: problems with one right answer, an author with a known weakness, and an exact check.

Both tasks are 4-digit arithmetic written out column by column from the right. A solution of ``3847+5296``:

    U7+6+0=13       units:     digit + digit + carry = (carry out, digit)
    T4+9+1=14       tens
    H8+2+1=11       hundreds
    K3+5+1=09       thousands
    9143            the answer: the last line, and all that the check looks at

The author's weakness, ``slip``, is the probability of forgetting a carry that is due: the author writes ``+0`` for
``+1`` and continues correctly from there. Nothing else ever goes wrong. In ``lab/subtraction`` the same holds for the
borrow: ``U3-8-0=15`` reads "borrow 1, digit 5". Letters name the columns because a tiny model finds its place by them:
without them two of five seeds had not learnt the task after 600 steps, with them all had.

The author writes each letter in upper or lower case at random, which means nothing. Real responses are never the same
word for word either, and it matters: without it 62% of the pairs of a weak and a weaker model were identical, and
dropping those selects the chosen responses that remembered a carry: even plain fine-tuning on them looked good.

Everything is made in batches with numpy, so that fresh data costs a training step nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2s_align.errors import UserError
from w2s_align.records import Prompt

Split: TypeAlias = Literal["train", "test"]
Numbers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Characters: TypeAlias = NDArray[np.uint8]
"""Texts of one batch as ASCII codes [texts, characters]; 0 fills the end of shorter ones."""

COLUMNS = "UTHK"
"""Letters of the columns: units, tens, hundreds, thousands (K)."""
DIGITS = len(COLUMNS)
"""Digits of every operand."""
TEST_SHARE = 10
"""One operand pair in ten belongs to the test split."""
MAX_PROBLEMS = 1_000_000
"""Most problems of one call: the test split of subtraction has about four million, drawn at random without repeats."""


@dataclass(frozen=True)
class Task:
    """Column arithmetic with one operator.

    Attributes:
        name: As in ``Prompt.task``.
        operator: ``+`` or ``-``.
    """

    name: str
    operator: Literal["+", "-"]

    def draw(self, n: int, rng: np.random.Generator, split: Split) -> tuple[Numbers, Numbers]:
        """Draw ``n`` operand pairs of one split, uniformly, with replacement.

        The split of a pair is a digest of its two numbers, whatever their order, so no draw can mix the splits.

        Args:
            n: Number of pairs.
            rng: Source of randomness.
            split: The split.
        """
        kept_first, kept_second, missing = [], [], n
        while missing > 0:
            size = 64 + missing * (2 if split == "train" else 2 * TEST_SHARE)
            first, second = rng.integers(10 ** (DIGITS - 1), 10**DIGITS, (2, size))
            if self.operator == "-":
                first, second = np.maximum(first, second), np.minimum(first, second)
            keep = np.flatnonzero(_in_test(first, second) == (split == "test"))[:missing]
            kept_first.append(first[keep])
            kept_second.append(second[keep])
            missing -= len(keep)
        return np.concatenate(kept_first), np.concatenate(kept_second)

    def result(self, first: Numbers, second: Numbers) -> Numbers:
        """Return the right answers."""
        return first + second if self.operator == "+" else first - second

    def questions(self, first: Numbers, second: Numbers) -> Characters:
        """Return the texts of the problems, e.g. ``3847+5296``."""
        rows = [_digits(first)[:, ::-1] + ord("0"), _column(first, self.operator), _digits(second)[:, ::-1] + ord("0")]
        return np.concatenate(rows, axis=1).astype(np.uint8)

    def final_lines(self, first: Numbers, second: Numbers, forgets: Flags) -> list[str]:
        """Return the answers of an author who forgets these carries [n, 3]."""
        texts, _ = self.solutions(first, second, forgets, np.zeros((len(first), DIGITS), dtype=bool))
        return [final_line(text) for text in texts_of(texts)]

    def solutions(self, first: Numbers, second: Numbers, forgets: Flags, small: Flags) -> tuple[Characters, Flags]:
        """Write the worked solutions.

        Args:
            first: First operands [n].
            second: Second operands [n].
            forgets: Whether the author forgets the carry into the tens, hundreds, thousands, if one is due [n, 3].
            small: Whether the letters of the columns are lower case [n, 4].

        Returns:
            The texts, and which carries were due in each of them [n, 3], forgotten ones included.
        """
        sign = 1 if self.operator == "+" else -1
        a, b = _digits(first), _digits(second)
        due = np.zeros(len(a), dtype=np.int64)
        lines, answer, were_due = [], [], []
        for i, letter in enumerate(COLUMNS):
            carry = due if i == 0 else np.where(forgets[:, i - 1], 0, due)
            value = a[:, i] + sign * (b[:, i] + carry)
            due, digit = (value // 10, value % 10) if sign == 1 else ((value < 0).astype(np.int64), value % 10)
            were_due.append(due > 0)
            # Always two digits: every line has the same layout, which halves the time to learn it.
            lines.append(np.where(small[:, [i]], ord(letter.lower()), ord(letter)))
            symbols = [a[:, i], self.operator, b[:, i], self.operator, carry, "=", due, digit, "\n"]
            lines += [_column(a, s) if isinstance(s, str) else s[:, None] + ord("0") for s in symbols]
            answer.append(digit)
        # There is never a borrow out of the last column: forgetting one only makes the result larger.
        number = np.stack([due, *answer[::-1]], axis=1)
        texts = np.concatenate([*lines, _without_leading_zeros(number)], axis=1).astype(np.uint8)
        return texts, np.stack(were_due[:-1], axis=1)


def _digits(numbers: Numbers) -> Numbers:
    return (numbers[:, None] // 10 ** np.arange(DIGITS)) % 10


def _column(like: Numbers, character: str) -> Numbers:
    return np.full((len(like), 1), ord(character), dtype=np.int64)


def _without_leading_zeros(digits: Numbers) -> Numbers:
    """Return ASCII codes of the numbers, left-aligned and filled with 0."""
    width = digits.shape[1]
    leading = np.minimum((np.cumsum(digits, axis=1) == 0).sum(axis=1), width - 1)
    source = np.arange(width) + leading[:, None]
    codes = np.take_along_axis(digits, np.minimum(source, width - 1), axis=1) + ord("0")
    return np.where(source < width, codes, 0)


def _in_test(first: Numbers, second: Numbers) -> Flags:
    pair = np.minimum(first, second) * 10**DIGITS + np.maximum(first, second)
    mixed = (pair.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)  # Fibonacci hashing
    return mixed % np.uint64(TEST_SHARE) == 0


def texts_of(characters: Characters) -> list[str]:
    """Return the texts of a batch."""
    return [bytes(row).rstrip(b"\0").decode("ascii") for row in characters]


TASKS: dict[str, Task] = {task.name: task for task in (Task("lab/addition", "+"), Task("lab/subtraction", "-"))}


def find_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        UserError: There is no such task.
    """
    if name not in TASKS:
        raise UserError(f"{name} is not a task of the lab.", fix=f"Available: {', '.join(TASKS)}")
    return TASKS[name]


def problems(task: str, n: int, seed: int, split: Split) -> list[Prompt]:
    """Make ``n`` distinct problems; the same arguments give the same problems, and the splits share none.

    Args:
        task: ``lab/addition`` or ``lab/subtraction``.
        n: How many, at most a million.
        seed: Any number; problems of two seeds may overlap within a split.
        split: ``train`` (which also trains the lab models) or ``test`` (which no lab model has seen).

    Returns:
        Prompts with the gold ``answer``; ``meta["carries"]`` counts the carries (borrows) to remember, 0 to 3;
        ``group`` is the same for the two orders of the operands.

    Raises:
        UserError: Unknown task or split, or ``n`` out of range.
    """
    found = find_task(task)
    if split not in ("train", "test"):
        raise UserError(f"{split} is not a split of {task}.", fix="Available: train, test.")
    if not 1 <= n <= MAX_PROBLEMS:
        raise UserError(f"{n} problems of {task} cannot be drawn.", fix=f"Give a number from 1 to {MAX_PROBLEMS:,}.")
    first, second = draw_different(found, n, np.random.default_rng(seed), split)
    never = np.zeros((n, DIGITS), dtype=bool)
    _, due = found.solutions(first, second, forgets=never[:, 1:], small=never)
    questions, answers = texts_of(found.questions(first, second)), found.result(first, second)
    return [
        Prompt.of(
            question,
            answer=str(answer),
            task=task,
            group=f"{min(a, b)},{max(a, b)}",
            meta={"carries": int(carries)},
        )
        for question, answer, carries, a, b in zip(questions, answers, due.sum(axis=1), first, second, strict=True)
    ]


def draw_different(task: Task, n: int, rng: np.random.Generator, split: Split) -> tuple[Numbers, Numbers]:
    """Draw ``n`` pairs of which no two have the same numbers in any order.

    Args:
        task: The task.
        n: Number of pairs.
        rng: Source of randomness.
        split: The split.
    """
    first, second = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    while len(first) < n:
        drawn = task.draw(n - len(first), rng, split)
        first, second = np.concatenate([first, drawn[0]]), np.concatenate([second, drawn[1]])
        pair = np.minimum(first, second) * 10**DIGITS + np.maximum(first, second)
        _, earliest = np.unique(pair, return_index=True)
        earliest.sort()
        first, second = first[earliest], second[earliest]
    return first, second


def operands_of(task: Task, prompt: Prompt) -> tuple[int, int] | None:
    """Return the operands of a problem; None where the prompt is no problem of the task."""
    problem = prompt.messages[-1]["content"]
    found = re.fullmatch(rf"([1-9]\d{{3}}){re.escape(task.operator)}([1-9]\d{{3}})", problem, flags=re.ASCII)
    if found is None:
        return None
    first, second = int(found[1]), int(found[2])
    return None if task.operator == "-" and first < second else (first, second)


def final_line(text: str) -> str:
    """Return the answer of a response: its last line, "" when it has none."""
    return text.rstrip().rsplit("\n", 1)[-1].strip()


def check(task: str, prompt: Prompt, text: str | None) -> tuple[float | None, str]:
    """Return whether the last line of a text is the right answer. The working above it does not count.

    The answer is computed from the prompt, so ``Prompt.answer`` may be missing.

    Args:
        task: ``lab/addition`` or ``lab/subtraction``.
        prompt: A problem of the task.
        text: The response, or None when there is none.

    Returns:
        1.0 or 0.0 and the answer that was found; None and a reason when there is no text or the prompt is not a
        problem of the task. A text without an answer is wrong, not unscored.
    """
    found = find_task(task)
    operands = operands_of(found, prompt)
    if operands is None:
        return None, f"not a problem of {task}: {prompt.messages[-1]['content'][:40]!r}"
    if text is None:
        return None, "no response"
    answer = final_line(text)
    right = str(operands[0] + operands[1] if found.operator == "+" else operands[0] - operands[1])
    return float(answer == right), answer[:40] or "no answer"


def wrong_steps(task: str, prompt: Prompt, text: str) -> tuple[int, int] | None:
    """Return how many lines of the working are wrong, and how many lines it has.

    A line is right when its letter, digits and carry are those of the problem and of the line before it *as that is
    written*, and its sum is right: what follows from an earlier mistake is no further one. A missing line is a wrong
    one, and so is a line too many.

    Args:
        task: ``lab/addition`` or ``lab/subtraction``.
        prompt: A problem of the task.
        text: The response.

    Returns:
        Wrong lines and all lines; None when the prompt is not a problem of the task.
    """
    found = find_task(task)
    operands = operands_of(found, prompt)
    if operands is None:
        return None
    sign = 1 if found.operator == "+" else -1
    first, second = (_digits(np.array([number]))[0].tolist() for number in operands)
    lines = text.strip().split("\n")[:-1]  # the last one is the answer
    wrong = abs(len(lines) - DIGITS)
    carry = 0
    for letter, a, b, line in zip(COLUMNS, first, second, lines, strict=False):
        due, digit = divmod(a + sign * (b + carry), 10)
        right = f"{letter}{a}{found.operator}{b}{found.operator}{carry}={abs(due)}{digit}"
        wrong += line.strip().upper() != right
        written = _LINE.fullmatch(line.strip())
        carry = int(written[1]) if written else abs(due)
    return wrong, max(len(lines), DIGITS)


_LINE = re.compile(r".*=([01])\d", flags=re.ASCII)


checkers: dict[str, Callable[[Prompt, str | None], tuple[float | None, str]]] = {
    name: partial(check, name) for name in TASKS
}
"""The check of each task, by ``Prompt.task``."""
