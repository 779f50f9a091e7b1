"""A hub of our own on 127.0.0.1: what huggingface_hub needs to make a repository and upload a folder, and no more.

Large files (Parquet, safetensors) go through the LFS protocol, as on the real hub, others into the commit itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """One hub, open for the ``with`` block; ``repositories`` is what it holds."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, Any]] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fail_uploads = 0

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status >= 400:
            self.send_header("X-Error-Message", content["error"])
        self.end_headers()
        self.wfile.write(data)

    def refused(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.state.token}":
            return False
        self.answer({"error": "Invalid username or password."}, 401)
        return True

    def do_GET(self) -> None:
        self.state.requests.append(f"GET {self.path}")
        if self.refused():
            return
        name, _, rest = after_kind(self.path).partition("/tree/")
        name = name.partition("/revision/")[0]
        if name not in self.state.repositories:
            self.answer({"error": "Repository not found"}, 404)
            return
        repository = self.state.repositories[name]
        files = [
            {"type": "file", "path": path, "size": len(data), "oid": git_digest(data)}
            for path, data in repository["files"].items()
        ]
        siblings = [{"rfilename": entry["path"]} for entry in files]
        info = {"id": name, "private": repository["private"], "sha": repository["commits"][-1], "siblings": siblings}
        self.answer(files if rest else info)

    def do_PUT(self) -> None:
        self.state.requests.append(f"PUT {self.path}")
        data = self.body()
        if self.state.fail_uploads:
            self.state.fail_uploads -= 1
            self.answer({"error": "storage is full"}, 413)
            return
        self.state.stored[hashlib.sha256(data).hexdigest()] = data
        self.answer({})

    def do_POST(self) -> None:
        self.state.requests.append(f"POST {self.path}")
        data = self.body()
        if self.refused():
            return
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            self.create(json.loads(data))
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(data))
        elif "/preupload/" in path:
            self.preupload(path, json.loads(data))
        elif "/commit/" in path:
            self.commit(path, data.decode())
        else:
            self.answer({"error": f"no such thing: {path}"}, 404)

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.state.repositories:
            self.answer({"error": "You already created this dataset repo", "url": name}, 409)
            return
        first = hashlib.sha1(name.encode()).hexdigest()
        self.state.repositories[name] = {
            "private": asked.get("visibility") == "private",
            "files": {},
            "commits": [first],
        }
        self.answer({"url": f"{self.state.endpoint}/datasets/{name}", "id": "1", "name": name})

    def preupload(self, path: str, asked: dict[str, Any]) -> None:
        repository = self.state.repositories[after_kind(path).split("/preupload/")[0]]
        files = []
        for file in asked["files"]:
            kind = "lfs" if file["path"].endswith((".parquet", ".safetensors")) else "regular"
            there = repository["files"].get(file["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if kind == "lfs" else git_digest(there)
            files.append({"path": file["path"], "uploadMode": kind, "shouldIgnore": False, "oid": oid})
        self.answer({"files": files})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            entry = {"oid": one["oid"], "size": one["size"], "authenticated": True}
            if one["oid"] not in self.state.stored:
                entry["actions"] = {"upload": {"href": f"{self.state.endpoint}/storage/{one['oid']}"}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, path: str, lines: str) -> None:
        name = after_kind(path).split("/commit/")[0]
        repository = self.state.repositories[name]
        for line in lines.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repository["files"][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repository["files"][value["path"]] = self.state.stored[value["oid"]]
            elif entry["key"] == "deletedFile":
                del repository["files"][value["path"]]
        sha = hashlib.sha1(lines.encode()).hexdigest()
        repository["commits"].append(sha)
        url = f"{self.state.endpoint}/datasets/{name}/commit/{sha}"
        self.answer({"commitUrl": url, "commitOid": sha, "hookOutput": ""})


def after_kind(path: str) -> str:
    """Return a path of the API from the repository's name on."""
    return path.split("?")[0].removeprefix("/api/datasets/").removeprefix("/api/models/")


def git_digest(data: bytes) -> str:
    """Return git's own digest of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
