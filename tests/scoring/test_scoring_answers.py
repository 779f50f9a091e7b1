"""Where the final answer of a response is, and when two answers are the same."""

import pytest

from w2s_align.scoring.answers import extract_answer, is_number, normalize_answer, parse_number, same_number


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("So 3 + 4 = 7.\n#### 7", "7", "7"),
        ("#### 7\nwait, again\n#### 1,234", "8", "1,234"),
        ("<think>#### 9</think> It is 12.", "12", "12"),
        ("<answer>no</answer> then <answer> yes </answer>", "yes", "yes"),
        (r"Hence \boxed{\frac{1}{2}}", "x", r"\frac{1}{2}"),
        (r"Hence \boxed{\frac{1}{2}}", "0.5", "1/2"),
        (r"\boxed{a_{1}} and \boxed{b_{2}}", "x", "b_{2}"),
        (r"\boxed{never closed", "x", r"\boxed{never closed"),
        ("The answer is 42. Let me know if 7 helps.", "5", "42"),
        ("The final answer to the question is Paris. Bye.", "Rome", "Paris"),
        ("**Answer:** $18", "3", "$18"),
        ("Answer:\n-3.5", "3", "-3.5"),
        ("- 5 apples", "5", "5"),
        ("we add 10-4 to x2", "6", "4"),
        ("I have 1, 2 and 3 of them", "3", "3"),
        ("nothing here", "3", None),
        ("", "word", None),
        ("first\nsecond line", "word", "second line"),
        ("a\nb\n\nc", "x\ny", "b\nc"),
        ("costs $1,234.50 in all", "1", "$1,234.50"),
    ],
)
def test_extract_answer(text, gold, expected):
    assert extract_answer(text, gold) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", 1234),
        ("$5", 5),
        ("-$5", -5),
        ("−7", -7),
        ("50%", 50),
        ("1/4", 0.25),
        (r"\frac{3}{4}", 0.75),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("42.", 42),
        ("$42$", 42),
        ("1{,}000", 1000),
        ("1/0", None),
        ("12 apples", None),
        ("1,2", None),
        ("abc", None),
        ("", None),
    ],
)
def test_parse_number(text, value):
    assert parse_number(text) == value
    assert is_number(text) is (value is not None)


def test_whole_numbers_are_compared_exactly():
    assert not same_number(10_000_000, 10_000_001)
    assert same_number(1 / 3, 0.3333333)
    assert not same_number(0.33, 1 / 3)
    assert not same_number(10**400, 1.5)


def test_a_runaway_number_costs_nothing():
    assert parse_number("9" * 5000) == float("inf")
    assert extract_answer("9" * 1_000_000, "5") is not None


@pytest.mark.parametrize(
    ("left", "right"),
    [("**Paris**.", "paris"), ("$1,000$", "1000"), ("A  B\n", "a b"), ("“x”", "“x”"), (r"\text{blue}", "Blue")],
)
def test_normalize_answer(left, right):
    assert normalize_answer(left) == normalize_answer(right)


def test_normalize_answer_keeps_differences():
    assert normalize_answer("1,2") != normalize_answer("12")
