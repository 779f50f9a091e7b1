"""A recipe as jobs of a Slurm cluster: one script for each step, an array over its artifacts, or shards of one.

Writes ``<runs folder>/slurm/<recipe>-<time>/``: the scripts, ``submit.sh`` that submits them with their dependencies,
and one log per job. Each is ``w2s run RECIPE --only ARTIFACT`` on the same runs folder, so that what is done is not
done again, a job that was killed resumes, and any machine that sees the folder can watch or resume
the run. A training on several machines is started by srun inside its job (training/launch.py). Of a generation, each
task of the array makes a shard, and the last one to finish assembles the artifact (shards.py).
"""

from __future__ import annotations

import datetime
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_align.cluster.needs import Needs, needs
from w2s_align.errors import UserError
from w2s_align.recipe import Recipe
from w2s_align.runs.plan import Planned


@dataclass(frozen=True)
class Cluster:
    """What jobs are asked with.

    Attributes:
        nodes: Machines of a training that is launched on several processes, and of a generation, where the recipe
            does not say.
        gpus_per_node: GPUs of a machine.
        cpus: Cores of a job.
        partition: Slurm's partition, where one has to be named.
        account: Slurm's account, where one has to be named.
        time: Time limit of a job, as Slurm writes it.
        at_once: Tasks of an array that run at the same time.
        setup: Shell commands before each job, e.g. ``module load cuda``; a file is sourced.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    cpus: int = 16
    partition: str | None = None
    account: str | None = None
    time: str = "24:00:00"
    at_once: int = 16
    setup: Sequence[str] = ()


@dataclass(frozen=True)
class _Job:
    """One script: artifacts, or shards of them, that can be made at the same time, each by a task of its own."""

    name: str
    artifacts: tuple[str, ...]
    needs: Needs
    after: tuple[str, ...]


def write_jobs(
    recipe: Recipe, planned: Mapping[str, Planned], command: Sequence[str], root: Path, cluster: Cluster
) -> Path:
    """Write the job scripts of what is not there yet.

    Args:
        recipe: The recipe.
        planned: Its plan.
        command: Recipe and overrides, as `w2s run` takes them; paths absolute.
        root: Folder of the runs, which every machine of the cluster must see.
        cluster: What jobs are asked with.

    Returns:
        The folder with the scripts.

    Raises:
        UserError: Everything is cached.
    """
    jobs = list(_jobs(planned, cluster))
    if not jobs:
        raise UserError("Nothing to do: every artifact is cached.", fix=f"w2s report {recipe.name}")
    folder = root / "slurm" / f"{recipe.name}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
    folder.mkdir(parents=True)
    for job in jobs:
        (folder / f"{job.name}.sh").write_text(_script(job, recipe, command, root, folder, cluster), encoding="utf-8")
    (folder / "submit.sh").write_text(_submission(jobs, folder), encoding="utf-8")
    return folder


def submit(folder: Path) -> list[str]:
    """Submit the jobs of a folder.

    Returns:
        A line for each job: its name and its number.

    Raises:
        UserError: There is no sbatch here, or it rejects a job.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch was not found.",
            "Jobs are submitted on a login node of the cluster.",
            f"There, run: bash {folder / 'submit.sh'}",
        )
    done = subprocess.run(["bash", str(folder / "submit.sh")], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no error message"]
        raise UserError(
            f"sbatch rejected a job: {said[-1]}",
            f"Submitted before it: {', '.join(done.stdout.split(chr(10))[:-1]) or 'none'}.",
            f"Fix the options (--partition, --account, --time), or the scripts in {folder}.",
        )
    return done.stdout.splitlines()


def _jobs(planned: Mapping[str, Planned], cluster: Cluster) -> Iterator[_Job]:
    """Group artifacts into jobs: those of one step that need the same machines and do not read each other."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    depth: dict[str, int] = {}
    for name, item in planned.items():
        sources = [s for s in item.node.inputs.values() if planned[s].status != "cached"]
        depth[name] = 1 + max((depth[s] for s in sources if planned[s].node.step == item.node.step), default=0)
        if item.status != "cached":
            groups.setdefault(
                (item.node.step, depth[name], needs(item, cluster.nodes, cluster.gpus_per_node)), []
            ).append(name)
    job_of: dict[str, str] = {}
    for (step, level, need), names in groups.items():
        taken = {*job_of.values()}
        label = next(text for text in (step, f"{step}-{level}", f"{step}-{level}-{need.gpus}") if text not in taken)
        job_of |= dict.fromkeys(names, label)
    ordered = []
    for (_, _, need), names in groups.items():
        sources = [job_of[s] for name in names for s in planned[name].node.inputs.values() if s in job_of]
        ordered.append(_Job(job_of[names[0]], tuple(names), need, tuple(dict.fromkeys(sources))))
    yield from _after_what_they_read(ordered)


def _after_what_they_read(jobs: list[_Job]) -> Iterator[_Job]:
    written: set[str] = set()
    while jobs:
        ready = [job for job in jobs if set(job.after) <= written]
        yield from ready
        written |= {job.name for job in ready}
        jobs = [job for job in jobs if job not in ready]


def _script(job: _Job, recipe: Recipe, command: Sequence[str], root: Path, folder: Path, cluster: Cluster) -> str:
    tasks = len(job.artifacts) * job.needs.shards
    array = tasks > 1
    # Slurm reads % in a file name as a pattern, and %% as the character.
    log = f"{str(folder).replace('%', '%%')}/{job.name}-{'%A_%a' if array else '%j'}.log"
    wanted = {
        "job-name": f"{recipe.name}-{job.name}",
        "output": log,
        "nodes": job.needs.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus,
        "time": cluster.time,
        "partition": cluster.partition,
        "account": cluster.account,
        "gpus-per-node": job.needs.gpus or None,
        "array": f"0-{tasks - 1}%{cluster.at_once}" if array else None,
        "requeue": "",
    }
    options = [
        f"#SBATCH --{name}" + (f"={_directive(str(value))}" if value != "" else "")
        for name, value in wanted.items()
        if value is not None
    ]
    names = " ".join(shlex.quote(name) for name in job.artifacts)
    run = shlex.join([sys.executable, "-m", "w2s_align.cli", "run", *command, "--runs-dir", str(root)])
    unseen = f" does not see {folder}: --runs-dir must be a folder that all machines share."
    shards = job.needs.shards
    shard = f' --shard "$((task % {shards} + 1))/{shards}"' if shards > 1 else ""
    return "\n".join(
        [
            "#!/bin/bash",
            *options,
            "set -euo pipefail",
            f"if [ ! -d {shlex.quote(str(folder))} ]; then",
            f'    echo "$(hostname)"{shlex.quote(unseen)} >&2',
            "    exit 2",
            "fi",
            "set +u  # a profile may read variables that are not set",
            *map(_setup, cluster.setup),
            "set -u",
            f"artifacts=({names})",
            "task=${SLURM_ARRAY_TASK_ID:-0}",
            f'{run} --only "${{artifacts[task / {shards}]}}"{shard}',
            "",
        ]
    )


def _setup(command: str) -> str:
    """Return a command, or what sources the file that was named instead of one."""
    file = Path(command).expanduser()
    try:
        return f". {shlex.quote(str(file.absolute()))}" if file.is_file() else command
    except OSError:  # a command that is longer than a file's name
        return command


def _directive(value: str) -> str:
    """Return a value as a line of #SBATCH takes it: Slurm splits it like a shell, but expands nothing.

    Within double quotes it takes a backslash before a quote or a backslash as that character.
    """
    if shlex.quote(value) == value:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _submission(jobs: Sequence[_Job], folder: Path) -> str:
    lines = [
        "#!/bin/bash",
        "# Submits all jobs with their dependencies; Slurm cancels a job if one that it depends on fails.",
        "set -euo pipefail",
        "declare -A job",
    ]
    for job in jobs:
        after = ":".join(f"${{job[{name}]}}" for name in job.after)
        dependency = f' --dependency="afterok:{after}" --kill-on-invalid-dep=yes' if after else ""
        lines.append(f"job[{job.name}]=$(sbatch --parsable{dependency} {shlex.quote(str(folder / f'{job.name}.sh'))})")
        lines.append(f'echo "{job.name} ${{job[{job.name}]}}"')
    return "\n".join([*lines, ""])
