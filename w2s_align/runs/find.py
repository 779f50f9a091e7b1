"""Which run or artifact a user means: a folder, a recipe's name, or ``<recipe>/<step>``."""

from __future__ import annotations

from pathlib import Path

from w2s_align.artifacts.artifact import MANIFEST, Artifact
from w2s_align.errors import UserError, did_you_mean
from w2s_align.runs.run import Run


def find_target(target: str, runs_dir: Path) -> Run | Artifact:
    """Return the run or artifact that a user means.

    Args:
        target: A folder, the name of a recipe, or ``<recipe>/<step>``.
        runs_dir: Folder of the runs.

    Raises:
        UserError: There is none.
    """
    path = Path(target)
    if (path / MANIFEST).is_file():
        return Artifact.open(path).whole()
    if (path / "run.json").is_file():
        return Run.open(path)
    recipes = runs_dir / "runs"
    recipe, _, step = target.partition("/")
    recipe = recipe.removesuffix(".yaml")
    latest = recipes / recipe / "latest"
    if not latest.exists():
        known = [p.name for p in recipes.iterdir()] if recipes.is_dir() else []
        raise UserError(
            f"There is no run or artifact {target} in {runs_dir}.",
            fix=did_you_mean(recipe, known) or "Run a recipe first: w2s run quickstart",
        )
    run = Run.open(latest)
    return run.artifact(step) if step else run
