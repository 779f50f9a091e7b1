"""The box: a process that fences itself, and runs generated code in one child and the tests in another.

Started by ``run.py`` as ``python -I -S box.py REPORT_FD [INPUT_FD OUTPUT_FD]``; standard library only. Reads two lines
of JSON on standard input: the code with its limits, and, after the child that runs the code has started, the tests;
so the code's process never had the tests in its memory. Writes one JSON object per line on the descriptor REPORT_FD.

The fences: :mod:`isolation` (the kernel's), and an audit hook that refuses network, processes and files by name. The
hook alone is no wall, but it tells a user in words what the code tried.
"""

import ast
import builtins
import contextlib
import json
import os
import signal
import sys
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isolation
import link as links

sys.path.pop(0)

FORBIDDEN = (
    "socket.connect",
    "socket.bind",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.killpg",
    "pty.spawn",
    "signal.pthread_kill",
    "ctypes.dlopen",
    "ctypes.dlsym",
    "ctypes.call_function",
    "resource.setrlimit",
    "resource.prlimit",
    "os.chroot",
    "os.setxattr",
    "os.listxattr",
    "syslog.syslog",
    "webbrowser.open",
)
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.chflags",
    "shutil.rmtree",
    "shutil.move",
    "shutil.copyfile",
    "sqlite3.connect",
)
READABLE = ("/usr/", "/lib/", "/lib64/", "/packages/", "/etc/localtime", "/etc/ld.so.cache")
"""What the code may read besides Python's own files and its folder."""
DEVICES = {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MOST_FILES = 64
"""Open files of a child."""
MOST_TEXT = 200
"""Characters of a reason that are kept."""


class SandboxError(BaseException):
    """The code tried what it may not do. Not an Exception, so that a bare ``except Exception`` does not hide it."""


def fence(folder, readable):
    """Refuse, from here on, whatever reaches out of the folder.

    Args:
        folder: What may be written.
        readable: Beginnings of paths that may be read.
    """
    root = os.path.realpath(folder) + os.sep

    def inside(path, roots):
        if isinstance(path, int):
            return True  # a file that is open already
        return (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(roots)

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str) and path in DEVICES:
                return
            if (flags & _WRITES or set(mode or "") & set("wax+")) and not inside(path, root):
                raise SandboxError(f"the code may not write {path!r}")
            if not inside(path, (root, *readable)):
                raise SandboxError(f"the code may not read {path!r}")
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike) and not inside(path, root):
                    raise SandboxError(f"the code may not change {path!r}")
        elif event in FORBIDDEN:
            raise SandboxError(f"the code may not use {event}")

    sys.addaudithook(hook)


class Report:
    """Where the box says how things went: one JSON object per line.

    Args:
        descriptor: Of the pipe to ``run.py``.
    """

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def tell(self, stage, outcome, detail=""):
        text = detail[:MOST_TEXT].encode("utf-8", "replace").decode()
        line = json.dumps({"stage": stage, "outcome": outcome, "detail": text}) + "\n"
        os.write(self._descriptor, line.encode())


def outcome_of(run):
    """Run something and say how it ended: ``ok``, ``failed`` (an assertion) or ``error``, with the reason."""
    try:
        run()
    except AssertionError as error:
        return "failed", str(error)
    except MemoryError:
        return "error", "out of memory"
    except SystemExit as error:
        if error.code in (None, 0):
            return "ok", ""
        return "error", f"the code ended the process ({error.code})"
    except links.Ended:
        return "error", "the code ended the process"
    except BaseException as error:
        try:
            text = str(error)
        except BaseException:
            text = ""
        return "error", f"{type(error).__name__}: {text}"
    return "ok", ""


def new_scope():
    """Return a namespace as a program has it, with the ``exit`` and ``quit`` of an ordinary interpreter."""
    builtins.exit = builtins.quit = sys.exit
    scope = {"__name__": links.SCOPE, "__builtins__": builtins}
    module = types.ModuleType(links.SCOPE)
    module.__dict__.update(scope)
    sys.modules[links.SCOPE] = module  # dataclasses and pickle look up the module of a class
    return module.__dict__


def share_classes(scope):
    """Let instances of the simple classes of the set-up travel by value."""
    for value in list(scope.values()):
        if type(value) is type and value.__module__ == links.SCOPE and "__slots__" not in vars(value):
            links.SHARED.add(value)


def compiled(text, name):
    """Compile code, without the ``from __future__`` flags of this file."""
    return compile(text, name, "exec", dont_inherit=True)


def run_program(job, report):
    """Run the code as a program: ``__main__``, with real standard input and output."""
    try:
        code = compiled(job["code"], "answer.py")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report.tell("compile", "error", f"{type(error).__name__}: {error}")
        return
    report.tell("compile", "ok")
    program = types.ModuleType("__main__")
    program.__dict__.update(new_scope(), __name__="__main__")
    box = sys.modules["__main__"]  # named here so that it outlives its place: its functions are running
    sys.modules["__main__"] = program
    outcome = outcome_of(lambda: exec(code, program.__dict__))
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    report.tell("run", *outcome)
    del box


def run_code(job, link):
    """Run set-up and code, tell the other side what they define, and serve its calls."""
    scope = link.scope
    try:
        code = compiled(job["code"], "answer.py")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        link.send({"stage": "compile", "outcome": "error", "detail": f"{type(error).__name__}: {error}"[:MOST_TEXT]})
        return
    link.send({"stage": "compile", "outcome": "ok", "detail": ""})

    def run():
        if job["setup"]:
            exec(compiled(job["setup"], "setup.py"), scope)
            share_classes(scope)
        exec(code, scope)

    outcome, detail = outcome_of(run)
    link.send({"stage": "run", "outcome": outcome, "detail": detail[:MOST_TEXT].encode("utf-8", "replace").decode()})
    names = {}
    for name, value in list(scope.items()):
        if not name.startswith("__"):
            with contextlib.suppress(Exception):
                names[name] = link.encode(value)
    link.send({"names": names})
    link.serve()


def run_tests(setup, tests, link, report):
    """Run the tests against what the code defines; what the set-up defines stays the set-up's."""
    scope = link.scope
    with contextlib.suppress(BaseException):  # the code fails on it as well, which is where the user reads about it
        exec(compiled(setup, "setup.py"), scope)
        share_classes(scope)
    try:
        units = [compiled(test, "test.py") for test in tests]
        for stage in ("compile", "run"):
            told = link.receive()
            report.tell(stage, str(told["outcome"]), str(told["detail"]))
            if told["outcome"] != "ok":
                return
        take_names(scope, link.receive()["names"], setup, tests, link)
    except links.Ended:
        return
    except (SyntaxError, ValueError) as error:
        report.tell("tests", "error", f"the tests cannot be read: {type(error).__name__}: {error}")
        return
    for unit in units:
        report.tell("test", *outcome_of(lambda unit=unit: exec(unit, scope)))


def take_names(scope, names, setup, tests, link):
    """Put what the code defines into the namespace of the tests.

    What the set-up defines with a body of its own, and Python's built-in functions, are not replaced: a test may
    check a result by them. A built-in name is taken where the tests call nothing else of the code.
    """
    trusted = {name for name in scope if name not in stubs(setup)}
    called = {
        node.func.id
        for test in tests
        for node in ast.walk(ast.parse(test))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    own = {name for name in names if not hasattr(builtins, name)}
    replace_builtins = not (called & own)
    for name, data in names.items():
        if name in trusted or (hasattr(builtins, name) and not replace_builtins):
            continue
        if name in sys.stdlib_module_names and not (isinstance(data, dict) and "module" in data):
            continue  # a test's own use of a module must not reach an object of the code
        with contextlib.suppress(Exception):
            scope[name] = link.decode(data)


def stubs(setup):
    """Return the functions and classes of a set-up that have no body: the code is to give them one."""
    found = set()
    try:
        tree = ast.parse(setup)
    except SyntaxError:  # ends within a function: its head alone
        return set(_names_of(setup))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [item for item in node.body if not _is_filler(item)]
            if not body:
                found.add(node.name)
    return found


def _is_filler(node):
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _names_of(setup):
    for line in setup.splitlines():
        for start in ("def ", "class ", "async def "):
            if line.startswith(start):
                yield line[len(start) :].split("(")[0].split(":")[0].strip()


class Box:
    """The supervisor: sets up what is shared, starts the two children, and says what protection is missing.

    Args:
        job: What ``run.py`` asks for.
        report: Where to report.
    """

    def __init__(self, job, report):
        self.job = job
        self.report = report
        self.missing = []
        self.root = self.mounts = False
        self.children = []

    def isolate(self):
        """Set up namespaces and root."""
        if self.job["isolate"] == "none":
            self.missing.append("file system and network of its own (switched off)")
        else:
            try:
                self.root = isolation.own_namespaces(self.job["isolate"] == "best")
                isolation.own_root(self.job["readable"], self.job["packages"])
                self.mounts = True
            except OSError as error:
                self.missing.append(f"file system and network of its own ({error.strerror or error})")
        if not self.mounts:
            os.chdir(self.job["folder"])

    def start(self, work, *, kept):
        """Start a child that fences itself and works.

        Args:
            work: What it does.
            kept: File descriptors that it keeps, besides 0 to 2.
        """
        keeper = os.fork()
        if keeper:
            self.children.append(keeper)
            return
        isolation.die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        own_ids = False
        if self.mounts:
            with contextlib.suppress(OSError):
                isolation.own_process_ids()
                own_ids = True
        worker = os.fork() if own_ids else 0
        if worker:
            signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGKILL))
            _, status = os.waitpid(worker, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
        code = 1
        try:
            self._fence(kept)
            work()
            code = 0
        finally:
            os._exit(code)

    def wait(self):
        """Wait for the last child, end the others, and report how the first ended, which ran the code."""
        _, status = os.waitpid(self.children[-1], 0)
        for child in self.children[:-1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        self.report.tell("end", "ok", str(-code if code < 0 else max(code - 128, 0)))

    def _fence(self, kept):
        for descriptor in set(range(3, MOST_FILES)) - kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        isolation.limit(self.job["seconds"], self.job["megabytes"], 256 if self.mounts else 0)
        folder = "/tmp" if self.mounts else self.job["folder"]
        if self.mounts:
            isolation.no_privileges(self.root)
            isolation.die_with_parent()  # a change of user forgets it
            with contextlib.suppress(OSError):
                isolation.filter_calls()
        isolation.not_readable()
        readable = tuple(path.rstrip("/") + "/" for path in self.job["readable"])
        if self.mounts:
            sys.path.append("/packages")
        else:
            sys.path += [os.path.dirname(path) for path in self.job["packages"][:1]]
            readable += tuple(path + "/" for path in self.job["packages"])
        os.environ.clear()
        os.environ.update({"HOME": folder, "TMPDIR": folder, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
        os.environ.update({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
        fence(folder, (*readable, *READABLE))


def main():
    """Run one job."""
    report = Report(int(sys.argv[1]))
    job = json.loads(_line(0))
    box = Box(job, report)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in box.children])
    box.isolate()
    null = os.open("/dev/null", os.O_RDWR)
    if job["program"]:
        report.tell("box", "ok", "; ".join(box.missing))
        given, printed = int(sys.argv[2]), int(sys.argv[3])

        def program():
            os.dup2(given, 0)
            os.dup2(printed, 1)
            os.dup2(null, 2)
            sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
            sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
            run_program(job, report)

        box.start(program, kept={int(sys.argv[1]), given, printed, null})
        box.wait()
        return
    tests_read, code_write = os.pipe()
    code_read, tests_write = os.pipe()

    def code():
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        scope = new_scope()
        run_code(job, links.Link(code_read, code_write, scope, guarded=False))

    box.start(code, kept={code_read, code_write, null})
    os.close(code_read)
    os.close(code_write)
    tests = json.loads(_line(0))

    def check():
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        scope = new_scope()
        run_tests(job["setup"], tests, links.Link(tests_read, tests_write, scope, guarded=True), report)

    report.tell("box", "ok", "; ".join(box.missing))
    box.start(check, kept={tests_read, tests_write, int(sys.argv[1]), null})
    os.close(tests_read)
    os.close(tests_write)
    box.wait()


def _line(descriptor):
    """Read a message: its length in bytes, a line feed, and so many bytes; nothing of the next one is taken."""
    head = b""
    while not head.endswith(b"\n"):
        piece = os.read(descriptor, 1)
        if not piece:
            raise SystemExit(3)
        head += piece
    left, parts = int(head), []
    while left:
        piece = os.read(descriptor, min(left, 2**20))
        if not piece:
            raise SystemExit(3)
        parts.append(piece)
        left -= len(piece)
    return b"".join(parts)


if __name__ == "__main__":
    main()
