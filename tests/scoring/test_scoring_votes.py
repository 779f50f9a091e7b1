"""Votes of several answers."""

import pytest

from w2s_align.scoring.votes import final_answer, weighted_vote


def test_final_answer():
    assert [final_answer(text) for text in ("#### 1,000.0", "1/2", None, "none", "it is $5")] == [
        "1000",
        "0.5",
        "",
        "",
        "5",
    ]
    assert final_answer("The answer is **Paris**.", "text") == "paris"


def test_weighted_vote():
    votes = {"x": ["a", "a", None, ""], "y": ["b", "a", "b", None], "z": ["b", "c", None, None]}
    assert weighted_vote(votes) == [("b", pytest.approx(2 / 3)), ("a", pytest.approx(2 / 3)), ("b", 1.0), (None, 0.0)]
    assert weighted_vote(votes, {"x": 3.0, "y": 1.0})[0] == ("a", pytest.approx(3 / 5))
    assert weighted_vote({"x": ["b"], "y": ["a"]}) == [("a", 0.5)]
    with pytest.raises(ValueError):
        weighted_vote({"x": ["a"], "y": []})
    with pytest.raises(ValueError):
        weighted_vote({"x": ["a"]}, {"x": -1.0})
