"""Generated code in its sandbox: right, wrong, and harmful."""

import contextlib
import socket
from pathlib import Path

import pytest

from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score
from w2s_align.scoring.sandbox import extract_code, run, run_io, run_tests
from w2s_align.scoring.scorers.code import CodeScorer

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"]


@pytest.mark.parametrize(
    ("code", "rung", "passed", "detail"),
    [
        ("def add(a, b): return a + b", "passed", 3, ""),
        ("def add(a, b): return abs(a) + b if a != 'a' else 'ab'", "failed", 2, "a test failed"),
        (
            "def add(a, b): return int(a) + b",
            "runtime error",
            2,
            "ValueError: invalid literal for int() with base 10: 'a'",
        ),
        ("def add(a, b) return a", "compile error", 0, "SyntaxError: expected ':' (answer.py, line 1)"),
        ("raise KeyError('x')", "runtime error", 0, "KeyError: 'x'"),
        ("import os; os._exit(0)", "runtime error", 0, "the code ended the process"),
        ("import sys; sys.exit(0)", "runtime error", 0, "NameError: name 'add' is not defined"),
        ("def add(a, b):\n  import os; os._exit(0)", "runtime error", 0, "the code ended the process"),
    ],
)
def test_outcomes(code, rung, passed, detail):
    result = run_tests(code, TESTS)
    assert (result.rung, result.passed, result.tests, result.detail) == (rung, passed, 3, detail)


def test_infinite_loop_is_killed_on_time():
    assert run_tests("while True: pass", TESTS, timeout_s=1).detail == "time-out"
    assert run_tests("import time\ndef add(a, b): time.sleep(60)", TESTS, timeout_s=1).detail == "time-out"


def test_memory_hog():
    result = run_tests("x = bytearray(4 << 30)", TESTS, memory_mb=256)
    assert (result.rung, result.detail) == ("runtime error", "out of memory")
    result = run_tests("x = []\nwhile True: x.append(' ' * (1 << 20))", TESTS, memory_mb=256)
    assert result.rung == "runtime error"


def test_files_outside_the_folder_are_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ISOLATE", "none")  # behind namespaces there is nothing to refuse: the file is not there
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for code in (
        f"open({str(victim)!r}, 'w')",
        f"open({str(tmp_path / 'new')!r}, 'x')",
        f"import os; os.remove({str(victim)!r})",
        f"import os; os.rename({str(victim)!r}, 'x')",
        f"import os; os.open({str(tmp_path / 'new')!r}, os.O_CREAT | os.O_RDWR)",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        f"import os; os.mkdir({str(tmp_path / 'new')!r})",
        f"import os; os.symlink({str(tmp_path)!r}, 'link'); open('link/new', 'w')",
        f"import pathlib\ntry: pathlib.Path({str(victim)!r}).unlink()\nexcept Exception: pass",
    ):
        result = run_tests(code, [])
        assert result.rung == "runtime error" and "SandboxError: the code may not" in result.detail, code
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert victim.read_text() == "precious"
    inside = "open('own', 'w').write('x'); import os; os.remove('own'); os.mkdir('d')"
    assert run_tests(inside, []).rung == "passed"


def test_connections_are_refused():
    seen = []
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        server.settimeout(0.2)
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0.2)
        port, other = server.getsockname()[1], datagrams.getsockname()[1]
        for event, code in (
            ("socket.getaddrinfo", f"socket.create_connection(('127.0.0.1', {port}))"),
            ("socket.connect", f"socket.socket().connect(('127.0.0.1', {port}))"),
            ("socket.connect", f"socket.socket().connect_ex(('127.0.0.1', {port}))"),
            ("socket.sendto", f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {other}))"),
            ("socket.bind", "socket.socket().bind(('127.0.0.1', 0))"),
        ):
            result = run_tests(f"import socket; {code}", [])
            assert result.detail == f"SandboxError: the code may not use {event}", code
        for receive in (server.accept, lambda: datagrams.recvfrom(9)):
            with contextlib.suppress(TimeoutError):
                seen.append(receive())
    assert seen == []


def test_a_bounded_storm_of_processes_starts_none():
    count = sum(path.name.isdigit() for path in Path("/proc").iterdir())
    storms = (
        "import os\nfor i in range(300):\n  if os.fork() == 0:\n    import time; time.sleep(20)",
        "import subprocess\nfor i in range(300): subprocess.Popen(['sleep', '20'])",
        "import os\nfor i in range(300): os.posix_spawn('/bin/sleep', ['sleep', '20'], {})",
        "import os\nos.system('sleep 20 &')",
        "import multiprocessing\nfor i in range(3): multiprocessing.Process(target=print).start()",
    )
    for storm in storms:
        result = run_tests(storm, [])
        assert "SandboxError: the code may not use" in result.detail, storm
    assert sum(path.name.isdigit() for path in Path("/proc").iterdir()) < count + 60


def test_a_flood_of_output_is_cut():
    result = run_tests("while True: print('x' * 1000)", [], timeout_s=1)  # beside tests nobody reads it
    assert (result.rung, result.detail) == ("runtime error", "time-out")


def test_programs_that_read_and_print():
    program = "a, b = map(int, input().split())\nprint(a + b)"
    assert run_io(program, [("1 2\n", "3\n"), ("5 5", "10")]).rung == "passed"
    result = run_io(program, [("1 2", "3"), ("1 2", "4"), ("x", "0")])
    assert (result.rung, result.passed, result.tests) == ("runtime error", 1, 3)
    assert run_io("print(3)", [("", "4")]).detail == "printed '3\\n'"
    assert run_io("print(", [("", "4")]).rung == "compile error"


ADD = "def add(a, b):\n    return a + b"
USAGE = "print(add(2, 3))"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First\n```python\nx = 1\n```\nthen\n```\ny = 2\n```\nend", "x = 1"),
        ("```py\nunfinished = 1", "unfinished = 1"),
        ("x = 1", "x = 1"),
        (f"```python\n{ADD}\n```\nUsage:\n```python\n{USAGE}\n```", ADD),
        (f"```python\n{ADD}\n```\nOutput:\n```\nTrue\n```", ADD),
        (f"```python\n{ADD}\n```\nOutput:\n```text\nx = 5\n```", ADD),
        (f"```\n{ADD}\n```\n```bash\npython add.py\n```", ADD),
        (f"```python\n{ADD} + 1\n```\nNo:\n```python\n{ADD}\n```", ADD),
        (
            "```python\ndef plus(a, b): return a + b\n```\n```python\ndef add(a, b): return plus(a, b)\n```",
            "def plus(a, b): return a + b\n\ndef add(a, b): return plus(a, b)",
        ),
        (
            "```python\nimport math\n```\n```python\ndef add(a, b): return math.fsum((a, b))\n```",
            "import math\n\ndef add(a, b): return math.fsum((a, b))",
        ),
        (f"1. So:\n\n   ```python\n   {ADD.replace(chr(10), chr(10) + '   ')}\n   ```", ADD),
        (f"~~~python\n{ADD}\n~~~", ADD),
        (f"````python\n{ADD}\n````", ADD),
        (f"``` python title=add.py\n{ADD}\n```", ADD),
        (f"```{{.python}}\n{ADD}\n```\n```python\n{ADD}\n```", ADD),
        (f"```Python\r\n{ADD.replace(chr(10), chr(13) + chr(10))}\r\n```", ADD),
        (f"<think>```python\nadd = 1\n```</think>```python\n{ADD}\n```", ADD),
        (f"<think>maybe\n```python\n{ADD}\n```", ""),
        ("```json\n{}\n```", ""),
        (f"{ADD}\n\nThis function adds two numbers.", f"{ADD}\n"),
        (f"Here is the function:\n\n{ADD}\n\nIt adds.", f"{ADD}\n"),
        (f"```python\n{ADD}\n```\n```python\n>>> add(1, 2)\n3\n```", ADD),
    ],
)
def test_extract_code(text, expected):
    assert extract_code(text, {"add"} if "add" in text else ()) == expected


def test_code_scorer():
    prompt = Prompt.of("write add", meta={"setup": "import math", "tests": TESTS})
    bare = Prompt.of("hello")
    texts = [
        "```python\ndef add(a, b): return a + b + math.floor(0) if a != 'a' else 'ab'\n```",
        "def add(a, b): return 3",
        "nonsense here",
    ]
    responses = [Response(prompt.id, i, "m", text) for i, text in enumerate(texts)] + [Response(bare.id, 0, "m", "x")]
    tables = to_table([prompt, bare]), to_table(responses)
    values = {
        mode: score(*tables, CodeScorer(value=mode)).table["value"].to_pylist()
        for mode in ("all", "fraction", "ladder")
    }
    assert values == {
        "all": [1.0, 0.0, 0.0, None],
        "fraction": [1.0, pytest.approx(1 / 3), 0.0, None],
        "ladder": [1.0, 0.0, -2.0, None],
    }
    details = score(*tables, "code").table["detail"].to_pylist()
    assert details == [
        "passed (3 of 3)",
        "failed (1 of 3): a test failed",
        "compile error (0 of 3): SyntaxError: invalid syntax (answer.py, line 1)",
        "no tests",
    ]


def test_auto_never_runs_code():
    prompt = Prompt.of("write add", meta={"tests": TESTS})
    tables = to_table([prompt]), to_table([Response(prompt.id, 0, "m", "def add(a, b): return a + b")])
    assert score(*tables, "auto").unscored == {"no gold answer": 1}
