"""The fences around generated code: what it can read and reach, whether it can fake a pass, and how programs end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from w2s_align.scoring.sandbox import CodeResult, missing_protections, run, run_io, run_tests


@pytest.fixture(params=["best", "user", "none"])
def fence(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each kind of isolation; those that this machine does not offer are skipped."""
    monkeypatch.setattr(run, "ISOLATE", request.param)
    missing_protections.cache_clear()
    if request.param != "none" and missing_protections():
        pytest.skip(f"not available here: {missing_protections()}")
    yield request.param
    missing_protections.cache_clear()


@pytest.fixture
def walls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces, or a skip."""
    missing_protections.cache_clear()
    if missing_protections():
        pytest.skip(f"not available here: {missing_protections()}")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(run, "ISOLATE", "none")
    missing_protections.cache_clear()
    assert missing_protections() == ("file system and network of its own (switched off)",)
    missing_protections.cache_clear()


# --- fakes

FAKES = {
    "an object equal to everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __le__(self, other): return True
    def __gt__(self, other): return True
    def __ge__(self, other): return True
    def __sub__(self, other): return self
    def __rsub__(self, other): return self
    def __abs__(self): return self
    def __contains__(self, other): return True
    def __hash__(self): return hash(3)
def add(a, b): return Yes()
""",
    "an integer that lies": """
class Yes(int):
    def __eq__(self, other): return True
    def __hash__(self): return 3
def add(a, b): return Yes(7)
""",
    "patched built-in functions": """
import builtins
def add(a, b): return 7
builtins.abs = builtins.all = builtins.isinstance = lambda *a: 0
abs = len = sum = all = isinstance = lambda *a: 0
""",
    "module globals": """
import sys
for module in list(sys.modules.values()):
    for name in ("outcome_of", "run_tests", "attempt", "exec"):
        try: setattr(module, name, lambda *a, **k: ("ok", ""))
        except Exception: pass
def add(a, b): return 7
""",
    "frames": """
import sys
frame = sys._getframe()
while frame:
    for name in ("tests", "units", "job", "report"):
        if name in frame.f_locals:
            value = frame.f_locals[name]
            if isinstance(value, list): value.clear()
            if isinstance(value, dict): value["tests"] = []
    frame = frame.f_back
def add(a, b): return 7
""",
    "patched json": """
import json
json.dumps = lambda *a, **k: '{"stage": "test", "outcome": "ok", "detail": ""}'
json.loads = lambda *a, **k: {"stage": "test", "outcome": "ok", "detail": ""}
def add(a, b): return 7
""",
    "emptied tests": """
import gc
for thing in gc.get_objects():
    if isinstance(thing, list) and any(isinstance(x, str) and "assert" in x for x in thing): thing.clear()
    if isinstance(thing, dict) and "tests" in thing: thing["tests"] = []
def add(a, b): return 7
""",
    "a written report": """
import os
line = b'{"stage": "test", "outcome": "ok", "detail": ""}\\n' * 3
for fd in range(64):
    try: os.write(fd, line)
    except OSError: pass
def add(a, b): return 7
""",
    "a patched assertion": """
import builtins
class Never(Exception): pass
builtins.AssertionError = Never
def add(a, b): raise AssertionError
""",
    "reading the tests": """
import gc
def add(a, b):
    needle = "as" + "sert add("
    return 3 if any(needle in str(thing)[:9999] for thing in gc.get_objects() if isinstance(thing, (list, dict))) else 7
""",
    "the argument's way to the tests": """
def apply(f, x):
    for name in ("__globals__", "__code__", "__closure__", "__self__", "gi_frame"):
        try: getattr(f, name); return 3
        except Exception: pass
    return 7
def add(a, b): return 7
""",
}


@pytest.mark.parametrize("name", FAKES)
def test_a_fake_does_not_pass(name, fence):
    tests = [
        "assert add(1, 2) == 3",
        "assert abs(add(1, 2) - 3) < 1e-6",
        "assert 3 in [add(1, 2)] and add(1, 2) in (3,)",
        "assert apply(lambda x: x + 1, 2) == 3" if "def apply" in FAKES[name] else "assert all([add(1, 2) == 3])",
    ]
    result = run_tests(FAKES[name], tests, timeout_s=5)
    assert (result.rung != "passed", result.passed) == (True, 0), result


def test_helpers_of_the_setup_cannot_be_replaced(fence):
    setup = "def check_value(x):\n    return x == 3\n\ndef add(a, b):\n    '''Add.'''\n"
    fake = "def add(a, b): return 7\ndef check_value(x): return True"
    assert run_tests(fake, ["assert check_value(add(1, 2))"], setup=setup).rung == "failed"
    right = "def add(a, b): return a + b"
    assert run_tests(right, ["assert check_value(add(1, 2))"], setup=setup).rung == "passed"


# --- what right code may do

RIGHT = {
    "changes its argument": ("def f(x): x.sort()", "a = [3, 1]\nf(a)\nassert a == [1, 3]"),
    "fills a dictionary": ("def f(x): x['a'] = {1, 2}", "a = {}\nf(a)\nassert a == {'a': {1, 2}}"),
    "calls what it is given": ("def f(g, x): return [g(i) for i in x]", "assert f(lambda i: i * 2, [1, 2]) == [2, 4]"),
    "raises": (
        "def f(x): raise ValueError('no')",
        "try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'",
    ),
    "raises its own error": (
        "class Oops(KeyError): pass\ndef f(x): raise Oops('no')",
        "try:\n    f(1)\n    assert False\nexcept KeyError as e:\n    assert type(e).__name__ == 'Oops'",
    ),
    "is a class": (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def top(self): return self.items[-1]\n    def __len__(self): return len(self.items)",
        "s = Stack()\ns.push(4)\ns.push((5, 'x'))\nassert s.top() == (5, 'x') and len(s) == 2 and s.items == [4, (5, 'x')]",
    ),
    "compares its own objects": (
        "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n"
        "    def __add__(self, o): return P(self.x + o.x)",
        "assert P(1) + P(2) == P(3)",
    ),
    "is a generator": ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2] and 2 in f(3)"),
    "returns numbers of every kind": (
        "def f(): return [1e300, -0.0, float('inf'), 10**400, 3 + 4j, True, None, b'x', frozenset({1})]",
        "assert f() == [1e300, -0.0, float('inf'), 10**400, 3 + 4j, True, None, b'x', frozenset({1})]",
    ),
    "returns what the library has": (
        "from collections import *\nfrom decimal import Decimal\nfrom fractions import Fraction\nimport datetime as d\n"
        "def f(): return (Counter('aab'), deque([1]), OrderedDict(a=1), Decimal('1.5'), Fraction(1, 3), d.date(2020, 1, 2), range(3))",
        "from collections import Counter, deque\nfrom decimal import Decimal\nfrom fractions import Fraction\nimport datetime\n"
        "assert f() == (Counter('aab'), deque([1]), {'a': 1}, Decimal('1.5'), Fraction(1, 3), datetime.date(2020, 1, 2), range(3))",
    ),
    "returns a named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)",
        "assert f() == (1, 2) and f().y == 2",
    ),
    "has the name of a built-in function": ("def sum(a, b): return a * b", "assert sum(10, 15) == 150"),
    "imports what the tests use": (
        "import math\ndef f(x): return math.sqrt(x)",
        "assert math.isclose(f(2), 2 ** 0.5)",
    ),
    "ends the process after the definitions": ("def f(): return 1\nimport sys\nsys.exit(0)", "assert f() == 1"),
    "has a main block": ("def f(): return 1\nif __name__ == '__main__':\n    print(f(), input())", "assert f() == 1"),
    "prints much": ("def f():\n    print('x' * 10**6)\n    return 1", "assert f() == 1"),
    "writes into its folder": (
        "def f():\n    open('own', 'w').write('a')\n    return open('own').read()",
        "assert f() == 'a'",
    ),
    "is a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\ndef f(): return P(3).a",
        "assert f() == 3",
    ),
    "uses threads": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n    with ThreadPoolExecutor(2) as p: return list(p.map(str, x))",
        "assert f([1, 2]) == ['1', '2']",
    ),
}


@pytest.mark.parametrize("fence", ["best", "none"], indirect=True)
@pytest.mark.parametrize("name", RIGHT)
def test_right_code_passes(name, fence):
    code, test = RIGHT[name]
    assert run_tests(code, [test]) == CodeResult("passed", 1, 1)


def test_objects_of_the_setup_travel(fence):
    setup = (
        "class Node:\n    def __init__(self, value=0, next=None):\n        self.value = value\n        self.next = next\n\n"
        "def reverse(head):\n    '''Reverse a list.'''\n"
    )
    code = "def reverse(head):\n    last = None\n    while head:\n        head.next, last, head = last, head, head.next\n    return last"
    test = "a = reverse(Node(1, Node(2, Node(3))))\nassert (a.value, a.next.value, a.next.next.value, a.next.next.next) == (3, 2, 1, None)"
    assert run_tests(code, [test], setup=setup).rung == "passed"


def test_objects_of_the_tests_can_be_used(fence):
    test = "class Shape:\n    def __init__(self, w): self.w = w\n    def area(self): return self.w ** 2\nassert f([Shape(2), Shape(3)]) == 13"
    assert run_tests("def f(shapes): return sum(s.area() for s in shapes)", [test]).rung == "passed"


def test_numpy_is_there_for_tests_that_use_it(fence):
    test = "import numpy as np\nassert np.allclose(f(np.array([[1.0, 2.0]])), np.array([[2.0, 4.0]]))\nassert f(np.float32(2)) == 4"
    assert run_tests("import numpy as np\ndef f(x): return x * 2", [test]).rung == "passed"


def test_a_thousand_tests_pass_however_much_they_say(fence):
    result = run_tests("def f(x): return x", [f"assert f({i}) == {i}" for i in range(1000)])
    assert result == CodeResult("passed", 1000, 1000)
    long = run_tests("def f(x): return 0", [f"assert f({i}) == {i}, 'x' * 5000" for i in range(1, 301)])
    assert (long.rung, long.passed) == ("failed", 0)


def test_tests_that_cannot_be_read_are_no_verdict(fence):
    result = run_tests("def f(): return 1", ["assert f() =="])
    assert not result.scored and "the tests cannot be read" in result.detail


@pytest.mark.parametrize(
    "code", [r'raise Exception("\ud800")', r'def f(): raise Exception("\ud800\x00")', r'def f(): return "\ud800"']
)
def test_texts_that_no_file_can_hold_are_one_wrong_answer(code, fence):
    result = run_tests(code, ["assert f() == 1"])
    assert result.rung in ("runtime error", "failed")
    result.detail.encode("utf-8")


def test_odd_values_are_wrong_answers(fence):
    for code in (
        "def f():\n    x = []\n    x.append(x)\n    return x",
        "def f():\n    x = []\n    for _ in range(100000): x = [x]\n    return x",
        "def f(): return 'x' * (100 << 20)",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(): return f()",
        "def f(): return open",
        "import gc\ndef f(): return gc.get_objects()",
    ):
        assert run_tests(code, ["assert f() == 1"], timeout_s=8).rung in ("failed", "runtime error"), code


# --- what code can reach


def test_the_parents_environment_and_home_are_out_of_reach(fence, monkeypatch, tmp_path):
    monkeypatch.setenv("PLANTED_API_KEY", "planted-secret")
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("planted-secret")
    code = f"""
import glob, os
found = []
def look(path):
    try:
        with open(path, "rb") as file: found.append(file.read(10**6))
    except BaseException: pass
for path in [{str(home / "token")!r}, *[f"/proc/{{p}}/environ" for p in range(1, 300)], "/proc/self/environ",
             f"/proc/{{os.getppid()}}/environ", "/proc/{os.getpid()}/environ", "/etc/shadow", "/etc/passwd"]:
    look(path)
found.append(str(dict(os.environ)).encode())
def f(): return any(b"planted-secret" in data or b"root:" in data for data in found)
"""
    assert run_tests(code, ["assert f() is False"]).rung == "passed"


def test_ctypes_does_not_open_the_way_either(walls, tmp_path):
    """Walls, not the hook: the hook can be argued with, the kernel cannot."""
    secret = tmp_path / "token"
    secret.write_text("planted-secret")
    code = f"""
import os
def f(): return [os.path.exists({str(secret)!r}), os.path.exists("/proc/self"), os.path.exists("/etc/passwd"), os.path.exists("/home")]
def pids():
    alive = []
    for pid in range(2, 2000):
        try: os.getpgid(pid); alive.append(pid)
        except OSError: pass
    return alive
"""
    assert run_tests(code, ["assert f() == [False] * 4", "assert len(pids()) == 0"]).rung == "passed"


def test_no_network_interface(walls):
    code = "import socket\ndef f(): return [name for _, name in socket.if_nameindex() if name != 'lo']"
    assert run_tests(code, ["assert f() == []"]).rung == "passed"


def test_what_python_needs_is_read_only(walls):
    code = f"""
import os
def f():
    return [os.access(path, os.W_OK) for path in ({str(Path(os.__file__).parent)!r}, "/usr/lib", "/")]
"""
    assert run_tests(code, ["assert f() == [False] * 3"]).rung == "passed"


def test_a_child_that_keeps_the_pipe_open_costs_no_more_than_the_time_out(fence):
    code = "import os, time\ndef f():\n    try:\n        os.setsid()\n    except OSError: pass\n    time.sleep(300)"
    started = os.times().elapsed
    assert run_tests(code, ["f()"], timeout_s=1).detail == "time-out"
    assert os.times().elapsed - started < 60  # not 300: the only point of the number
    time.sleep(0.2)


# --- programs

PROGRAMS = {
    "exits after its output": ("import sys\nprint('YES')\nsys.exit(0)", "", "YES"),
    "calls exit": ("print(*[1, 2])\nexit()", "", "1 2"),
    "calls quit": ("print(1)\nquit()", "", "1"),
    "reads bytes": ("import sys\nprint(len(sys.stdin.buffer.read()))", "abc", "3"),
    "opens 0": ("print(open(0).read().upper())", "abc", "ABC"),
    "reads lines": ("import sys\nfor line in sys.stdin: print(int(line) * 2)", "1\n2\n", "2\n4\n"),
    "has a main block": ("def main():\n    print(input())\nif __name__ == '__main__':\n    main()", "x", "x"),
    "reads descriptor 0": ("import os\nos.write(1, os.read(0, 10))", "abc", "abc"),
    "prints a float": ("print(0.1 + 0.2)", "", "0.3"),
    "recurses deeply": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and f(n - 1)\nprint(f(5000))",
        "",
        "0",
    ),
}


@pytest.mark.parametrize("fence", ["best", "none"], indirect=True)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_end_as_programs_do(name, fence):
    code, given, expected = PROGRAMS[name]
    assert run_io(code, [(given, expected)]).rung == "passed"


def test_programs_that_are_wrong(fence):
    assert run_io("import sys\nprint('YES')\nsys.exit(3)", [("", "YES")]).detail == "the code ended the process (3)"
    assert run_io("print(0.30001)", [("", "0.3")]).rung == "failed"
    assert run_io("print(3.0)", [("", "3")]).rung == "failed"
    assert run_io("print('a'); print()", [("", "a")]).rung == "passed"
    assert run_io("while True: pass", [("", "")], timeout_s=1).detail == "time-out"
    assert "too large" in run_io("while True: print('x' * 10**5)", [("", "")], timeout_s=20).detail
