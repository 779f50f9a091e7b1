"""The lab's problems, author and check, as literal tables."""

import numpy as np
import pytest
from lab_solutions import write_solution

from w2s_align.errors import UserError
from w2s_align.lab import TASKS, check, checkers, find_task, problems, wrong_steps
from w2s_align.lab.tasks import texts_of
from w2s_align.records import Prompt

NONE, ALL = (False, False, False), (True, True, True)


@pytest.mark.parametrize(
    ("task", "problem", "forgets", "solution"),
    [
        ("lab/addition", "1234+4321", NONE, "U4+1+0=05\nT3+2+0=05\nH2+3+0=05\nK1+4+0=05\n5555"),
        ("lab/addition", "1234+4321", ALL, "U4+1+0=05\nT3+2+0=05\nH2+3+0=05\nK1+4+0=05\n5555"),
        ("lab/addition", "3847+5296", NONE, "U7+6+0=13\nT4+9+1=14\nH8+2+1=11\nK3+5+1=09\n9143"),
        ("lab/addition", "3847+5296", ALL, "U7+6+0=13\nT4+9+0=13\nH8+2+0=10\nK3+5+0=08\n8033"),
        # A carry that is due only because of the carry before it is gone with that one.
        ("lab/addition", "1995+1005", NONE, "U5+5+0=10\nT9+0+1=10\nH9+0+1=10\nK1+1+1=03\n3000"),
        ("lab/addition", "1995+1005", (True, False, False), "U5+5+0=10\nT9+0+0=09\nH9+0+0=09\nK1+1+0=02\n2990"),
        # The carry out of the last column is written down, never forgotten.
        ("lab/addition", "9999+9999", NONE, "U9+9+0=18\nT9+9+1=19\nH9+9+1=19\nK9+9+1=19\n19998"),
        ("lab/addition", "9000+8000", ALL, "U0+0+0=00\nT0+0+0=00\nH0+0+0=00\nK9+8+0=17\n17000"),
        ("lab/subtraction", "5200-4988", NONE, "U0-8-0=12\nT0-8-1=11\nH2-9-1=12\nK5-4-1=00\n212"),
        ("lab/subtraction", "5200-4988", ALL, "U0-8-0=12\nT0-8-0=12\nH2-9-0=13\nK5-4-0=01\n1322"),
        ("lab/subtraction", "4321-4321", NONE, "U1-1-0=00\nT2-2-0=00\nH3-3-0=00\nK4-4-0=00\n0"),
    ],
)
def test_author(task: str, problem: str, forgets: tuple[bool, ...], solution: str) -> None:
    assert write_solution(task, problem, forgets) == solution


@pytest.mark.parametrize("task", ["lab/addition", "lab/subtraction"])
def test_author_without_slips_is_always_right(task: str) -> None:
    for prompt in problems(task, 500, seed=3, split="train"):
        text = write_solution(task, prompt.messages[0]["content"])
        assert text.splitlines()[-1] == prompt.answer == str(_value(prompt.messages[0]["content"]))
        assert check(task, prompt, text) == (1.0, prompt.answer)


@pytest.mark.parametrize("task", ["lab/addition", "lab/subtraction"])
def test_author_who_forgets_every_carry_is_right_exactly_where_none_is_due(task: str) -> None:
    for prompt in problems(task, 500, seed=4, split="test"):
        text = write_solution(task, prompt.messages[0]["content"], ALL)
        assert check(task, prompt, text)[0] == float(prompt.meta["carries"] == 0)


@pytest.mark.parametrize(
    ("problem", "text", "expected"),
    [
        ("3847+5296", "U7+6+0=13\n9143", (1.0, "9143")),
        ("3847+5296", "9143\n", (1.0, "9143")),
        ("3847+5296", "nonsense\n 9143 ", (1.0, "9143")),
        ("3847+5296", "U7+6+0=13\nT4+9+0=13\nH8+2+0=10\nK3+5+0=08\n8033", (0.0, "8033")),
        ("3847+5296", "U7+6+0=13\nT4+9+1=1", (0.0, "T4+9+1=1")),
        ("3847+5296", "9143\n09143", (0.0, "09143")),
        ("3847+5296", "", (0.0, "no answer")),
        ("3847+5296", None, (None, "no response")),
        ("What is 2 + 2?", "4", (None, "not a problem of lab/addition: 'What is 2 + 2?'")),
        ("3847-1296", "2551", (None, "not a problem of lab/addition: '3847-1296'")),
    ],
)
def test_check(problem: str, text: str | None, expected: tuple[float | None, str]) -> None:
    assert check("lab/addition", Prompt.of(problem), text) == expected
    assert checkers["lab/addition"](Prompt.of(problem), text) == expected


def test_problems_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    first = problems("lab/addition", 50, seed=1, split="train")
    assert first == problems("lab/addition", 50, seed=1, split="train")
    assert {p.id for p in first}.isdisjoint(p.id for p in problems("lab/addition", 50, seed=2, split="train"))
    assert first[0].task == "lab/addition"
    # Pinned: a change here changes every published lab number.
    assert [p.messages[0]["content"] for p in first[:3]] == ["5258+7115", "5606+7916", "7796+8996"]


@pytest.mark.parametrize("task", ["lab/addition", "lab/subtraction"])
def test_splits_share_no_problem_not_even_with_the_operands_exchanged(task: str) -> None:
    train, test = (problems(task, 20_000, seed=0, split=split) for split in ("train", "test"))
    assert len({p.id for p in train}) == len({p.group for p in train}) == 20_000
    assert {p.group for p in train}.isdisjoint(p.group for p in test)


def test_training_data_of_the_models_never_touches_the_test_split() -> None:
    test = {p.group for p in problems("lab/addition", 20_000, seed=0, split="test")}
    first, second = TASKS["lab/addition"].draw(200_000, np.random.default_rng(5), "train")
    assert test.isdisjoint(f"{min(a, b)},{max(a, b)}" for a, b in zip(first, second, strict=True))


def test_difficulty_is_spread() -> None:
    carries = np.array([p.meta["carries"] for p in problems("lab/addition", 4000, seed=0, split="test")])
    share = np.bincount(carries, minlength=4) / len(carries)
    # Units carry with probability 0.45, later columns with 0.45 without and 0.55 with a carry coming in.
    one = 0.45 * 0.45 * 0.55 + 0.55 * 0.45 * 0.45 + 0.55 * 0.55 * 0.45
    two = 0.45 * 0.55 * 0.45 + 0.45 * 0.45 * 0.45 + 0.55 * 0.45 * 0.55
    expected = [0.55**3, one, two, 0.45 * 0.55**2]
    assert sum(expected) == pytest.approx(1.0)
    assert share == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lab/additoin", 5, 0, "train"), "is not a task of the lab"),
        (("lab/addition", 5, 0, "dev"), "is not a split"),
        (("lab/addition", 0, 0, "train"), "0 problems"),
    ],
)
def test_wrong_arguments_are_explained(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        problems(*arguments)


@pytest.mark.parametrize("task", ["lab/addition", "lab/subtraction"])
@pytest.mark.parametrize("slip", [0.0, 0.5, 1.0])
def test_wrong_steps_are_the_forgotten_carries_and_nothing_that_follows_from_them(task: str, slip: float) -> None:
    rng, found = np.random.default_rng(0), find_task(task)
    first, second = found.draw(200, rng, "train")
    forgets = rng.random((200, 3)) < slip
    texts, due = found.solutions(first, second, forgets, rng.random((200, 4)) < 0.5)
    for question, text, expected in zip(
        texts_of(found.questions(first, second)), texts_of(texts), (due & forgets).sum(axis=1), strict=True
    ):
        assert wrong_steps(task, Prompt.of(question), text) == (expected, 4)


def test_missing_and_additional_lines_are_wrong_steps() -> None:
    prompt = Prompt.of("1234+1111")
    lines = ["U4+1+0=05", "T3+1+0=04", "H2+1+0=03", "K1+1+0=02", "2345"]
    for text, expected in (
        (lines, (0, 4)),
        (lines[1:], (4, 4)),  # every line stands in the place of another
        ([*lines[:4], "again", "2345"], (1, 5)),
        (["2345"], (4, 4)),
        ([*lines[:1], "T3+2+0=05", *lines[2:]], (1, 4)),
        ([""], (4, 4)),
    ):
        assert wrong_steps("lab/addition", prompt, "\n".join(text)) == expected
    assert wrong_steps("lab/addition", Prompt.of("what?"), "1") is None


def _value(problem: str) -> int:
    for operator, sign in (("+", 1), ("-", -1)):
        if operator in problem:
            first, second = problem.split(operator)
            return int(first) + sign * int(second)
    raise AssertionError(problem)
