"""The fast searches for phrases and letters find what the plain patterns find."""

import random
import re

import pytest

from w2s_align.scoring import choices, phrases

PIECES = [
    word for words in (phrases.ANSWER_WORDS, phrases.LINKS, phrases.NEGATIONS, phrases.NO_CHOICE) for word in words
]
for table in (
    phrases.EXPLANATION, phrases.CHECKING, phrases.OPTION_WORDS, phrases.RIGHT_WORDS, phrases.CHOOSING,
    phrases.CONCLUDING, "none of these|can't say|kann nicht|final|Final|Question 3|Q|A|B|b|a|I|i|j|C|(D)|E.|12|’|'|x",
    ":|: |=|. |.|。|\n|\n\n|\n- |* |**|> |\t| |  |\r\n|,|!|İ|\u3000|é|是|、",
):  # fmt: skip
    PIECES += [part.replace("?", "") for part in table.split("|")]


def texts():
    rng = random.Random(0)
    for _ in range(400):
        yield "".join(rng.choice(PIECES) + rng.choice(("", " ", " ", "\n")) for _ in range(rng.randrange(1, 40)))


def spans(found):
    return [match.span() for match in found]


def test_phrases_are_found_as_by_finditer():
    seen = 0
    for text in texts():
        assert spans(phrases.answer_phrases(text)) == spans(phrases.ANSWER_PHRASE.finditer(text)), text
        assert list(phrases.explained_from(text)) == [m.start() for m in phrases.AFTERWARDS.finditer(text)], text
        seen += len(phrases.answer_phrases(text))
    assert seen > 100


@pytest.mark.parametrize("letters", [choices.LETTERS, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"])
def test_statements_and_letters_are_found_as_by_finditer(letters):
    patterns = choices._Patterns(letters)
    searches = [*patterns.statements, (choices._NONE_BEGINS, choices._NONE)]
    last, small = letters[-1], letters[-1].lower()
    plain = re.compile(rf"(?<![A-Za-z0-9'’])(?:[A-{last}]|[b-hj-{small}]|a(?!\s+[a-z]))(?![A-Za-z0-9'’])")
    seen = 0
    for text in texts():
        for begins, pattern in searches:
            found = spans(phrases.matches(pattern, begins, text))
            assert found == spans(pattern.finditer(text)), (pattern.pattern, text)
            seen += len(found)
        assert list(choices._places_of_letters(text, patterns)) == [m.start() for m in plain.finditer(text)], text
    assert seen > 100


def test_a_question_of_its_own_is_found_at_the_first_line_and_later():
    states = re.compile("answer")
    text = "The answer is 4.\n\n**Question 2: What?"
    assert phrases.question_end(text, states) == "The answer is 4.\n"
    assert phrases.question_end("Question 1: answer", states) == "Question 1: answer"
    assert phrases.question_end("Q: 4\nthe answer\n# Q: 5", states) == "Q: 4\nthe answer\n"
