"""What a response says after its thoughts: the one place that knows how reasoning models mark them.

Scorers, features, judges and filters read :func:`answer_part`, so that none of them takes a number, a refusal or a
length from the reasoning. A thought that does not end (the token limit cut it) leaves no answer.
"""

from __future__ import annotations

import re

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""How thoughts begin and how they end: DeepSeek and Qwen, Claude's prompts, Mistral, Seed, Kimi, Command A, Sky-T1,
and the channels of gpt-oss. A model with other tags needs one line here."""
_ENDS = re.compile("|".join(re.escape(end) for _, end in TAGS), re.IGNORECASE)
# A tag that a text only talks about (`<think>`, "the <think> tag") opens nothing.
_BEGINS = re.compile(
    rf"(?<![`'\"\w])(?:{'|'.join(re.escape(begin) for begin, _ in TAGS)})(?![`'\"]|\s+(?:tags?|tokens?|blocks?)\b)",
    re.IGNORECASE,
)
MARKS = ("think", "THINK", "Think", "thought", "reasoning", "<|channel|>")
"""Every tag contains one of these: most texts have none, and are not searched further."""
_FIRST = sorted({tag[0] for both in TAGS for tag in both})
"""Single characters are found faster than words: they are looked for first."""
_LEFT_OVER = re.compile(r"<\|(?:return|end|begin_of_solution|end_of_solution|START_RESPONSE|END_RESPONSE)\|>")


def answer_part(text: str) -> str:
    """Return what follows the thoughts of a response, the whole of it where it has none; "" where a thought does not
    end."""
    if not any(first in text for first in _FIRST) or not any(mark in text for mark in MARKS):
        return text
    end = 0
    for match in _ENDS.finditer(text):
        end = match.end()
    rest = text[end:]
    if _BEGINS.search(rest):
        return ""
    return _LEFT_OVER.sub("", rest) if end else rest
