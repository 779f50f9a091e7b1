"""Generated code against the tests of its prompt, in the sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from w2s_align.scoring.sandbox import LADDER, extract_code, missing_protections, run_io, run_tests
from w2s_align.scoring.sandbox.extract import called_names
from w2s_align.scoring.scorer import Assessment, BatchScorer, Scorer, unscored


class CodeScorer(Scorer):
    """The code in the response passes the tests of the prompt, run in a sandboxed process.

    Reads ``Prompt.meta``: ``tests`` (Python statements that raise when they fail, with an optional ``setup`` before
    them), or ``cases`` (a list of ``{"input": ..., "output": ...}`` for whole programs).
    """

    name: Literal["code"] = "code"
    value: Literal["all", "fraction", "ladder"] = "all"
    """What the score is: 1 when all tests pass, else 0; the share of the tests passed; or -2 for code that does not
    compile, -1 for code that raises or runs out of time, 0 for a failed test, 1 for passing."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one response may take (one case, for whole programs); a time-out is a failure of the code: it
    scores."""
    memory_mb: int = Field(default=512, ge=64)
    """Memory that the code may use, in MiB."""
    processes: int | None = Field(default=None, ge=1)
    """Responses run at the same time; null for one per core."""

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Run the code of each response against its prompt's tests; prompts without tests are unscored."""
        with ThreadPoolExecutor(self.processes or len(os.sched_getaffinity(0))) as pool:
            yield lambda prompts, responses: list(
                pool.map(self._check, prompts["meta"].to_pylist(), responses["text"].to_pylist())
            )

    def warnings(self) -> list[str]:
        """Say which fence around generated code this machine does not have."""
        return [
            f"Generated code runs without this protection: {missing}. Use a container or a virtual machine for code "
            "that you do not trust."
            for missing in missing_protections()
        ]

    def _check(self, encoded: str, response: str) -> Assessment:
        meta = json.loads(encoded)
        setup = str(meta.get("setup") or "")
        limits: dict[str, Any] = {"timeout_s": self.timeout_s, "memory_mb": self.memory_mb}
        if meta.get("tests"):
            given = meta["tests"]
            tests = [given] if isinstance(given, str) else [str(test) for test in given]
            result = run_tests(extract_code(response, called_names(tests), setup), tests, setup=setup, **limits)
        elif meta.get("cases"):
            cases = [(str(case["input"]), str(case["output"])) for case in meta["cases"]]
            result = run_io(extract_code(response), cases, **limits)
        else:
            return unscored("no tests")
        if not result.scored:
            return unscored("the tests cannot be read", result.detail)
        values = {
            "all": result.rung == "passed",
            "fraction": result.passed / result.tests,
            "ladder": LADDER[result.rung],
        }
        detail = f": {result.detail}" if result.detail else ""
        said = f"{result.rung} ({result.passed} of {result.tests}){detail}"
        return Assessment(float(values[self.value]), said, outcome=result.rung)
