"""IFEval's and DROP's checks against lm-eval's own, on some hundred generated texts: where both are installed."""

from __future__ import annotations

import functools
import importlib.util
import random
import sys
import types
from collections.abc import Iterator
from types import ModuleType

import pytest

from w2s_align.scoring.instructions import CHECKS, follows
from w2s_align.scoring.scorers.accepted_answers import overlap

pytest.importorskip("lm_eval")

TEXTS = 300
BOTH = ("at least", "less than")
ARGUMENTS = {
    "keywords:existence": [{"keywords": ["cat", "blue"]}, {"keywords": ["Paris"]}],
    "keywords:frequency": [{"keyword": "cat", "frequency": n, "relation": r} for n in (1, 3) for r in BOTH],
    "keywords:forbidden_words": [{"forbidden_words": ["cat", "sky"]}],
    "keywords:letter_frequency": [{"letter": "e", "let_frequency": 4, "let_relation": r} for r in BOTH],
    "length_constraints:number_words": [{"num_words": 12, "relation": r} for r in BOTH],
    "length_constraints:number_paragraphs": [{"num_paragraphs": n} for n in (1, 2, 3)],
    "length_constraints:nth_paragraph_first_word": [
        {"num_paragraphs": n, "nth_paragraph": i, "first_word": word}
        for n in (1, 2)
        for i in (1, 2)[:n]
        for word in ("cat", "blue")
    ],
    "detectable_content:number_placeholders": [{"num_placeholders": n} for n in (1, 2)],
    "detectable_content:postscript": [{"postscript_marker": m} for m in ("P.S.", "P.P.S")],
    "detectable_format:number_bullet_lists": [{"num_bullets": n} for n in (1, 2)],
    "detectable_format:constrained_response": [{}],
    "detectable_format:number_highlighted_sections": [{"num_highlights": n} for n in (1, 2)],
    "detectable_format:multiple_sections": [
        {"section_spliter": name, "num_sections": n} for name in ("Section", "PART ") for n in (1, 2)
    ],
    "detectable_format:json_format": [{}],
    "detectable_format:title": [{}],
    "combination:two_responses": [{}],
    "combination:repeat_prompt": [{"prompt_to_repeat": "cat is Blue"}],
    "startend:end_checker": [{"end_phrase": "blue sky "}],
    "startend:quotation": [{}],
    "change_case:capital_word_frequency": [
        {"capital_frequency": n, "capital_relation": r} for n in (1, 3) for r in BOTH
    ],
    "punctuation:no_comma": [{}],
}
"""Arguments of every kind that needs neither a detector of languages nor NLTK's rules for sentences."""
ELSEWHERE = {
    "language:response_language",  # theirs ask langdetect without a seed
    "change_case:english_capital",  # theirs ask langdetect
    "change_case:english_lowercase",
    "length_constraints:number_sentences",  # theirs ask NLTK's punkt
}
PIECES = (
    "cat", "Cat", "blue", "sky", "Paris", "is", "tree", "eel", "12", ",", ".", "!", "?", "'cat", '"Blue',
    "cat.", "blue sky", "-", "\n", "\n\n", "\n\n", "***", "\n***\n", "******", "\n* one", "\n- two", "*bold*",
    "**bold**", "* *", "****", "[name]", "[]", "<<Title>>", "<<>>", "<<>a>>", "<< >>", "<<><>>", "P.S. more",
    "p. s. more", "P.P.S more", "p.p. s", "Section 1", "section 2", "PART 1", "PART2", '{"a": 1}', "[1, 2]",
    "```json\n", "```", '"', "My answer is yes.", "My answer is no.", "cat is blue", " ", "  ", "NASA",
    "the U.S.", "U.S.A. ", "DON'T", "IT'S", "I'm", "TOP-10", "A/B", "(USA)", "X1", "OK.",
)  # fmt: skip
SHAPES = (
    "{}",
    '"{}"',
    "```json\n{}\n```",
    "\n\n{}",
    "{}\n\n",
    "cat is blue {}",
    "{} blue sky",
    "Sure:\n{}",
    "{}******{}",
)


def texts(seed: int, spaced: bool = False) -> list[str]:
    rng = random.Random(seed)
    found = []
    for _ in range(TEXTS):
        inner = "".join(
            rng.choice(PIECES) + (" " if spaced else rng.choice(("", " ", " "))) for _ in range(rng.randrange(1, 14))
        )
        found.append(rng.choice(SHAPES).format(inner, inner[::-1]) if rng.random() < 0.6 else inner)
    return found


@pytest.fixture(scope="module")
def theirs() -> Iterator[ModuleType]:
    """lm-eval's checks. What it imports for kinds that are not compared here, and may be absent, is left empty."""
    import nltk

    patch = pytest.MonkeyPatch()
    for name, content in (("langdetect", {}), ("immutabledict", {"immutabledict": dict})):
        if importlib.util.find_spec(name) is None:
            patch.setitem(sys.modules, name, types.ModuleType(name))
            for key, value in content.items():
                setattr(sys.modules[name], key, value)
    patch.setattr(nltk.data, "find", lambda *_: "")  # it would load NLTK's data from the network when it is imported
    patch.setenv("LOCAL_RANK", "1")
    from lm_eval.tasks.ifeval import utils

    patch.undo()
    # Theirs splits into sentences first, for which it needs the data; within a sentence the words are the same.
    patch.setattr(nltk, "word_tokenize", functools.partial(nltk.word_tokenize, preserve_line=True))
    yield utils
    patch.undo()


def test_every_kind_is_compared_or_named() -> None:
    assert ARGUMENTS.keys() | ELSEWHERE == CHECKS.keys()


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_instructions_are_judged_as_by_lm_eval(kind: str, loose: bool, theirs: ModuleType) -> None:
    check = theirs.test_instruction_following_loose if loose else theirs.test_instruction_following_strict
    verdicts = set()
    for number, arguments in enumerate(ARGUMENTS[kind]):
        example = theirs.InputExample(0, [kind], "prompt", [arguments])
        for text in texts(number, spaced="capital" in kind):  # NLTK splits glued words by rules of its own
            expected = check(example, text).follow_instruction_list[0]
            assert follows(kind, arguments, text, loose=loose) == expected, (arguments, text)
            verdicts.add(expected)
    assert verdicts == {True, False}  # else the texts would show nothing


WORDS = (
    "the", "The", "north", "Chicago", "of", "a", "an", "field-goal", "12", "7", "1,000", "1000", "$40", "40", "yards",
    "May", "1999", "U.S.", "3.5%", "35", "3.5", ".5", "-4", "1e3", "nan", "inf", "Bears", "bears", "Bears,", "a.m.",
    "O'Neil", "12-yard", "the-end", "½", "“quoted”", "\n", "x\ny", "12\n", "  ", "-", "it's", "(a)", "1_000",
)  # fmt: skip
"""Numbers in several forms, articles, hyphens, repeated words, and what is nothing without its punctuation."""


def test_drop_scores_as_the_official_function() -> None:
    """lm-eval's is the official one. It rounds to two digits."""
    from lm_eval.tasks.drop.utils import process_results

    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randrange(5)))

    values = []
    for _ in range(4 * TEXTS):
        golds = [tuple(text() for _ in range(rng.choice((1, 1, 1, 2, 3)))) for _ in range(rng.choice((1, 1, 2)))]
        given = rng.choice(golds[0]) if rng.random() < 0.4 else text()
        expected = process_results({"answers": golds}, [given])["f1"]
        found = max(overlap(given, list(gold)) for gold in golds)
        assert found == pytest.approx(expected, abs=0.005001), (given, golds)
        values.append(expected)
    assert {0.0, 0.33, 0.5, 1.0} < set(values)
