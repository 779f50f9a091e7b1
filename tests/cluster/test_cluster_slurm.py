"""Jobs of a cluster: order, machines and arrays, and a stub of sbatch that really runs the scripts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_align.cluster.slurm import Cluster, write_jobs
from w2s_align.errors import UserError
from w2s_align.runs import Run, load_recipe, recipe_from_text
from w2s_align.terminal.catalogue import shipped_recipes

SBATCH = """\
#!/bin/bash
# Runs a job at once, once for each task of its array; refuses one whose predecessor is not done.
folder={folder}
for argument in "$@"; do
  case $argument in
    --dependency=afterok:*) for id in $(tr : ' ' <<< "${{argument#*afterok:}}"); do
        [ -e "$folder/done-$id" ] || {{ echo "job $id is not done" >&2; exit 1; }}; done ;;
    *.sh) script=$argument ;;
  esac
done
id=$(($(ls "$folder" | wc -l) + 100))
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "${{array:-0}}"); do
  if [ -n "$array" ]; then export SLURM_ARRAY_TASK_ID=$task; else unset SLURM_ARRAY_TASK_ID; fi
  bash "$script" > "$folder/log-$id-$task" 2>&1 || {{ cat "$folder/log-$id-$task" >&2; exit 1; }}
done
touch "$folder/done-$id"
echo "$id"
"""

RECIPE = """\
name: cluster
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 8}
  weak: {kind: stand_in_model, like: Qwen/Qwen2.5-1.5B-Instruct}
  weaker: {kind: stand_in_model, like: meta-llama/Llama-3.2-1B-Instruct}
  a: &generate
    kind: generate
    model: $weak
    prompts: $prompts
    sampling: {temperature: 0, max_tokens: 48}
    engine: {name: transformers}
  b: {<<: *generate, model: $weaker}
  pairs: {kind: pair, rule: model_order, chosen: $a, rejected: $b}
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a record of the jobs that were run; its sbatch is the first in PATH. They use the fast engine."""
    record, programs = tmp_path / "record", tmp_path / "bin"
    record.mkdir()
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH.format(folder=record))
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support" / "fast_engine"))
    return record


def w2s(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "w2s_align.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_submitted_jobs_make_the_run_and_a_second_launch_finds_nothing_to_do(stub: Path, tmp_path: Path) -> None:
    recipe, runs = tmp_path / "cluster.yaml", str(tmp_path / "runs")
    recipe.write_text(RECIPE)
    options = ("--submit", "--gpus-per-node", "0", "--nodes", "2")
    done = w2s("launch", "slurm", str(recipe), *options, "--runs-dir", runs)
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "runs" / "runs" / "cluster" / "latest")
    assert run.state["status"] == "done"
    assert set(run.names()) == {"prompts", "weak", "weaker", "a", "b", "pairs"}
    assert run.table("pairs", "train").num_rows > 0
    logs = sorted(path.parent.name for path in run.artifact("a").path.glob("parts/*/log.txt"))
    assert logs == ["1-of-2", "2-of-2"]  # an array of two tasks made it
    alone = load_recipe(recipe).run(tmp_path / "alone")
    assert run.table("a").equals(alone.table("a"))
    assert len(list((tmp_path / "runs" / "runs" / "cluster").glob("2*"))) == 1
    again = w2s("launch", "slurm", str(recipe), "--submit", "--runs-dir", runs)
    assert again.returncode == 2 and "nothing to do" in again.stderr


def test_one_step_alone_needs_what_it_reads(tmp_path: Path) -> None:
    recipe, runs = tmp_path / "cluster.yaml", str(tmp_path / "runs")
    recipe.write_text(RECIPE)
    early = w2s("run", str(recipe), "--only", "pairs", "--runs-dir", runs)
    assert early.returncode == 2 and "pairs reads a, which has not been made yet" in early.stderr
    wrong = w2s("run", str(recipe), "--only", "prompt", "--runs-dir", runs)
    assert wrong.returncode == 2 and "Did you mean prompts?" in wrong.stderr
    assert w2s("run", str(recipe), "--only", "prompts", "--runs-dir", runs).returncode == 0
    state = Run.open(tmp_path / "runs" / "runs" / "cluster" / "latest").state
    assert state["status"] == "running"
    assert {name: node["state"] for name, node in state["nodes"].items()}["prompts"] in ("done", "cached")


def scripts(name: str, folder: Path, nodes: int) -> dict[str, str]:
    loaded = load_recipe(shipped_recipes()[name])
    jobs = write_jobs(loaded.recipe, loaded.plan(folder), [name], folder, Cluster(nodes=nodes, time="10:00:00"))
    return {path.stem: path.read_text() for path in jobs.glob("*.sh")}


def test_a_training_takes_many_machines_and_arms_are_an_array(tmp_path: Path) -> None:
    found = scripts("tulu3/dpo_8b", tmp_path, nodes=4)
    assert "#SBATCH --nodes=4\n" in found["dpo"] and "#SBATCH --gpus-per-node=8\n" in found["dpo"]
    assert "#SBATCH --gpus" not in found["pairs"] and "#SBATCH --time=10:00:00" in found["pairs"]
    arrays = [text for name, text in found.items() if name.startswith("scores") and "#SBATCH --array=0-" in text]
    assert any("scores/dpo/0/standard/gsm8k" in text and "#SBATCH --gpus-per-node=1\n" in text for text in arrays)
    order = re.findall(r"^job\[([\w-]+)\]", found["submit"], re.MULTILINE)
    assert order.index("pairs") < order.index("dpo") < order.index("scores-3") < order.index("report")
    assert "--shard" not in "".join(arrays)  # an evaluation has many generations side by side
    wide = scripts("tulu3/dpo_70b", tmp_path, nodes=1)["dpo"]
    assert "#SBATCH --nodes=8\n" in wide  # the recipe's own machines go before --nodes


def test_a_generation_is_an_array_over_shards(tmp_path: Path) -> None:
    loaded = recipe_from_text(RECIPE.replace("  b: {<<", "  b: {resources: {machines: 1}, <<"))
    jobs = write_jobs(loaded.recipe, loaded.plan(tmp_path), ["cluster.yaml"], tmp_path, Cluster(nodes=3))
    script = (jobs / "a.sh").read_text()
    assert "#SBATCH --array=0-2%16\n" in script and "#SBATCH --nodes=1\n" in script
    assert '--only "${artifacts[task / 3]}" --shard "$((task % 3 + 1))/3"' in script
    assert "--shard" not in (jobs / "b.sh").read_text()


def test_a_machine_without_the_folder_and_a_place_without_sbatch_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w2s_align.cluster.slurm import submit

    loaded = recipe_from_text(RECIPE)
    folder = write_jobs(loaded.recipe, loaded.plan(tmp_path), ["cluster.yaml"], tmp_path, Cluster())
    script = (folder / "prompts.sh").read_text().replace(str(folder), "/nowhere/at/all")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--runs-dir must be a folder that all machines share" in done.stderr
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch was not found"):
        submit(folder)


@pytest.mark.parametrize("as_command", [False, True])
def test_paths_of_any_letters_and_a_profile_that_reads_an_unset_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_command: bool
) -> None:
    """The real script runs; a program that prints what it was given stands where Python would."""
    root = tmp_path / """it's "my" $HOME `x` 100% runs"""
    root.mkdir()
    program, profile = root / "print it", root / "pro file.sh"
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$PROFILE" "$@"\n')
    program.chmod(0o755)
    profile.write_text('export PROFILE="read:$W2S_NEVER_SET"\n')
    monkeypatch.setattr(sys, "executable", str(program))
    loaded = recipe_from_text(RECIPE)
    recipe = str(root / "a recipe's.yaml")
    setup = f"source {shlex.quote(str(profile))}" if as_command else str(profile)
    folder = write_jobs(loaded.recipe, loaded.plan(root), [recipe], root, Cluster(setup=[setup]))
    script = folder / "prompts.sh"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = ["-m", "w2s_align.cli", "run", recipe, "--runs-dir", str(root), "--only", "prompts"]
    assert done.stdout.splitlines() == ["read:", *expected]
    (output,) = re.findall(r"^#SBATCH (--output=.*)$", script.read_text(), re.MULTILINE)
    assert shlex.split(output) == [f"--output={str(folder).replace('%', '%%')}/prompts-%j.log"]
    elsewhere = script.read_text().replace("if [ ! -d ", "if true || [ ! -d ")
    gone = subprocess.run(["bash", "-c", elsewhere], capture_output=True, text=True, check=False)
    assert gone.returncode == 2 and f"does not see {folder}: --runs-dir must be" in gone.stderr
    for path in folder.glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
