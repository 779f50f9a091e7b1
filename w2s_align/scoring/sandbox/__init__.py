"""Run generated code against tests in a process that cannot reach the user's files, network or the tests.

What holds on a Linux machine that lets a user make namespaces: the code sees a read-only root with the Python
standard library (and numpy, if its tests use it) and an empty folder in memory; no home, no ``/proc``, no network
interface, an empty environment, no capability; a system-call filter; limits on CPU time, memory, open files and
processes. The tests run in a second process of the same kind. The code receives the arguments of a call and sends
back plain data: it never sees the tests, and cannot patch what compares the results. The channel on which results
travel is open in the second process alone.

What does not hold: the kernel is shared, so a hole in it is a hole here. Where namespaces are not available (macOS,
some containers), :func:`missing_protections` says so; what is left are resource limits and an audit hook inside the
interpreter, which stop mistakes but not an attacker. Score the code of an adversary in a virtual machine.
"""

from w2s_align.scoring.sandbox.extract import extract_code
from w2s_align.scoring.sandbox.run import LADDER, CodeResult, Rung, missing_protections, run_io, run_tests

__all__ = ["LADDER", "CodeResult", "Rung", "extract_code", "missing_protections", "run_io", "run_tests"]
