"""A sweep at work: one run for each point, all of them over the same artifacts, so that nothing is made twice.

    <root>/sweeps/<recipe name>/<digest>.json     the points and their runs

Every point is checked before the first one runs. After a kill, the same command resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from w2s_align.artifacts.keys import digest
from w2s_align.artifacts.store import Store
from w2s_align.errors import Problem, UserError
from w2s_align.files import write_json
from w2s_align.machine import this_machine
from w2s_align.recipe.sweep import Point
from w2s_align.runs.execute import execute
from w2s_align.runs.loaded import LoadedRecipe, load_recipe
from w2s_align.runs.plan import plan
from w2s_align.runs.run import Run


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep, checked and not run yet.

    Attributes:
        point: The swept values.
        loaded: The recipe with them.
    """

    point: Point
    loaded: LoadedRecipe

    @property
    def name(self) -> str:
        """Name of the recipe, without the point's."""
        return self.loaded.recipe.name.partition("--")[0]


def load_sweep(recipe: Path, points: Sequence[Point], overrides: Sequence[str] = ()) -> list[SweepPoint]:
    """Load the recipe once for each point.

    Args:
        recipe: A YAML file.
        points: See :func:`w2s_align.recipe.sweep.sweep_points`.
        overrides: Values that all points share.

    Raises:
        UserError: With everything that is wrong at any point, each mistake once.
    """
    name = load_recipe(recipe, overrides).recipe.name
    loaded: list[SweepPoint] = []
    problems: dict[tuple[str, str], Problem] = {}
    for point in points:
        try:
            found = load_recipe(recipe, [*overrides, *point.overrides, f"name={name}--{point.slug}"])
        except UserError as error:
            problems.update({(p.where, p.what): p for p in error.problems})
        else:
            loaded.append(SweepPoint(point, found))
    if problems:
        raise UserError.all(list(problems.values()))
    return loaded


def run_sweep(
    sweep: Sequence[SweepPoint], runs_dir: Path
) -> tuple[list[tuple[SweepPoint, Run]], list[tuple[str, Problem]]]:
    """Run all points, one after the other; a point that fails does not keep the others from running.

    Args:
        sweep: The checked points.
        runs_dir: Folder of runs and artifacts, shared by all.

    Returns:
        The points that were finished with their runs; and what went wrong, with the label of its point.

    Raises:
        UserError: A model or a file that a point reads is not there; nothing has run yet.
    """
    from w2s_align.terminal.progress import Display

    store = Store(runs_dir)
    _check_outside(sweep, store)
    finished: list[tuple[SweepPoint, Run]] = []
    problems: list[tuple[str, Problem]] = []
    record = []
    for number, item in enumerate(sweep):
        with Display(item.loaded.recipe.nodes) as display:
            display.heading(f"{number + 1} of {len(sweep)}: {item.point.label}")
            run, outcome = execute(item.loaded.recipe, store, this_machine(), display.on_event)
        display.summary(run, outcome)
        problems += [(item.point.label, problem) for problem in outcome.problems]
        for name, _, log in outcome.crashes:
            problems.append((item.point.label, Problem(f"Step {name} crashed.", fix=f"Log: {log}", where=name)))
        path = str(run.path.relative_to(store.root.resolve()))
        record.append({"values": dict(item.point.values), "run": path, "ok": outcome.ok})
        if outcome.ok:
            finished.append((item, run))
    name = sweep[0].name
    file = store.root / "sweeps" / name / f"{digest([entry['values'] for entry in record])[:12]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"recipe": name, "points": record})
    return finished, problems


def _check_outside(sweep: Sequence[SweepPoint], store: Store) -> None:
    problems: dict[Problem, None] = {}
    for item in sweep:
        try:
            plan(item.loaded.recipe, store)
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise UserError.all(list(problems))
