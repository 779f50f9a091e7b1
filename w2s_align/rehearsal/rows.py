"""Rows that stand in for datasets of the hub: made up, in the columns and the format that a recipe expects."""

from __future__ import annotations

import json
import random
from typing import Any, Literal, TypeAlias, cast

Raw = dict[str, Any]
RowFormat: TypeAlias = Literal["prompts", "items", "chats", "pairs", "ratings", "labels"]

POOL = 240
"""Rows of a stand-in dataset, so that a held-out share of it is not empty."""


def stand_in_rows(source: str, columns: dict[str, str], form: RowFormat) -> str:
    """Return JSON lines in the format of a dataset on the hub.

    Args:
        source: The dataset; each has rows of its own.
        columns: Which column holds what, as the recipe says.
        form: Prompts with answers, items of the classes 0 and 1, chats of two turns each, or one of the layouts of
            preference data: pairs (whole chats, as most datasets have them), ratings (two responses with a number
            each), labels (a good and a bad response in two rows).
    """
    rng = random.Random(source)
    words = ("amber", "birch", "coral", "delta", "ember", "fjord", "grove", "heron", "inlet", "jade", "knoll", "larch")

    def named(row: Raw) -> Raw:
        return {columns.get(name, name): value for name, value in row.items()}

    rows: list[Raw] = []
    for number in range(POOL):
        first, second = rng.randrange(10, 100), rng.randrange(10, 100)
        prompt = f"{' '.join(rng.sample(words, 4))}: what is {first} + {second}? ({number})"
        good, bad = (" ".join(rng.sample(words, 5)) for _ in range(2))
        chats = [[_turn("user", prompt), _turn("assistant", text)] for text in (good, bad)]
        if form == "prompts":
            chat = columns.get("prompt") in ("chosen", "messages", "conversations")
            row = {"prompt": chats[0] if chat else prompt, "answer": str(first + second)}
            rows.append(named(row | ({"group": f"group {number % 20}"} if "group" in columns else {})))
        elif form == "items":
            rows.append(named({"prompt": prompt, "answer": str(number % 2)}))
        elif form == "chats":
            rows.append(named({"messages": [*chats[0], _turn("user", "And now?"), _turn("assistant", bad)]}))
        elif form == "pairs":
            row = {"chosen": chats[0], "rejected": chats[1]}
            rows.append(named(row | ({"prompt": prompt} if "prompt" in columns else {})))
        elif form == "labels":
            rows += [named({"prompt": prompt, "completion": text, "label": text == good}) for text in (good, bad)]
        elif "completions" in columns:
            both = [{"response": good, "overall_score": 4}, {"response": bad, "overall_score": 2}]
            rows.append(named({"prompt": prompt, "completions": both}))
        else:
            rows.append(named({"prompt": prompt, "responses": [good, bad], "ratings": [4, 2]}))
    return "".join(json.dumps(row) + "\n" for row in rows)


def row_format(config: Any) -> RowFormat:
    """Return the layout of preference data that the recipe gives, or that its columns imply.

    Args:
        config: An ``import_pairs`` step.
    """
    if config.layout != "auto":
        return cast(RowFormat, config.layout)
    if {"responses", "ratings", "completions"} & config.columns.keys():
        return "ratings"
    return "labels" if {"completion", "label"} & config.columns.keys() else "pairs"


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
