"""Recipes from Python: load one, plan it, run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine, this_machine
from w2s_align.recipe import Recipe, apply_overrides, load, parse_document, read_document
from w2s_align.runs.execute import execute
from w2s_align.runs.outcome import Event
from w2s_align.runs.plan import Planned, plan
from w2s_align.runs.run import Run
from w2s_align.steps.catalogue import CATALOGUE

DEFAULT_ROOT = Path("w2s_runs")
"""Folder of the runs, unless another one is given."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe that can be planned and run, from Python as from the command line.

    Attributes:
        recipe: The checked recipe.
    """

    recipe: Recipe

    def plan(self, runs_dir: Path | str = DEFAULT_ROOT) -> dict[str, Planned]:
        """Return what would run and what is cached, by node name.

        Args:
            runs_dir: Folder of runs and artifacts.

        Raises:
            UserError: A model or file outside the recipe is not there.
        """
        return plan(self.recipe, Store(Path(runs_dir)))

    def run(
        self,
        runs_dir: Path | str = DEFAULT_ROOT,
        *,
        on_event: Callable[[Event], None] | None = None,
        machine: Machine | None = None,
    ) -> Run:
        """Run the recipe; what is done already is not done again.

        Args:
            runs_dir: Folder of runs and artifacts.
            on_event: Called for everything that happens.
            machine: Cores and GPUs to use. Default: all of this machine.

        Raises:
            UserError: The recipe cannot work, or a step was refused. What was finished stays.
            StepCrashed: A step crashed.
        """
        report = on_event or (lambda event: None)
        run, outcome = execute(self.recipe, Store(Path(runs_dir)), machine or this_machine(), report)
        if outcome.problems:
            raise UserError.all(outcome.problems)
        if outcome.crashes:
            raise StepCrashed(outcome.crashes)
        return run


class StepCrashed(RuntimeError):
    """Steps that crashed, each with its name, the end of its log or traceback, and the log file."""

    def __init__(self, crashes: Sequence[tuple[str, str, str]]) -> None:
        self.crashes = list(crashes)
        super().__init__("\n\n".join(f"step {name} crashed:\n{text}\nlog: {log}" for name, text, log in crashes))


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read and check a recipe.

    Args:
        path: A YAML file.
        overrides: Texts of the form ``step.field=value``.

    Raises:
        UserError: With everything that is wrong in it.

    Example:
        >>> run = load_recipe("recipes/quickstart.yaml").run()
        >>> run.table("pairs").to_pandas()
    """
    document = read_document(Path(path))
    apply_overrides(document, overrides)
    return LoadedRecipe(load(document, CATALOGUE))


def recipe_from_text(text: str, name: str = "recipe.yaml", overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Check a recipe that is given as text.

    Args:
        text: YAML.
        name: What messages call it.
        overrides: Texts of the form ``step.field=value``.

    Raises:
        UserError: With everything that is wrong in it.
    """
    document = parse_document(text, name)
    apply_overrides(document, overrides)
    return LoadedRecipe(load(document, CATALOGUE))
