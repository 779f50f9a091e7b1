"""What all tests share: no network, one thread per process, the helpers in support/, and short-hand tables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from w2s_align.records import Prompt, Response, Score, to_table

sys.path.insert(0, str(Path(__file__).parent / "support"))  # importlib mode leaves test folders off the path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

LONGEST = ("test_quickstart.py", "test_runs_execute.py", "test_steps_evaluate_tasks.py", "test_rehearsal_rehearse.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no process ends with one while the other has nothing to do."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def make() -> type[Make]:
    """Short-hand tables of prompts, responses and scores."""
    return Make


class Make:
    """Writes tables in short hand; prompt ``p`` is the question ``question p``."""

    @staticmethod
    def prompts(names, **fields):
        return to_table([Prompt.of(f"question {name}", **fields) for name in names], Prompt)

    @staticmethod
    def id(name):
        return Prompt.of(f"question {name}").id

    @classmethod
    def responses(cls, rows):
        """Rows are (prompt, model, sample, text) or (prompt, model, sample, text, finish_reason, tokens)."""
        made = []
        for prompt, model, sample, text, *rest in rows:
            finish, tokens = (*rest, "stop", None)[:2] if len(rest) != 1 else (rest[0], None)
            made.append(Response(cls.id(prompt), sample, model, text, finish_reason=finish, completion_tokens=tokens))
        return to_table(made, Response)

    @classmethod
    def scores(cls, rows, scorer="s"):
        """Rows are (prompt, model, sample, value)."""
        return to_table([Score(cls.id(p), sample, model, scorer, value) for p, model, sample, value in rows], Score)

    @staticmethod
    def short(pairs):
        """Return (question, chosen text, rejected text) of every pair."""
        return [
            (
                row["prompt"][-1]["content"].removeprefix("question "),
                row["chosen"][0]["content"],
                row["rejected"][0]["content"],
            )
            for row in pairs.table.to_pylist()
        ]

    @classmethod
    def dropped(cls, pairs, unit):
        """Return {prompt id: reason} of the dropped rows of one unit."""
        return {row["prompt_id"]: row["reason"] for row in pairs.dropped.to_pylist() if row["unit"] == unit}
