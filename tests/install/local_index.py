"""A package index on 127.0.0.1 with wheels that are metadata and nothing else: enough to resolve, and to install.

It stands in for PyTorch's own index, which the tests must not need: what only that index carries, the CPU builds with
their local versions, is made here. ``python tests/install/local_index.py FOLDER`` writes the wheels alone, for
``--find-links`` of uv and pip (scripts/lock.sh).
"""

from __future__ import annotations

import functools
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TAGS = [
    f"{python}-{python}-manylinux_2_28_{machine}"
    for python in ("cp311", "cp312", "cp313", "cp314")
    for machine in ("x86_64", "aarch64")
]
TORCH_NEEDS = (
    "filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2",
    "fsspec>=0.8.5",
)  # fmt: skip
"""What the CPU build of torch 2.13.0 declares (its METADATA)."""


def write_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", needs: Sequence[str] = ()) -> Path:
    """Write a wheel without a single module."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = folder / f"{stem}-{tag}.whl"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {n}" for n in needs),
    ]
    about = f"{stem}.dist-info"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr(f"{about}/METADATA", "\n".join(metadata) + "\n")
        made.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n")
        made.writestr(f"{about}/RECORD", "".join(f"{about}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD")))
    return wheel


def write_cpu_builds(folder: Path) -> None:
    """Write what tool.uv.sources and scripts/env.sh take from PyTorch's index, for every Python and machine."""
    for tag in TAGS:
        write_wheel(folder, "torch", "2.13.0+cpu", tag, TORCH_NEEDS)
        write_wheel(folder, "torchvision", "0.28.0+cpu", tag, ["numpy", "pillow>=5.3.0", "torch==2.13.0"])


@contextmanager
def served(wheels: Path) -> Iterator[str]:
    """Serve a folder of wheels as a simple index, and yield its address."""
    pages = wheels / "simple"
    for wheel in sorted(wheels.glob("*.whl")):
        page = pages / wheel.name.split("-")[0].replace("_", "-").lower() / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as links:
            links.write(f'<a href="/{wheel.name.replace("+", "%2B")}">{wheel.name}</a>\n')
    pages.mkdir(exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(wheels)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    write_cpu_builds(Path(sys.argv[1]))
