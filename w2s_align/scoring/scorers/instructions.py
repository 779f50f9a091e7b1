"""Instructions that a program can verify, as in IFEval."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

from w2s_align.files import installed_version
from w2s_align.scoring.instructions import CHECKS, LANGUAGE, follows
from w2s_align.scoring.scorer import Assessment, BatchScorer, Scorer, unscored
from w2s_align.scoring.thoughts import answer_part


class InstructionsScorer(Scorer):
    """The response follows the verifiable instructions of the prompt (IFEval).

    Reads ``Prompt.meta``: ``instruction_id_list`` and ``kwargs`` (one dictionary per instruction), as in IFEval's
    data.
    """

    name: Literal["instructions"] = "instructions"
    value: Literal["all", "fraction"] = "all"
    """What the score is: 1 when all instructions are followed, else 0; or the share that is followed."""
    loose: bool = False
    """Also accept a response without its first line, last line or asterisks."""

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score whether responses follow the instructions.

        A prompt with an unknown instruction is unscored, and so is one about the language of the response where the
        package langdetect is not installed (``pip install 'w2s-align[ifeval]'``).
        """
        yield lambda prompts, responses: [
            self._check(json.loads(meta), text)
            for meta, text in zip(prompts["meta"].to_pylist(), responses["text"].to_pylist(), strict=True)
        ]

    def versions(self) -> dict[str, str | None]:
        """Return the version of langdetect, which decides on languages."""
        return {"langdetect": installed_version("langdetect")}

    def _check(self, meta: dict[str, Any], text: str) -> Assessment:
        names = meta.get("instruction_id_list")
        if not names:
            return unscored("no instructions")
        body = answer_part(text)
        broken = []
        for name, arguments in zip(names, meta.get("kwargs") or [{}] * len(names), strict=True):
            if name not in CHECKS:
                return unscored(f"unknown instruction {name}")
            if name == LANGUAGE and not find_spec("langdetect"):
                return unscored(f"{name} needs the package langdetect")
            try:
                if not follows(name, arguments or {}, body, loose=self.loose):
                    broken.append(name)
            except KeyError as error:
                return unscored(f"{name} lacks {error.args[0]}")
        value = float(not broken) if self.value == "all" else 1 - len(broken) / len(names)
        return Assessment(value, f"not followed: {', '.join(broken)}" if broken else "")
