"""Start the box (``box.py``), keep its time, and turn what it reports into a verdict."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from w2s_align.records import valid_unicode
from w2s_align.scoring.sandbox.extract import completed

_BOX = Path(__file__).with_name("box.py")
MAX_OUTPUT = 2**24
"""Bytes of a program's output that are read; the same as its limit on the size of a file."""
MAX_REPORT = 2**24
"""Bytes of a report that are read: 60,000 tests and more."""
GRACE_S = 2.0
"""Seconds that the box has to end its children when it is told to; then the kernel ends it."""
START_S = 10.0
"""Seconds that the box may take to set itself up, on a busy machine; they are not the code's."""

Rung = Literal["compile error", "runtime error", "failed", "passed"]
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
        scored: Whether the verdict is about the code: False when the tests themselves cannot be read.
    """

    rung: Rung
    passed: int
    tests: int
    detail: str = ""
    scored: bool = True


def run_tests(
    code: str, tests: list[str], *, setup: str = "", timeout_s: float = 10.0, memory_mb: int = 512
) -> CodeResult:
    """Run code in one fenced process and its tests in another.

    Args:
        code: The code; it may continue ``setup`` in the middle of a function.
        tests: Python statements that raise when they fail, e.g. ``assert add(1, 2) == 3``. They share a namespace, in
            which the code's functions can be called as if they were defined there.
        setup: Imports, helpers and heads of functions that come before the code.
        timeout_s: Seconds for code and tests together.
        memory_mb: Address space of each process in MiB.
    """
    job = _job(completed(code, setup), setup, timeout_s, memory_mb, tests)
    stages, trouble = _Box(job, timeout_s).run(tests)
    return _judge(stages, len(tests), trouble)


def run_io(code: str, cases: list[tuple[str, str]], *, timeout_s: float = 10.0, memory_mb: int = 512) -> CodeResult:
    """Run code as a program once per case and compare what it prints, line by line, word by word.

    Where the expected word is a number with a decimal point, a number within 1e-6 of it (relative or absolute) is
    equal, as in programming contests.

    Args:
        code: The program.
        cases: Standard input and expected standard output.
        timeout_s: Seconds for each case.
        memory_mb: Address space of the process in MiB.
    """
    passed, worst = 0, CodeResult("passed", 0, len(cases))
    for given, expected in cases:
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
            stdin.write(given.encode("utf-8", "surrogatepass"))
            stdin.seek(0)
            job = _job(code, "", timeout_s, memory_mb, program=True)
            stages, trouble = _Box(job, timeout_s, (stdin, stdout)).run(None)
            stdout.seek(0)
            output = stdout.read(MAX_OUTPUT).decode(errors="replace")
        result = _judge(stages, 0, trouble)
        if result.rung == "passed" and not same_output(output, expected):
            result = CodeResult("failed", 0, 0, f"printed {output[:100]!r}")
        passed += result.rung == "passed"
        if LADDER[result.rung] < LADDER[worst.rung]:
            worst = result
        if result.rung == "compile error":
            break
    return CodeResult(worst.rung, passed, len(cases), worst.detail)


@cache
def missing_protections() -> tuple[str, ...]:
    """Return in words what this machine cannot fence; empty where everything is available."""
    stages, trouble = _Box(_job("", "", 5.0, 256), 5.0).run([])
    told = next((stage["detail"] for stage in stages if stage["stage"] == "box"), trouble or "the box does not start")
    return tuple(part for part in told.split("; ") if part)


def same_output(printed: str, expected: str) -> bool:
    """Say whether a program printed what was expected; see :func:`run_io`."""
    lines, wanted = (
        [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")] for text in (printed, expected)
    )
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?")


def _same_line(line: str, wanted: str) -> bool:
    if line == wanted:
        return True
    words, others = line.split(), wanted.split()
    return len(words) == len(others) and all(map(_same_word, words, others))


def _same_word(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    if not _DECIMAL.fullmatch(wanted):
        return False
    try:
        return abs(float(word) - float(wanted)) <= 1e-6 * max(1.0, abs(float(wanted)))
    except ValueError:
        return False


def _job(
    code: str, setup: str, timeout_s: float, memory_mb: int, tests: list[str] | None = None, *, program: bool = False
) -> dict[str, Any]:
    texts = (code, setup, *(tests or ()))
    return {
        "code": code,
        "setup": setup,
        "program": program,
        "seconds": int(timeout_s) + 1,
        "megabytes": memory_mb,
        "isolate": ISOLATE,
        "readable": _python_folders(),
        "packages": _packages() if any("numpy" in text for text in texts) else [],
    }


ISOLATE: Literal["best", "user", "none"] = "best"
"""Which namespaces to use: the best available, as root also those inside a user namespace as everybody else has them,
or none. The tests try all three."""


@cache
def _python_folders() -> list[str]:
    """Return the folders that a Python program needs to start and to import the standard library."""
    paths = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        "/usr/lib",
        "/lib",
        "/lib64",
        "/usr/lib64",
    ]
    paths += ["/usr/local/lib", "/usr/share/zoneinfo", str(Path(sys.base_prefix) / "lib"), str(_BOX.parent)]
    found = dict.fromkeys(os.path.realpath(path) for path in paths if Path(path).is_dir())
    inside = [path for path in found if not any(path != other and path.startswith(other + "/") for other in found)]
    return inside


@cache
def _packages() -> list[str]:
    """Return the folders of numpy, which some tests use."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent
    return [str(path) for path in (folder, folder.with_name("numpy.libs")) if path.is_dir()]


class _Box:
    """One run of the box.

    Args:
        job: What it is asked for.
        timeout_s: Seconds for the code, counted from when the box is set up.
        files: Standard input and output of a program.
    """

    def __init__(self, job: dict[str, Any], timeout_s: float, files: tuple[IO[bytes], ...] = ()) -> None:
        self.job = job
        self.timeout_s = timeout_s
        self.files = [file.fileno() for file in files]

    def run(self, tests: list[str] | None) -> tuple[list[dict[str, str]], str]:
        """Return what was reported, and what ended it early ("" for nothing)."""
        read, write = os.pipe()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.job["folder"] = folder
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(_BOX), str(write), *map(str, self.files)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                pass_fds=(write, *self.files),
                start_new_session=True,
            )
            os.close(write)
            try:
                with suppress(BrokenPipeError):
                    assert process.stdin is not None
                    for message in (self.job, tests)[: 1 if tests is None else 2]:
                        data = json.dumps(message).encode()
                        process.stdin.write(b"%d\n%b" % (len(data), data))
                    process.stdin.close()
                report, on_time = self._listen(read)
            finally:
                os.close(read)
                _end(process)
        stages = _stages(report)
        signal_number = next((int(stage["detail"]) for stage in stages if stage["stage"] == "end"), 0)
        return stages, _reason(signal_number) if on_time else "time-out"

    def _listen(self, read: int) -> tuple[bytes, bool]:
        """Read the report while it is written; return it, and whether it ended in time."""
        report, deadline, ready = b"", time.monotonic() + START_S, False
        with selectors.DefaultSelector() as selector:
            selector.register(read, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0 and len(report) < MAX_REPORT:
                if not selector.select(left):
                    continue
                piece = os.read(read, 2**16)
                if not piece:
                    return report, True
                report += piece
                if not ready and b"\n" in report:  # the first line says that the box is set up
                    ready, deadline = True, time.monotonic() + self.timeout_s
                if b'"stage": "end"' in report:
                    return report, True
        return report, False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the box with everything it started."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(number: int) -> str:
    """Return why the code's process was ended by a signal."""
    names = {0: "", signal.SIGXCPU: "time-out", signal.SIGXFSZ: "too much output", signal.SIGKILL: "killed"}
    names[signal.SIGTERM] = ""  # our own, after the last test
    return names.get(number, f"the process died of signal {number}")


def _stages(report: bytes) -> list[dict[str, str]]:
    """Return the lines of a report."""
    stages = []
    for line in report.decode(errors="replace").splitlines():
        with suppress(ValueError):
            stage = json.loads(line)
            if isinstance(stage, dict) and {"stage", "outcome", "detail"} <= set(stage):
                stages.append({key: valid_unicode(str(value)) for key, value in stage.items()})
    return stages


def _judge(stages: list[dict[str, str]], tests: int, trouble: str) -> CodeResult:
    outcomes = {stage["stage"]: stage for stage in stages if stage["stage"] != "test"}
    if "tests" in outcomes:
        return CodeResult("runtime error", 0, tests, outcomes["tests"]["detail"], scored=False)
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
    if broken is not None:
        ended = broken["detail"] == "the code ended the process"
        return CodeResult("runtime error", passed, tests, (trouble if ended else "") or broken["detail"])
    if len(results) < tests:
        return CodeResult("runtime error", passed, tests, trouble or "the code ended the process")
    if passed < tests:
        failed = next(stage for stage in results if stage["outcome"] == "failed")
        return CodeResult("failed", passed, tests, failed["detail"] or "a test failed")
    return CodeResult("passed", passed, tests)
