"""Which run or artifact a user means: a folder, ``<recipe>``, ``<recipe>/<step>``, ``<recipe>/<run id>[/<step>]``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from w2s_align.artifacts.artifact import MANIFEST, Artifact
from w2s_align.errors import UserError, did_you_mean
from w2s_align.runs.run import Run


def find_target(target: str, runs_dir: Path, wanted: Callable[[Run], bool] | None = None) -> Run | Artifact:
    """Return the run or artifact that a user means.

    Args:
        target: A folder, the name of a recipe (its latest run), ``<recipe>/<step>``, ``<recipe>/<run id>`` or
            ``<recipe>/<run id>/<step>``.
        runs_dir: Folder of the runs.
        wanted: Says whether a run has what is looked for. A recipe's name then means the latest run that has it: one
            of other values, or of a single step, does not hide it.

    Raises:
        UserError: There is none.
    """
    path = Path(target)
    if (path / MANIFEST).is_file():
        return Artifact.open(path).whole()
    if (path / "run.json").is_file():
        return Run.open(path)
    recipes = runs_dir / "runs"
    recipe, _, rest = target.partition("/")
    folder = recipes / recipe.removesuffix(".yaml")
    latest = folder / "latest"
    if not latest.exists():
        known = [p.name for p in recipes.iterdir()] if recipes.is_dir() else []
        raise UserError(
            f"There is no run or artifact {target} in {runs_dir}.",
            fix=did_you_mean(recipe, known) or "Run a recipe first: w2s run quickstart",
        )
    run_id, _, step = rest.partition("/")
    if run_id and (folder / run_id / "run.json").is_file():
        run = Run.open(folder / run_id)
    else:
        run, step = Run.open(latest), rest
        if wanted is not None and not wanted(run):
            run = next((other for other in reversed(_runs(folder)) if wanted(other)), run)
    return run.artifact(step) if step else run


def _runs(folder: Path) -> list[Run]:
    """Return the runs of a recipe, the oldest first."""
    return [Run(path.parent.resolve()) for path in sorted(folder.glob("*/run.json")) if not path.parent.is_symlink()]
