"""The child process of :mod:`w2s_align.scoring.sandbox`: runs generated code against tests, within limits.

Started as ``python -I -S sandbox_child.py``; needs nothing but the standard library. Reads one JSON object on standard
input (the job), writes one JSON object per line on the given file descriptor: how the code fared, then each test.

Two fences stand around the code. Resource limits stop loops, memory hogs and floods of output. An audit hook, which
cannot be taken away again, refuses network connections, new processes and changes to files outside the job's folder;
it works for root as well, whom RLIMIT_NPROC does not bind.
"""

import io
import json
import os
import resource
import sys
from types import CodeType

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
"""Audit events that are refused always: network, processes, native code, limits."""
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
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class SandboxError(BaseException):
    """The code tried what it may not do. Not an Exception, so that a bare ``except Exception`` does not hide it."""


def fence(folder: str) -> None:
    """Refuse, from here on, whatever reaches out of the folder."""
    root = os.path.realpath(folder) + os.sep

    def inside(path: object) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        return (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(root)  # type: ignore[arg-type]

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & _WRITES) or bool(set(mode or "") & set("wax+"))
            if writes and not inside(path) and path != os.devnull:
                raise SandboxError(f"the code may not write {path!r}")
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike) and not inside(path):
                    raise SandboxError(f"the code may not change {path!r}")
        elif event in FORBIDDEN:
            raise SandboxError(f"the code may not use {event}")

    sys.addaudithook(hook)


def limit(seconds: int, megabytes: int) -> None:
    """Set the resource limits of this process."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_FSIZE, 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def attempt(code: CodeType, scope: dict[str, object]) -> tuple[str, str]:
    """Run compiled code and say how it ended: ``ok``, ``failed`` (an assertion) or ``error``."""
    try:
        exec(code, scope)
    except AssertionError as error:
        return "failed", str(error)[:200]
    except MemoryError:
        return "error", "out of memory"
    except SystemExit as error:
        return "error", f"the code ended the process ({error.code})"
    except BaseException as error:
        return "error", f"{type(error).__name__}: {str(error)[:200]}"
    return "ok", ""


def main() -> None:
    """Run one job."""
    job = json.loads(sys.stdin.readline())
    report = os.fdopen(int(sys.argv[1]), "w")
    nonce = job["nonce"]

    def tell(stage: str, outcome: str, detail: str) -> None:
        report.write(json.dumps({"nonce": nonce, "stage": stage, "outcome": outcome, "detail": detail}) + "\n")
        report.flush()

    limit(job["seconds"], job["megabytes"])
    os.chdir(job["folder"])
    try:
        code = compile(job["code"], "answer.py", "exec")
        tests = [compile(test, "test.py", "exec") for test in job["tests"]]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        tell("compile", "error", f"{type(error).__name__}: {str(error)[:200]}")
        return
    tell("compile", "ok", "")
    if job["input"] is not None:
        sys.stdin = io.StringIO(job["input"])
    scope: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}
    fence(job["folder"])
    tell("run", *attempt(code, scope))
    sys.stdout.flush()
    for test in tests:
        tell("test", *attempt(test, scope))


if __name__ == "__main__":
    main()
