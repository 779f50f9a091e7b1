"""Reasoning split from the final text, literally."""

from __future__ import annotations

import pytest

from w2s_align.generation.reasoning import Splitter

WHOLE = "<think>\nTwo and two.\n</think>\n\nFour."


@pytest.mark.parametrize(
    ("thinking", "text", "reasoning"),
    [("keep", WHOLE, None), ("strip", "Four.", None), ("separate", "Four.", "Two and two.")],
)
def test_what_happens_to_reasoning(thinking: str, text: str, reasoning: str | None) -> None:
    assert Splitter(thinking).split(WHOLE) == (text, reasoning, "whole")


@pytest.mark.parametrize(
    ("thinking", "text", "reasoning"),
    [("keep", "<think>\nTwo and", None), ("strip", "", None), ("separate", "", "Two and")],
)
def test_reasoning_without_an_end(thinking: str, text: str, reasoning: str | None) -> None:
    assert Splitter(thinking).split("<think>\nTwo and") == (text, reasoning, "cut_off")


def test_reasoning_that_the_prompt_opens() -> None:
    opened = {"opening": "<think>\n"}
    assert Splitter("separate", **opened).split("Two and two.\n</think>\n\nFour.") == (
        "Four.",
        "Two and two.",
        "whole",
    )
    assert Splitter("keep", **opened).split("Two and two.\n</think>\n\nFour.") == (WHOLE, None, "whole")
    assert Splitter("separate", **opened).split("Two and") == ("", "Two and", "cut_off")


def test_a_closing_tag_alone_ends_reasoning_that_a_server_opened() -> None:
    assert Splitter("separate").split("Two and two.\n</think>\n\nFour.") == ("Four.", "Two and two.", "whole")


def test_a_response_without_reasoning_stays_as_it_is() -> None:
    for thinking in ("keep", "strip", "separate"):
        assert Splitter(thinking).split("\nFour.\n") == ("\nFour.\n", None, None)
        assert Splitter(thinking).split("Use <think> here.") == ("Use <think> here.", None, None)


def test_empty_reasoning_is_kept_as_such() -> None:
    assert Splitter("separate").split("<think>\n\n</think>\n\nFour.") == ("Four.", "", "whole")


def test_a_prefill_is_part_of_the_response() -> None:
    assert Splitter("keep", opening="Sure,").split(" four.") == ("Sure, four.", None, None)
    assert Splitter("separate", opening="<think>\nFirst,").split(" two.\n</think>\n\nFour.") == (
        "Four.",
        "First, two.",
        "whole",
    )


def test_other_tags() -> None:
    assert Splitter("separate", ("<reasoning>", "</reasoning>")).split("<reasoning>a</reasoning>b") == (
        "b",
        "a",
        "whole",
    )
