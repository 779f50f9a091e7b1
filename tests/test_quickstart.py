"""The main job, whole, as a newcomer runs it; and every command of the README after it. Takes some minutes."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_align.evaluation import Results
from w2s_align.runs import Run, recipe_from_text

ROOT = Path(__file__).parent.parent
ONE_SEED = ["dpo.seeds=[1]", "sft.seeds=[1]", "reversed.seeds=[1]"]
"""One training seed of three: the other two take five minutes of a processor, and go the same way."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which the quickstart has been run, with one training seed."""
    home = tmp_path_factory.mktemp("home")
    command = ["bash", str(ROOT / "scripts" / "quickstart.sh"), "--runs-dir", str(home / "w2s_runs"), *ONE_SEED]
    done = subprocess.run(command, cwd=home, env=environment(), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.fixture(scope="module")
def results(home: Path) -> Results:
    run = Run.open(home / "w2s_runs" / "runs" / "quickstart" / "latest")
    return Results.model_validate_json((run.artifact("scores").path / "results.json").read_text())


def environment() -> dict[str, str]:
    """The environment of the tests, its programs first in PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "W2S_NO_INSTALL": "1", "COLUMNS": "200"}


def difference(results: Results, setting: str, first: str, second: str) -> tuple[float, float]:
    found = results.comparison(setting, first, second)
    assert found is not None and found.difference.value is not None and found.p is not None
    return found.difference.value, found.p


def test_the_tuned_student_is_better_than_it_was_and_than_both_teachers(results: Results) -> None:
    for other in ("student", "weak", "weaker"):
        gain, p = difference(results, "greedy", "dpo", other)
        assert gain > 0 and p < 0.01
    for seed in results.arm("dpo").settings["greedy"].seeds:
        assert (seed.estimate.value or 0) > (results.arm("student").settings["greedy"].estimate.value or 0)


def test_the_controls_do_not_explain_it(results: Results) -> None:
    gain, _ = difference(results, "sampled", "sft", "student")
    assert gain <= 0
    for setting in ("greedy", "sampled"):
        loss, p = difference(results, setting, "reversed", "student")
        assert loss < -0.15 and p < 0.01


def test_each_teacher_is_worse_than_the_student(results: Results) -> None:
    for teacher in ("weak", "weaker"):
        gap, p = difference(results, "greedy", teacher, "student")
        assert gap < 0 and p < 0.01


def test_the_run_ends_with_a_page_and_a_verdict(home: Path) -> None:
    run = Run.open(home / "w2s_runs" / "runs" / "quickstart" / "latest")
    assert run.report is not None
    page = run.report.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and len(page) < 3_000_000
    assert run.verdict() and run.verdict()[:40] in (run.path / "report.md").read_text(encoding="utf-8")


def test_the_pairs_are_the_same_without_gold_answers(home: Path) -> None:
    text = (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    text = re.sub(r", gold: \[[^]]*\]", "", text)
    with_gold = Run.open(home / "w2s_runs" / "runs" / "quickstart" / "latest").artifact("pairs")
    wanted = text[: text.index("  # The student, tuned three ways")].replace("name: quickstart", "name: no-gold")
    without = recipe_from_text(wanted).run(home / "w2s_runs").artifact("pairs")
    assert with_gold.path != without.path
    files = sorted((with_gold.path / "data").glob("*.parquet"))
    assert files
    for file in files:
        assert file.read_bytes() == (without.path / "data" / file.name).read_bytes()


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


LONG = {
    "w2s run smollm2/sentences": "w2s plan smollm2/sentences",  # most of an hour; its report was looked at
    "w2s run on_policy/lab": "w2s plan on_policy/lab",  # some minutes; recipes/on_policy/README.md has what came out
    "w2s run w2sg/lab": "w2s plan w2sg/lab",  # a quarter of an hour; recipes/w2sg/README.md has what came out
    "w2s run mine.yaml dpo.beta=0.5": f"w2s run mine.yaml dpo.beta=0.5 {' '.join(ONE_SEED)}",
    "w2s run delta_learning/qwen3b_over_1b5": "w2s plan delta_learning/qwen3b_over_1b5",  # eight GPUs
    "w2s rehearse delta_learning/qwen3b_over_1b5": "w2s plan delta_learning/qwen3b_over_1b5",  # test_runs_rehearse.py
    "w2s rehearse --all": "w2s plan --help",  # test_runs_rehearse.py
    "w2s launch ray delta_learning/qwen3b_over_1b5 --nodes 4 --address auto": "w2s launch ray --help",  # needs Ray
    "w2s sweep quickstart dpo.beta=0.05,0.1,0.5": "w2s plan quickstart dpo.beta=0.05",  # test_runs_sweep.py
}
"""Commands that take too long here, and what is run in their place; each is tested on something smaller."""


def test_every_command_of_the_readme_works(home: Path) -> None:
    """The scripts are run by the fixture above, and by CI, which runs these very tests through scripts/test.sh."""
    scripts = {"bash scripts/quickstart.sh", "bash scripts/test.sh", "bash scripts/test.sh --slow"}
    commands = readme_commands()
    assert scripts | set(LONG) <= set(commands)
    for command in commands:
        if shlex.split(command)[0] in ("pip", "uv"):
            continue  # tests/install: what they ask for exists and resolves
        if command in scripts:
            assert (ROOT / command.split()[1]).is_file()
            continue
        command = LONG.get(command, command)
        done = subprocess.run(
            shlex.split(command), cwd=home, env=environment(), capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_every_recipe_of_the_readme_loads() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        assert recipe_from_text(block).recipe.nodes


def test_the_errors_that_the_readme_shows_are_those_that_appear() -> None:
    from w2s_align.errors import UserError

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    recipe = next(re.finditer(r"```yaml\n(.*?)```", text, flags=re.DOTALL)).group(1)
    broken = recipe.replace("learning_rate: 5.0e-7", "learning_rte: 5.0e-7").replace(
        "chosen: $weak,", "chosen: $weka,"
    )
    with pytest.raises(UserError) as caught:
        recipe_from_text(broken)
    shown = next(re.finditer(r"```\n(recipe\.yaml.*?)```", text, flags=re.DOTALL)).group(1)
    assert [str(problem) for problem in caught.value.problems] == shown.strip().splitlines()


@pytest.mark.slow
def test_killed_up_to_twenty_times_the_quickstart_ends_with_the_same_rows(home: Path, tmp_path: Path) -> None:
    """SIGKILL of the command; what it started dies with it. About a quarter of an hour."""
    command = [sys.executable, "-m", "w2s_align.cli", "run", str(ROOT / "recipes" / "quickstart.yaml"), *ONE_SEED]
    draw = random.Random(20)
    kills = 0
    while True:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=draw.uniform(2, 30) if kills < 20 else 1800)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    undisturbed, killed = (rows(folder / "w2s_runs" / "runs" / "quickstart" / "latest") for folder in (home, tmp_path))
    assert kills >= 10
    assert undisturbed == killed


def rows(run: Path) -> dict[str, str]:
    """Digest of every table and every model of a run, by step."""
    found = {}
    for link in sorted((run / "steps").iterdir()):
        for file in sorted(link.resolve().rglob("*")):
            if file.suffix in (".parquet", ".safetensors"):
                name = f"{link.name}/{file.relative_to(link.resolve())}"
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found
    return found
