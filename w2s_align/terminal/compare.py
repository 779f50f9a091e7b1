"""`w2s compare`: what differed between runs, and what that did to the numbers, with paired tests on the same problems.

Reads the resolved recipes and the evaluations of runs; returns a Compared, which turns into a table, a page and JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.runs.find import find_target
from w2s_align.runs.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.evaluation import Results
    from w2s_align.evaluation.run_comparison import RunArms

EVALUATIONS = ("evaluate", "evaluate_classifiers", "evaluate_pairs", "best_of")
"""Kinds of steps whose results can be compared."""


@dataclass(frozen=True)
class RunToCompare:
    """One run with one of its evaluations.

    Attributes:
        name: Short name, unique in the comparison.
        run: The run.
        options: Every option of its recipe by path, e.g. ``dpo.beta``.
        results: What the evaluation found.
        artifact: The evaluation's artifact.
    """

    name: str
    run: Run
    options: Mapping[str, Any]
    results: Results
    artifact: Artifact


def open_runs(targets: Sequence[str], runs_dir: Path, step: str | None = None) -> list[RunToCompare]:
    """Open runs for a comparison.

    Args:
        targets: Folders of runs, recipe names (their latest run with a finished evaluation), or ``<recipe>/<run id>``.
        runs_dir: Folder of the runs.
        step: Name of the evaluation; by default the only one, or the first that all runs have.

    Raises:
        UserError: Fewer than two runs, a run that does not exist or has no finished evaluation.
    """
    if len(targets) < 2:
        raise UserError("A comparison needs at least two runs.", fix="w2s compare RUN RUN")
    runs = [_open(target, runs_dir) for target in targets]
    if len({run.path for run in runs}) < len(runs):
        raise UserError("The same run is named twice.", fix="RECIPE means its latest run.")
    evaluations = [_evaluations(run) for run in runs]
    for target, found in zip(targets, evaluations, strict=True):
        if not found or (step is not None and step not in found):
            what = f"no finished evaluation {step}" if step else "no finished evaluation"
            raise UserError(f"{target} has {what}.", fix=f"Available: {', '.join(found) or 'none'}.")
    common = [name for name in evaluations[0] if all(name in found for found in evaluations)]
    chosen = [step or (common[0] if common else found[0]) for found in evaluations]
    names = _names(runs)
    return [_load(name, run, which) for name, run, which in zip(names, runs, chosen, strict=True)]


def _evaluations(run: Run) -> list[str]:
    """Return the finished evaluations of a run."""
    done = run.names()
    return [name for name, node in run.state["nodes"].items() if node["kind"] in EVALUATIONS and name in done]


def _open(target: str, runs_dir: Path) -> Run:
    found = find_target(target, runs_dir, lambda run: bool(_evaluations(run)))
    if not isinstance(found, Run):
        raise UserError(
            f"{target} is not a run.", fix="Use the name of a recipe, <recipe>/<run id>, or the folder of a run."
        )
    return found


def _names(runs: Sequence[Run]) -> list[str]:
    """Name runs by their recipe where that tells them apart, else with their id."""
    recipes = [str(run.state.get("name", run.path.parent.name)) for run in runs]
    return [
        recipe if recipes.count(recipe) == 1 else f"{recipe}/{run.path.name}"
        for recipe, run in zip(recipes, runs, strict=True)
    ]


def _load(name: str, run: Run, step: str) -> RunToCompare:
    from w2s_align.evaluation import Results

    resolved = yaml.safe_load((run.path / "resolved.yaml").read_text(encoding="utf-8"))
    options = dict(_flat(resolved["steps"])) | {"seed": resolved["seed"]}
    artifact = run.artifact(step)
    results = Results.model_validate_json(artifact.text("results.json"))
    return RunToCompare(name, run, options, results, artifact)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def differences(runs: Sequence[RunToCompare]) -> dict[str, list[Any]]:
    """Return the options that are not the same in all runs: by path, the value in each.

    ``resources`` change nothing and are left out. A step that some runs do not have is one entry, with its kind.
    """
    paths = list(dict.fromkeys(path for run in runs for path in run.options if ".resources." not in f".{path}."))
    steps = [{path.partition(".")[0] for path in run.options} for run in runs]
    partly = {step for own in steps for step in own if not all(step in other for other in steps)}
    found = {step: [run.options.get(f"{step}.kind") for run in runs] for step in sorted(partly)}
    found |= {path: [run.options.get(path) for run in runs] for path in paths if path.partition(".")[0] not in partly}
    return {path: values for path, values in found.items() if any(value != values[0] for value in values)}


def arms_of(runs: Sequence[RunToCompare]) -> list[RunArms]:
    """Return every run's answers in the form in which evaluation compares them."""
    return [_arms(run) for run in runs]


def _arms(run: RunToCompare) -> RunArms:
    import pyarrow.compute as pc

    from w2s_align.evaluation import Answers, Arm, ArmRun
    from w2s_align.evaluation.run_comparison import RunArms
    from w2s_align.records import Score, record_columns
    from w2s_align.steps.evaluation_inputs import Evaluated

    scores = run.artifact.table("scores")
    if run.results.study == "choice":
        problems: pa.Table = run.artifact.input("responses").prompts().table()
        problems = problems.filter(pc.is_in(problems["id"], scores["prompt_id"].unique()))
    elif run.results.study == "pairs":
        problems = run.artifact.table("prompts")
    else:
        problems = Evaluated.of(run.artifact).problems()

    def part(arm: str, seed: str, setting: str) -> Answers:
        mine = (pc.field("arm") == arm) & (pc.field("run") == seed) & (pc.field("setting") == setting)
        return Answers(record_columns(Score, scores.filter(mine)))

    arms = []
    for arm in run.results.arms:
        seeds = [one.seed for one in next(iter(arm.settings.values())).seeds]
        made = [
            ArmRun(seed, {setting: part(arm.name, seed, setting) for setting in run.results.settings})
            for seed in seeds
        ]
        arms.append(Arm(arm.name, arm.role, made))
    tasks = run.artifact.manifest["material"]["options"].get("tasks") or {}
    metrics = {name: task.get("metric", "mean") for name, task in tasks.items()} if isinstance(tasks, dict) else {}
    return RunArms(run.name, problems, arms, run.results, metrics)
