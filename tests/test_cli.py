"""The command line as a user meets it: exit codes, one panel for mistakes, everything reachable."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from waiting import wait_until

RECIPE = """\
name: small
seed: 0
steps:
  model: {kind: lab_model, slip: 0.5, layers: 1, width: 32, steps: 5, batch_size: 8}
  prompts: {kind: prompts, source: lab/addition, limit: 8}
  weak: &generate
    kind: generate
    model: $model
    prompts: $prompts
    sampling: {temperature: 1, max_tokens: 12}
    engine: {name: transformers}
  weaker: {<<: *generate, seed: 1}
  gold: {kind: score, responses: $weak}
  pairs: {kind: pair, rule: model_order, chosen: $weak, rejected: $weaker, filters: {truncated: false}}
"""


def w2s(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "w2s_align.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that has been run."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "small.yaml").write_text(RECIPE)
    done = w2s("run", "small.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_second_run_finds_everything_there(folder: Path) -> None:
    again = w2s("run", "small.yaml", cwd=folder)
    assert again.returncode == 0
    assert "6 of 6 artifacts were cached" in again.stdout + again.stderr


def test_plan_says_what_is_there_and_runs_nothing(folder: Path) -> None:
    shown = w2s("plan", "small.yaml", "weaker.seed=2", cwd=folder).stdout
    assert "6 artifacts, 4 cached" in shown
    table = shown.splitlines()[2 : 2 + 6]
    states = {line.split()[0]: line.split()[2] for line in table}
    assert states == {
        "model": "cached", "prompts": "cached", "weak": "cached", "weaker": "to", "gold": "cached", "pairs": "to"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("small", "lab_model"),
        ("small/prompts", "answer:"),
        ("small/weak", "12 tokens"),
        ("small/gold", "lab"),
        ("small/pairs", "chosen"),
        ("small/model", "model:"),
    ],
)
def test_show_opens_every_kind_of_artifact(target: str, expected: str, folder: Path) -> None:
    shown = w2s("show", target, "--rows", "2", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert expected in shown.stdout


def test_output_of_a_model_cannot_steer_the_terminal() -> None:
    from rich.text import Text

    from w2s_align.terminal.progress import printable

    hostile = "\x1b[2J\x07[red]not red[/red]\u202e"
    shown = printable(hostile)
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "[red]not red[/red]" in Text.from_markup(shown).plain


def test_a_mistake_is_one_panel_without_traceback_and_exit_code_2(folder: Path) -> None:
    (folder / "bad.yaml").write_text(RECIPE.replace("$weaker", "$weakr").replace("limit: 8", "limt: 8"))
    failed = w2s("run", "bad.yaml", cwd=folder)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    words = " ".join(failed.stderr.replace("│", " ").split())
    assert "bad.yaml:5 prompts.limt is not an option of prompts. Did you mean limit?" in words
    assert "bad.yaml:14 pairs.rejected refers to $weakr, which is not a step. Did you mean $weaker?" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing.yaml"], "There is no recipe nothing.yaml."),
        (["run", "quickstrat"], "Did you mean quickstart?"),
        (["show", "nothing"], "There is no run or artifact nothing"),
        (["show", "small/nothing"], "no finished step nothing"),
        (["report", "small"], "has no report"),
        (["steps", "generat"], "Did you mean generate?"),
        (["new", "no/name"], "is not a valid recipe name"),
    ],
)
def test_what_does_not_exist_is_said(arguments: list[str], message: str, folder: Path) -> None:
    failed = w2s(*arguments, cwd=folder)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert message in " ".join(failed.stderr.replace("│", " ").split())


def test_a_hub_that_cannot_be_reached_is_no_traceback(tmp_path: Path) -> None:
    """Planning goes on without it; running says what is missing. Nothing listens at the address."""
    recipe = "name: hub\nsteps:\n  prompts: {kind: prompts, source: some/data, limit: 9}\n"
    (tmp_path / "hub.yaml").write_text(recipe)
    dead = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "w2s_align.cli"]
    for verb, code in (("plan", 0), ("run", 2)):
        done = subprocess.run(
            [*command, verb, "hub.yaml"], cwd=tmp_path, env=dead, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert "The dataset some/data" in done.stderr


def test_new_makes_a_recipe_of_ones_own(folder: Path) -> None:
    assert w2s("new", "mine", "--from", "quickstart", cwd=folder).returncode == 0
    assert "name: mine" in (folder / "mine.yaml").read_text()
    assert w2s("plan", "mine.yaml", cwd=folder).returncode == 0
    assert "already exists" in w2s("new", "mine", cwd=folder).stderr


def test_new_brings_the_data_files_of_a_recipe(tmp_path: Path) -> None:
    assert w2s("new", "talk", "--from", "smollm2/sentences", cwd=tmp_path).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"talk.yaml", "everyday_prompts.jsonl"}
    assert w2s("new", "walk", "--from", "smollm2/sentences", cwd=tmp_path).returncode == 0
    (tmp_path / "everyday_prompts.jsonl").write_text("mine")
    assert w2s("new", "run", "--from", "smollm2/sentences", cwd=tmp_path).returncode == 2
    assert (tmp_path / "everyday_prompts.jsonl").read_text() == "mine"


def test_the_options_of_a_kind_are_named_in_full_in_a_narrow_window(folder: Path) -> None:
    shown = w2s("steps", "evaluate", "--all", cwd=folder).stdout.split()
    assert {"judge_resources.price.million_completion_tokens", "scorer.tolerance"} <= set(shown)
    shown_of_score = w2s("steps", "score", "--all", cwd=folder).stdout
    assert "scorer.name: reasoning_gym" in shown_of_score
    assert shown_of_score.index("responses") < shown_of_score.index("resources")


def test_a_step_that_crashed_does_not_hide_why_others_were_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from w2s_align.errors import Problem
    from w2s_align.runs.outcome import Outcome
    from w2s_align.terminal.execute import exit_code

    outcome = Outcome(problems=[Problem("The file is empty.", where="step a")], crashes=[("b", "Traceback", "log")])
    assert exit_code(outcome) == 1
    assert "The file is empty." in capsys.readouterr().err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_how_to_go_on(sent: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(RECIPE.replace("steps: 5,", "steps: 100000,"))
    command = [sys.executable, "-m", "w2s_align.cli", "run", "long.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: list(tmp_path.glob("w2s_runs/artifacts/lab_model/*.partial/log.txt")))
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped. Run the same command again to resume." in said
    state = json.loads((tmp_path / "w2s_runs/runs/small/latest/run.json").read_text())
    assert state["status"] == "interrupted"


def test_schema_describes_every_kind_of_step(folder: Path) -> None:
    from w2s_align.steps import CATALOGUE

    schema = json.loads(w2s("schema", cwd=folder).stdout)
    assert {f"step_{kind}" for kind in CATALOGUE} <= set(schema["$defs"])
    assert schema["$defs"]["step_dpo"]["properties"]["learning_rate"]["description"].startswith("Peak learning rate")


def test_the_version_is_that_of_the_package(folder: Path) -> None:
    done = w2s("--version", cwd=folder)
    assert (done.returncode, done.stdout.strip()) == (0, f"w2s-align {version('w2s-align')}")


def test_steps_and_recipes_are_listed_and_doctor_answers(folder: Path) -> None:
    from w2s_align.steps import CATALOGUE

    listed = w2s("steps", cwd=folder).stdout
    assert all(kind in listed for kind in CATALOGUE)
    assert "quickstart" in w2s("recipes", cwd=folder).stdout
    assert "Python 3" in w2s("doctor", cwd=folder).stdout


def test_the_command_line_imports_nothing_heavy(folder: Path) -> None:
    """Help and a cached run load no torch: the reason why they are quick."""
    for arguments in (["--help"], ["run", "small.yaml"], ["plan", "quickstart"]):
        code = (
            "import sys, runpy\n"
            f"sys.argv = ['w2s', *{arguments!r}]\n"
            "try:\n    from w2s_align.cli import main; main()\n"
            "except SystemExit: pass\n"
            "names = {'torch', 'transformers', 'trl', 'vllm', 'datasets', 'polars', 'scipy', 'matplotlib'}\n"
            "heavy = names & set(sys.modules)\n"
            "sys.exit(f'imports {heavy}' if heavy else 0)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_python_reaches_the_same_things(folder: Path) -> None:
    from w2s_align import load_recipe

    run = load_recipe(folder / "small.yaml").run(folder / "w2s_runs")
    assert run.table("weak").num_rows == 8
    assert (run.artifact("model").model / "model.safetensors").is_file()


def test_a_plan_has_a_line_for_each_of_many_steps(tmp_path: Path) -> None:
    steps = "\n".join(
        f"  m{i}: {{kind: lab_model, slip: 0.5, seed: {i}}}\n"
        f"  g{i}: {{kind: generate, model: $m{i}, prompts: $prompts, sampling: {{temperature: 0, max_tokens: 9}}}}"
        for i in range(15)
    )
    (tmp_path / "many.yaml").write_text(
        f"name: many\nsteps:\n  prompts: {{kind: prompts, source: lab/addition, limit: 9}}\n{steps}\n"
    )
    planned = w2s("plan", "many.yaml", cwd=tmp_path)
    assert planned.returncode == 0 and "many: 31 artifacts, 0 cached" in planned.stdout
    assert len(re.findall(r"^ *[mg]\d+ ", planned.stdout, re.MULTILINE)) == 30
