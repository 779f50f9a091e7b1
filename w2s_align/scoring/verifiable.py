"""Scorers for what a prompt asks for in a form that a program can check: code that passes tests, instructions
followed.

Same shape as the scorers in ``scorers.py``; the tests and instructions stand in ``Prompt.meta``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from w2s_align.scoring.instructions import CHECKS, follows
from w2s_align.scoring.sandbox import LADDER, extract_code, run_io, run_tests
from w2s_align.scoring.sandbox.extract import called_names
from w2s_align.scoring.settings import CodeSettings, InstructionsSettings
from w2s_align.scoring.verdicts import BatchScorer, Verdicts


@contextmanager
def code(settings: CodeSettings) -> Iterator[BatchScorer]:
    """Run the code of each response against its prompt's tests; prompts without tests are unscored."""
    limits: dict[str, Any] = {"timeout_s": settings.timeout_s, "memory_mb": settings.memory_mb}

    def check(row: tuple[str, str]) -> tuple[float | None, str]:
        meta = json.loads(row[0])
        setup = str(meta.get("setup") or "")
        if meta.get("tests"):
            given = meta["tests"]
            tests = [given] if isinstance(given, str) else [str(test) for test in given]
            program = extract_code(row[1], called_names(tests), setup)
            result = run_tests(program, tests, setup=setup, **limits)
        elif meta.get("cases"):
            cases = [(str(case["input"]), str(case["output"])) for case in meta["cases"]]
            result = run_io(extract_code(row[1]), cases, **limits)
        else:
            return None, "no tests"
        if not result.scored:
            return None, result.detail
        values = {
            "all": result.rung == "passed",
            "fraction": result.passed / result.tests,
            "ladder": LADDER[result.rung],
        }
        detail = f": {result.detail}" if result.detail else ""
        return float(values[settings.value]), f"{result.rung} ({result.passed} of {result.tests}){detail}"

    with ThreadPoolExecutor(settings.processes or len(os.sched_getaffinity(0))) as pool:
        yield lambda prompts, responses: Verdicts.of(
            list(pool.map(check, zip(prompts["meta"].to_pylist(), responses["text"].to_pylist(), strict=True)))
        )


@contextmanager
def instructions(settings: InstructionsSettings) -> Iterator[BatchScorer]:
    """Score whether responses follow their prompts' instructions; a prompt with an unknown instruction is unscored."""

    def check(meta: dict[str, Any], text: str) -> tuple[float | None, str]:
        names = meta.get("instruction_id_list")
        if not names:
            return None, "no instructions"
        body = text.rsplit("</think>", 1)[-1]
        broken = []
        for name, arguments in zip(names, meta.get("kwargs") or [{}] * len(names), strict=True):
            if name not in CHECKS:
                return None, f"unknown instruction {name}"
            try:
                if not follows(name, arguments or {}, body, loose=settings.loose):
                    broken.append(name)
            except KeyError as error:
                return None, f"{name} lacks {error.args[0]}"
        share = 1 - len(broken) / len(names)
        return float(
            not broken
        ) if settings.value == "all" else share, f"not followed: {', '.join(broken)}" if broken else ""

    def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
        rows = zip(prompts["meta"].to_pylist(), responses["text"].to_pylist(), strict=True)
        return Verdicts.of([check(json.loads(meta), text) for meta, text in rows])

    yield score_batch
