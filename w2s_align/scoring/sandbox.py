"""Run generated code against unit tests in a process of its own, with limits on time, memory, files and processes.

Reads the text of a response and the tests of its prompt, returns a verdict. Each run gets a fresh folder, a fresh
process group that is killed on time, an empty environment and the fences of :mod:`w2s_align.scoring.sandbox_child`.
This contains mistakes, not an attacker: do not score code of an adversary without a container or a virtual machine
around it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_CHILD = Path(__file__).with_name("sandbox_child.py")
_FENCED = re.compile(r"```(?:python|py|python3)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)
MAX_OUTPUT = 2**20
"""Bytes of printed output that are compared; what a program prints beyond that is cut."""

Rung = Literal["compile error", "runtime error", "failed", "passed"]
"""How far code got."""
LADDER: dict[Rung, float] = {"compile error": -2.0, "runtime error": -1.0, "failed": 0.0, "passed": 1.0}
"""Outcomes from worst to best with the values that HERON gives them (docs/methods/heron.md)."""


@dataclass(frozen=True)
class CodeResult:
    """How code fared.

    Attributes:
        rung: The worst thing that happened: it did not compile, raised or ran out of time, failed a test, or passed
            all.
        passed: Tests that passed.
        tests: All tests.
        detail: The first thing that went wrong, in words; "" when nothing did.
    """

    rung: Rung
    passed: int
    tests: int
    detail: str = ""


def extract_code(text: str) -> str:
    """Return the code of a response: its last fenced block that is Python or unmarked, else the whole text."""
    text = text.rsplit("</think>", 1)[-1]
    blocks = _FENCED.findall(text)
    return str(blocks[-1]) if blocks else text


def run_tests(code: str, tests: list[str], *, timeout_s: float = 10.0, memory_mb: int = 512) -> CodeResult:
    """Run code once, then each test (Python statements that raise when they fail) in the same process.

    Args:
        code: The code.
        tests: The tests, e.g. ``assert add(1, 2) == 3``.
        timeout_s: Seconds for code and tests together.
        memory_mb: Address space of the process in MiB.
    """
    stages, _, trouble = _run(code, tests, None, timeout_s, memory_mb)
    return _result(stages, len(tests), trouble)


def run_io(code: str, cases: list[tuple[str, str]], *, timeout_s: float = 10.0, memory_mb: int = 512) -> CodeResult:
    """Run code as a program once per case and compare what it prints, line by line without trailing white space.

    Args:
        code: The program.
        cases: Standard input and expected standard output.
        timeout_s: Seconds for each case.
        memory_mb: Address space of the process in MiB.
    """
    passed, worst = 0, CodeResult("passed", 0, len(cases))
    for given, expected in cases:
        stages, output, trouble = _run(code, [], given, timeout_s, memory_mb)
        result = _result(stages, 0, trouble)
        if result.rung == "passed" and _lines(output) != _lines(expected):
            result = CodeResult("failed", 0, 0, f"printed {output[:100]!r}")
        passed += result.rung == "passed"
        if LADDER[result.rung] < LADDER[worst.rung]:
            worst = result
        if result.rung == "compile error":
            break
    return CodeResult(worst.rung, passed, len(cases), worst.detail)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _run(
    code: str, tests: list[str], given: str | None, timeout_s: float, memory_mb: int
) -> tuple[list[dict[str, str]], str, str]:
    """Run one child; return what it reported, what it printed, and what ended it early ("" for nothing)."""
    nonce = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as output:
        read, write = os.pipe()
        job = {
            "nonce": nonce,
            "code": code,
            "tests": tests,
            "input": given,
            "folder": name,
            "seconds": int(timeout_s) + 1,
            "megabytes": memory_mb,
        }
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD), str(write)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=name,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            pass_fds=(write,),
            start_new_session=True,
        )
        os.close(write)
        trouble = ""
        with os.fdopen(read, "rb") as report:
            try:
                process.communicate(json.dumps(job).encode() + b"\n", timeout=timeout_s)
            except subprocess.TimeoutExpired:
                trouble = "time-out"
            finally:
                _kill(process)
            stages = _stages(report.read(), nonce)
        if not trouble and process.returncode:
            trouble = _reason(process.returncode)
        output.seek(0)
        return stages, output.read(MAX_OUTPUT).decode(errors="replace"), trouble


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child with everything it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(returncode: int) -> str:
    names = {signal.SIGXCPU: "time-out", signal.SIGXFSZ: "too much output", signal.SIGKILL: "killed"}
    if returncode < 0:
        return names.get(signal.Signals(-returncode), f"the process died of signal {-returncode}")
    return f"the process ended with exit code {returncode}"


def _stages(report: bytes, nonce: str) -> list[dict[str, str]]:
    """Return the reported lines that carry the nonce; whatever else the code wrote there is not a report."""
    stages = []
    for line in report.decode(errors="replace").splitlines():
        try:
            stage = json.loads(line)
        except ValueError:
            continue
        if isinstance(stage, dict) and stage.get("nonce") == nonce:
            stages.append(stage)
    return stages


def _result(stages: list[dict[str, str]], tests: int, trouble: str) -> CodeResult:
    outcomes = {stage["stage"]: stage for stage in stages if stage["stage"] != "test"}
    if "compile" not in outcomes:
        return CodeResult("compile error", 0, tests, trouble or "the code could not be read")
    if outcomes["compile"]["outcome"] != "ok":
        return CodeResult("compile error", 0, tests, outcomes["compile"]["detail"])
    ran = outcomes.get("run", {"outcome": "error", "detail": trouble or "the code ended the process"})
    if ran["outcome"] != "ok":
        return CodeResult("runtime error", 0, tests, ran["detail"])
    results = [stage for stage in stages if stage["stage"] == "test"]
    passed = sum(stage["outcome"] == "ok" for stage in results)
    broken = next((stage for stage in results if stage["outcome"] == "error"), None)
    if len(results) < tests:
        return CodeResult("runtime error", passed, tests, trouble or "the code ended the process")
    if broken is not None:
        return CodeResult("runtime error", passed, tests, broken["detail"])
    if passed < tests:
        failed = next(stage for stage in results if stage["outcome"] == "failed")
        return CodeResult("failed", passed, tests, failed["detail"] or "a test failed")
    return CodeResult("passed", passed, tests)
