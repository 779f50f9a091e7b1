"""Verifiable instructions by hand: one text that follows and one that does not, for every kind."""

import pytest

from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score
from w2s_align.scoring.instructions import CHECKS, LANGUAGE, follows
from w2s_align.scoring.scorers.instructions import InstructionsScorer

CASES = [
    ("keywords:existence", {"keywords": ["Cat", "c++"]}, "a cat writes C++", "a cat"),
    ("keywords:frequency", {"keyword": "go", "frequency": 2, "relation": "at least"}, "Go, go", "go"),
    ("keywords:frequency", {"keyword": "go", "frequency": 2, "relation": "less than"}, "go", "go go"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "a Cat."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "at least"}, "Eve", "Ev"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b-c", "a b"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n***\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well"},
        'a\n\n"Well, b',
        "well\n\nb",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "x\nP. S. y", "x PS y"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "x\np.p.s y", "x\nP.S. y"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n** b\n1. c"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1 a Part 2 b",
        "Part 1 a",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\nx", "<< >>\nx"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi! Say hi."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'x. the end."', "the end. x"),
    ("startend:quotation", {}, '"x"', '"x'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "A BIG dog",
        "A dog",
    ),
    ("change_case:english_capital", {}, "ALL 1", "All"),
    ("change_case:english_lowercase", {}, "all 1", "All"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_every_instruction(name, arguments, good, bad):
    assert follows(name, {**arguments, "unused": None}, good)
    assert not follows(name, arguments, bad)
    assert not follows(name, arguments, " \n")


def test_every_instruction_has_a_case():
    assert {name for name, *_ in CASES} | {LANGUAGE} == set(CHECKS)  # the one that needs a package has its own test


def test_loose_forgives_a_line_of_introduction_and_asterisks():
    lower = ("change_case:english_lowercase", {})
    assert not follows(*lower, "Sure:\nall lower") and follows(*lower, "Sure:\nall lower", loose=True)
    assert follows(*lower, "Sure:\nall lower\nBye", loose=True)
    ends = ("startend:end_checker", {"end_phrase": "done"})
    assert not follows(*ends, "**done**") and follows(*ends, "**done**", loose=True)


def test_languages_are_told_by_langdetect_or_are_unscored(monkeypatch):
    pytest.importorskip("langdetect")
    german = "Die Antwort ist, dass man die zwei Zahlen addiert und das Ergebnis aufschreibt."
    assert follows(LANGUAGE, {"language": "de"}, german) and not follows(LANGUAGE, {"language": "en"}, german)
    assert follows(LANGUAGE, {"language": "en"}, "12 + 4 = 16")  # no language is found: as in IFEval, that counts


def test_scorer(monkeypatch):
    monkeypatch.setattr("w2s_align.scoring.scorers.instructions.find_spec", lambda name: None)
    meta = {
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"num_words": 3, "relation": "at least"}],
    }
    prompt = Prompt.of("q", meta=meta)
    unknown = Prompt.of(
        "r", meta={"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]}
    )
    broken = Prompt.of("s", meta={"instruction_id_list": ["keywords:existence"], "kwargs": [{}]})
    plain = Prompt.of("t")
    texts = ["<think>a, b</think>one two three", "one, two three", "one, two"]
    responses = [Response(prompt.id, i, "m", text) for i, text in enumerate(texts)]
    responses += [Response(other.id, 0, "m", "x") for other in (unknown, broken, plain)]
    tables = to_table([prompt, unknown, broken, plain]), to_table(responses)
    strict = score(*tables, "instructions")
    assert strict.table["value"].to_pylist() == [1.0, 0.0, 0.0, None, None, None]
    assert strict.unscored == {
        "keywords:existence lacks keywords": 1,
        "no instructions": 1,
        "language:response_language needs the package langdetect": 1,
    }
    share = score(*tables, InstructionsScorer(value="fraction")).table["value"].to_pylist()
    assert share[:3] == [1.0, 0.5, 0.0]
    assert score(*tables, "auto").table["detail"][1].as_py() == "instructions: not followed: punctuation:no_comma"
