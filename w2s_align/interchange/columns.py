"""Which column holds what: the names in use, and the mapping to write where the names are others.

One table per kind of data. Names are compared without case, hyphens, underscores and spaces, so that
``chosen-rating`` and ``Chosen Rating`` are ``chosen_rating``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

Layout: TypeAlias = Literal["pairs", "ratings", "labels", "compared"]

MEASURES = ("score", "rating", "avg_rating", "average_rating", "mean_rating", "overall_score", "avg_score", "reward")
"""What the number of a chosen or rejected response is called, before or after the name of the side."""


def _of_side(side: str, words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for word in words for name in (f"{word}_{side}", f"{side}_{word}"))


SYSTEM = ("system_prompt", "system", "system_message")
INPUT = ("input", "context")
"""What belongs to an instruction (Alpaca, Dolly), and is read with a prompt of :data:`INSTRUCTIONS` only."""
HISTORY = ("history",)
"""Earlier turns: pairs of a question and its answer (LLaMA-Factory's Alpaca format), or messages."""
INSTRUCTIONS = ("instruction", "prompt")
"""Prompts that an ``input`` completes."""
TASK = ("task", "source", "dataset", "category")

PROMPTS: dict[str, tuple[str, ...]] = {
    "prompt": ("messages", "prompt", "question", "problem", "instruction", "conversations"),
    "answer": (
        "answer", "final_answer", "gold", "gold_answer", "golden_answer", "ground_truth", "correct_answer",
        "expected_answer", "reference_answer", "target", "solution", "label",
    ),
    "group": (),
    "id": (),
    "system": SYSTEM,
    "input": INPUT,
    "history": HISTORY,
}  # fmt: skip
"""Columns of prompts, each under the names by which it is found, the first that is there."""

NAMES: dict[Layout, dict[str, tuple[str, ...]]] = {
    "pairs": {
        "prompt": ("prompt", "conversations", "instruction", "question"),
        "system": SYSTEM,
        "input": INPUT,
        "history": HISTORY,
        "chosen": ("chosen", "chosen_response", "response_chosen", "preferred", "preferred_response"),
        "rejected": ("rejected", "rejected_response", "response_rejected", "dispreferred", "dispreferred_response"),
        "score_chosen": _of_side("chosen", MEASURES),
        "score_rejected": _of_side("rejected", MEASURES),
        "chosen_model": _of_side("chosen", ("model", "model_name", "generation_model")),
        "rejected_model": _of_side("rejected", ("model", "model_name", "generation_model")),
        "task": TASK,
    },
    "ratings": {
        "prompt": ("instruction", "prompt", "question"),
        "system": SYSTEM,
        "input": INPUT,
        "history": HISTORY,
        "responses": ("generations", "responses"),
        "ratings": ("ratings", "scores", "rewards"),
        "models": ("generation_models", "models"),
        "completions": ("completions",),
        "task": TASK,
    },
    "labels": {
        "prompt": ("prompt", "instruction", "question"),
        "system": SYSTEM,
        "input": INPUT,
        "history": HISTORY,
        "completion": ("completion", "response"),
        "label": ("label",),
        "model": ("model", "model_name"),
        "task": TASK,
    },
    "compared": {
        "prompt": ("prompt", "instruction", "question"),
        "system": SYSTEM,
        "input": INPUT,
        "history": HISTORY,
        "first": ("response_0", "response_a", "conversation_a", "answer_a", "output_a", "completion_a"),
        "second": ("response_1", "response_b", "conversation_b", "answer_b", "output_b", "completion_b"),
        "winner": ("winner", "better_response_id", "preference", "preferred"),
        "first_model": ("model_a", "response_0_source", "model_0"),
        "second_model": ("model_b", "response_1_source", "model_1"),
        "task": TASK,
    },
}
"""For each layout of preference data its columns, each under the names by which it is found."""

GUESSES: dict[str, tuple[str, ...]] = {
    "prompt": ("input", "query", "user", "user_prompt", "problem", "text", "context", "request", "messages"),
    "chosen": ("better", "good", "best", "winner", "win", "accepted", "positive", "chosen_answer", "answer_chosen"),
    "rejected": ("worse", "bad", "worst", "loser", "lose", "declined", "negative", "rejected_answer"),
    "winner": ("safer_response_id", "label", "choice", "chosen", "better"),
    "completion": ("output", "answer", "generation", "text"),
    "label": ("labels", "desirable", "is_good", "good", "kto_tag", "thumbs_up"),
    "responses": ("outputs", "answers", "candidates", "completions"),
    "ratings": ("rating", "score", "grades"),
}
"""What these columns could be called besides; never read without a word from the user, only proposed to them."""


def normal(name: str) -> str:
    """Return a column's name as it is compared."""
    return "".join(char for char in name.casefold() if char not in "-_ ")


def find_columns(table: Mapping[str, tuple[str, ...]], columns: Collection[str]) -> dict[str, str]:
    """Return for each entry of a table the column of the data that holds it, where there is one.

    Args:
        table: For each entry the names under which it is found.
        columns: The columns that there are.
    """
    there: dict[str, str] = {}
    for column in columns:
        there.setdefault(normal(column), column)
    exact = set(columns)
    found = {
        role: next((n if n in exact else there[normal(n)] for n in names if n in exact or normal(n) in there), None)
        for role, names in table.items()
    }
    mapping = {role: column for role, column in found.items() if column is not None}
    if normal(mapping.get("prompt", "")) not in INSTRUCTIONS:
        mapping.pop("input", None)
    return mapping


def cell(row: Mapping[str, Any], column: str) -> Any:
    """Return what a row holds in a column, or inside of one: ``output.0`` and ``output[0]`` are the first entry of a
    list, ``meta.gold`` an entry of an object; None where there is nothing."""
    if column in row:
        return row[column]
    first, *rest = _steps(column)
    value = row.get(first)
    for step in rest:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def base(column: str, columns: Collection[str]) -> str:
    """Return the column of the data that :func:`cell` looks into."""
    return column if column in columns else _steps(column)[0]


def _steps(column: str) -> list[str]:
    return column.replace("[", ".").replace("]", "").split(".")


def proposed(needed: Collection[str], found: Mapping[str, str], row: Mapping[str, Any]) -> str | None:
    """Return the option ``columns:`` that would name what was not found, as one writes it in a recipe.

    Args:
        needed: The entries without which the data cannot be read.
        found: Those that were found.
        row: A row of the data.

    Returns:
        For example ``columns: {prompt: input}``; None where no column comes into question.
    """
    names = {normal(column): column for column in row}
    free = [column for column in row if column not in found.values()]
    mapping: dict[str, str] = {}
    if {"chosen", "rejected"} <= set(needed) and not {"chosen", "rejected"} & set(found):
        two = next((c for c in free if isinstance(row[c], list) and len(row[c]) == 2 and _is_text(row[c][0])), None)
        if two:
            mapping = {"chosen": f"{two}.0", "rejected": f"{two}.1"}
            free.remove(two)
    for role in needed:
        if role in found or role in mapping:
            continue
        guess = next((names[normal(n)] for n in GUESSES.get(role, ()) if names.get(normal(n)) in free), None)
        if guess is None and role == "prompt":
            guess = next((column for column in free if _is_text(row[column])), None)
        if guess is None:
            return None
        mapping[role] = guess
        free.remove(guess)
    everything = {role: column for role, column in found.items() if role in needed} | mapping
    shown = everything if "chosen" in mapping else mapping
    pairs = ", ".join(f"{role}: {shown[role]}" for role in needed if role in shown)
    return f"columns: {{{pairs}}}" if mapping else None


def _is_text(value: Any) -> bool:
    """Say whether a value can be a prompt or a response: a text, or turns."""
    return (isinstance(value, str) and bool(value.strip())) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )
