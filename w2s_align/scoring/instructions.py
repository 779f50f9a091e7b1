"""Verifiable instructions in the manner of IFEval (Zhou et al. 2023, arXiv 2311.07911): each is a yes or no about the
text.

Reads a response and the instructions of its prompt, by IFEval's names and arguments, and says which ones it follows.
No download and no model. ``language:response_language`` asks the package langdetect, as IFEval's own code does;
``change_case:english_*`` check the case and not the language; sentences are split by this toolkit's own rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from w2s_align.scoring.sentences import count_sentences

Check = Callable[[str, Mapping[str, Any]], bool]
"""Takes a text and IFEval's arguments; says whether the text follows the instruction."""

_FIXED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
LANGUAGE = "language:response_language"
"""The one kind that needs a package: langdetect."""
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


def follows(instruction: str, arguments: Mapping[str, Any], text: str, *, loose: bool = False) -> bool:
    """Say whether a text follows one instruction.

    Args:
        instruction: IFEval's name, e.g. ``length_constraints:number_words``.
        arguments: IFEval's arguments, e.g. ``{"num_words": 100, "relation": "at least"}``; null ones are ignored.
        text: The response, without its thinking part.
        loose: Also accept it when the text without its first line, its last line, both, or its asterisks follows.

    Raises:
        KeyError: The instruction is unknown, or an argument that it needs is missing.
    """
    check = CHECKS[instruction]
    given = {name: value for name, value in arguments.items() if value is not None}
    variants = _variants(text) if loose else iter([text])
    return any(bool(variant.strip()) and check(variant, given) for variant in variants)


def _variants(text: str) -> Iterator[str]:
    lines = text.split("\n")
    cuts = ("\n".join(lines[start:end]).strip() for start, end in ((1, None), (None, -1), (1, -1)))
    for variant in (text, *cuts):  # as IFEval has it, only what was cut is stripped
        yield variant
        yield variant.replace("*", "")


def _compare(number: int, relation: str, limit: int) -> bool:
    """Compare as IFEval does: ``less than`` or ``at least``."""
    if relation not in ("less than", "at least"):
        raise KeyError(f"relation {relation!r}")
    return number < limit if relation == "less than" else number >= limit


def _paragraphs(text: str, given: Mapping[str, Any]) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner_empty = any(not part.strip() for part in parts[1:-1])
    return not inner_empty and sum(bool(part.strip()) for part in parts) == given["num_paragraphs"]


def _first_word(text: str, given: Mapping[str, Any]) -> bool:
    parts = text.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    wanted = given["nth_paragraph"]
    if wanted > filled or filled != given["num_paragraphs"] or not parts[wanted - 1].strip():
        return False
    word = parts[wanted - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == str(given["first_word"]).lower()


def _highlights(text: str, given: Mapping[str, Any]) -> bool:
    single = sum(bool(found.strip("*").strip()) for found in re.findall(r"\*[^\n*]*\*", text))
    double = sum(bool(found[2:-2].strip()) for found in re.findall(r"\*\*[^\n*]*\*\*", text))
    return single + double >= given["num_highlights"]


def _sections(text: str, given: Mapping[str, Any]) -> bool:
    splitter = given["section_spliter"].strip()  # IFEval's own spelling
    return len(re.findall(rf"\s?{re.escape(splitter)}\s?\d+\s?", text)) >= given["num_sections"]


def _json(text: str, given: Mapping[str, Any]) -> bool:
    body = re.sub(r"^```(?:json|Json|JSON)?|```$", "", text.strip()).strip()
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, given: Mapping[str, Any]) -> bool:
    parts = text.split("******")
    filled = [part.strip() for part in parts if part.strip()]
    inner_empty = any(not part.strip() for part in parts[1:-1])
    return not inner_empty and len(filled) == 2 and filled[0] != filled[1]


def _postscript(text: str, given: Mapping[str, Any]) -> bool:
    marker = given["postscript_marker"]
    pattern = _POSTSCRIPTS.get(marker, re.escape(str(marker).lower()))
    return re.search(pattern, text.lower()) is not None


def _bullets(text: str) -> int:
    stars = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE))


def _capital_words(text: str) -> int:
    """Count words in capitals as NLTK's tokenizer splits them: U.S. and A-B are one word, DON'T and IT'S two."""
    apart = re.sub(r"(n't|'(?:s|m|d|ll|re|ve))\b", r" \1 ", text, flags=re.IGNORECASE)
    return sum(word.isupper() for word in re.findall(r"[\w'](?:[\w'./-]*[\w'])?", apart))


def _speaks(text: str, given: Mapping[str, Any]) -> bool:
    """Say whether langdetect finds the language; as in IFEval, a text of which it knows none counts as right."""
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0  # it draws at random, and a short text would have another language each time
    try:
        return bool(detect(text) == given["language"])
    except LangDetectException:
        return True


def _contains(text: str, word: str) -> bool:
    return re.search(re.escape(word), text, re.IGNORECASE) is not None


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, given: all(_contains(text, word) for word in given["keywords"]),
    "keywords:frequency": lambda text, given: _compare(
        len(re.findall(re.escape(given["keyword"]), text, re.IGNORECASE)), given["relation"], given["frequency"]
    ),
    "keywords:forbidden_words": lambda text, given: (
        not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in given["forbidden_words"])
    ),
    "keywords:letter_frequency": lambda text, given: _compare(
        text.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"]
    ),
    LANGUAGE: _speaks,
    "length_constraints:number_words": lambda text, given: _compare(
        len(re.findall(r"\w+", text)), given["relation"], given["num_words"]
    ),
    "length_constraints:number_sentences": lambda text, given: _compare(
        count_sentences(text), given["relation"], given["num_sentences"]
    ),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, given: (
        len(re.findall(r"\[.*?\]", text)) >= given["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, given: _bullets(text) == given["num_bullets"],
    "detectable_format:constrained_response": lambda text, given: any(answer in text for answer in _FIXED_ANSWERS),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda text, given: any(
        title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text)
    ),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, given: (
        text.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())
    ),
    "startend:end_checker": lambda text, given: (
        text.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())
    ),
    "startend:quotation": lambda text, given: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": lambda text, given: _compare(
        _capital_words(text),
        given["capital_relation"],
        given["capital_frequency"],
    ),
    "change_case:english_capital": lambda text, given: text.isupper(),
    "change_case:english_lowercase": lambda text, given: text.islower(),
    "punctuation:no_comma": lambda text, given: "," not in text,
}
"""IFEval's instructions by name."""
