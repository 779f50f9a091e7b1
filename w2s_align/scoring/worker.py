"""The child process of :mod:`w2s_align.scoring.pool`: checks items that may hang or exhaust memory.

Started as ``python -m w2s_align.scoring.worker MODULE:FUNCTION MEMORY_GB``, where the function returns the check.
Reads one JSON list of items per line on standard input, writes one JSON object per item on standard output: what the
check returned, or ``{"failed": reason}``, with ``detail`` where the reason has particulars.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import sys


def main() -> None:
    """Check items until standard input ends."""
    (module, _, function), memory_gb = sys.argv[1].partition(":"), float(sys.argv[2])
    limit = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    logging.disable(logging.ERROR)
    # Libraries that print would break the protocol: replies go out on a private copy of standard output.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        check = getattr(importlib.import_module(module), function)()
    except ImportError as error:
        print(json.dumps({"failed": f"cannot import {error.name}"}), file=out, flush=True)
        return
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        for item in json.loads(line):
            try:
                reply = check(item)
            except MemoryError:
                reply = {"failed": f"out of memory ({memory_gb:g} GiB)"}
            except Exception as error:  # whatever a library raises on untrusted text: unscored, with its reason
                said = f"the checker failed: {type(error).__name__}: {str(error)[:200]}"
                reply = {"failed": "the checker failed", "detail": said}
            print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
