"""The child process of :mod:`w2s_align.scoring.pool`: checks items that may hang or exhaust memory.

Started as ``python -m w2s_align.scoring.worker MODULE:FUNCTION MEMORY_GB``, where the function returns the check.
Reads one JSON list of items per line on standard input, writes one JSON object per item on standard output:
``{"value": 0.0 or 1.0, "detail": ...}``, or ``{"value": null, ...}``.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from w2s_align.scoring.answers import TAIL_CHARS, extract_answer, gold_answer, stated_answer

Answer = dict[str, Any]


def math_check() -> Callable[[dict[str, str]], Answer]:
    """Return the check of mathematical answers by math-verify; items are ``{"gold": ..., "text": ...}``."""
    from math_verify import parse, verify

    @functools.lru_cache(maxsize=1024)
    def parse_gold(gold: str) -> list[Any]:
        # Without delimiters math-verify does not see LaTeX in a gold answer: \frac13 alone would be unreadable.
        delimited = gold if "$" in gold or "\\boxed" in gold or "\\(" in gold else f"${gold}$"
        return list(parse(delimited, parsing_timeout=None) or parse(gold, parsing_timeout=None))

    def check(item: dict[str, str]) -> Answer:
        gold = parse_gold(gold_answer(item["gold"]))
        if not gold:
            return {"value": None, "detail": "gold cannot be parsed"}
        text = item["text"].rsplit("</think>", 1)[-1][-TAIL_CHARS:]
        stated = stated_answer(text)
        found = parse(f"\\boxed{{{stated}}}", parsing_timeout=None) if stated else []
        found = found or parse(stated or text, parsing_timeout=None)
        if not found:
            return {"value": 0.0, "detail": "no answer found"}
        return {"value": float(verify(gold, found, timeout_seconds=None)), "detail": str(found[-1])}

    return check


def reasoning_gym_check() -> Callable[[dict[str, Any]], Answer]:
    """Return the check by a reasoning-gym data set; items are ``{"dataset", "entry", "text"}``.

    The data sets give partial credit for a right answer inside other words, so the final answer is extracted first and
    only a score of exactly 1 is right.
    """
    from reasoning_gym.factory import get_score_answer_fn

    score_of = functools.cache(get_score_answer_fn)

    def check(item: dict[str, Any]) -> Answer:
        entry = item["entry"]
        answer = extract_answer(item["text"], gold=str(entry.get("answer") or "text"))
        if answer is None:
            return {"value": 0.0, "detail": "no answer found"}
        return {"value": float(score_of(item["dataset"])(answer, entry) == 1.0), "detail": answer}

    return check


def main() -> None:
    """Answer items until standard input ends."""
    (module, _, function), memory_gb = sys.argv[1].partition(":"), float(sys.argv[2])
    limit = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    logging.disable(logging.ERROR)
    # Libraries that print would break the protocol: answers go out on a private copy of standard output.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        check = getattr(importlib.import_module(module), function)()
    except ImportError as error:
        print(json.dumps({"failed": f"cannot import {error.name}"}), file=out, flush=True)
        return
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        for item in json.loads(line):
            try:
                answer = check(item)
            except MemoryError:
                answer = {"failed": f"out of memory ({memory_gb:g} GiB)"}
            except Exception as error:  # whatever a library raises on untrusted text: unscored, with its reason
                answer = {"failed": f"the checker failed: {type(error).__name__}: {str(error)[:200]}"}
            print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
