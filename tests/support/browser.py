"""A real headless Chromium, driven over chromedriver's plain HTTP protocol; no client library is needed.

with Browser() as browser:
    browser.open(Path("report.html"))
    assert browser.run("return document.title")
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "chromium and chromedriver are not both installed (apt-get install chromium chromium-driver)"
NEEDS_BROWSER = pytest.mark.skipif(not (CHROMIUM and DRIVER) and os.environ.get("CI") != "true", reason=MISSING)
"""For a test of a page. On a server that tests (``CI=true``) a missing browser is a failure, not a skip."""


class Browser:
    """One browser with an empty profile, closed at the end of the ``with`` block."""

    def __enter__(self) -> Browser:
        if not (CHROMIUM and DRIVER):
            raise RuntimeError(MISSING)
        self.profile = tempfile.mkdtemp(prefix="w2s-chromium-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.base = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={self.profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = None
        for attempt in range(50):
            try:
                session = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
                break
            except (ConnectionError, urllib.error.URLError):
                if attempt == 49:
                    raise
                time.sleep(0.1)
        self.base += f"/session/{session}"
        self._call("/url", {"url": "about:blank"})
        self.requests()  # the browser's own start page
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("", method="DELETE")
        finally:
            self.process.terminate()
            self.process.wait(10)
            shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, page: Path) -> None:
        """Load a file and wait until it is there."""
        self._call("/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *args: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self._call("/execute/sync", {"script": script, "args": list(args)})

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the window and the preferred color scheme."""
        phone = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.devtools("Emulation.setDeviceMetricsOverride", size)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", {"features": media})

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("/screenshot", method="GET")))

    def press(self, key: str) -> None:
        """Press and release a key in the page."""
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._call("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def console(self) -> list[str]:
        """Return the messages of the console since the last call."""
        return [entry["message"] for entry in self._call("/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for since the last call."""
        entries = [json.loads(entry["message"])["message"] for entry in self._call("/se/log", {"type": "performance"})]
        sent = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def devtools(self, command: str, params: dict[str, Any]) -> Any:
        """Send a command of the DevTools protocol."""
        return self._call("/goog/cdp/execute", {"cmd": command, "params": params})

    def _call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
