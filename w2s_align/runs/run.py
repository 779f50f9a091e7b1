"""A run: one execution of a recipe, with its own folder that points to the artifacts.

    <root>/runs/<recipe name>/<run id>/    recipe.yaml, resolved.yaml, run.json, steps/<name> -> artifact, report.html
    <root>/runs/<recipe name>/latest       -> <run id>

Running the same recipe again goes on in the same run as long as nothing in it has changed.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.keys import digest
from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError, did_you_mean
from w2s_align.files import storage_errors, write_json
from w2s_align.recipe import Recipe, apply_overrides, load, parse_document, read_document
from w2s_align.runs.execute import Event, Executor, Outcome
from w2s_align.runs.machine import Machine, this_machine
from w2s_align.runs.plan import Planned, plan
from w2s_align.steps import CATALOGUE

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_ROOT = Path("w2s_runs")


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe that can be planned and run, from Python as from the command line.

    Attributes:
        recipe: The checked recipe.
    """

    recipe: Recipe

    def plan(self, runs_dir: Path | str = DEFAULT_ROOT) -> dict[str, Planned]:
        """Return what would run and what is there already, by node name."""
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
            StepCrashed: A step broke.
        """
        run, outcome = execute(self.recipe, Store(Path(runs_dir)), machine or this_machine(), on_event or _silent)
        if outcome.problems:
            raise UserError.all(outcome.problems)
        if outcome.crashes:
            raise StepCrashed(outcome.crashes)
        return run


class StepCrashed(RuntimeError):
    """Steps that broke, each with its name, the end of its log or traceback, and the log file."""

    def __init__(self, crashes: Sequence[tuple[str, str, str]]) -> None:
        self.crashes = list(crashes)
        super().__init__("\n\n".join(f"step {name} broke:\n{text}\nlog: {log}" for name, text, log in crashes))


@dataclass(frozen=True)
class Run:
    """A run that has been started, finished or not.

    Attributes:
        path: Its folder.
    """

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open the run in a folder.

        Raises:
            UserError: The folder is no run.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise UserError(f"{path} is no run.", fix="Give a folder such as w2s_runs/runs/<recipe name>/latest.")
        return cls(path.resolve())

    @property
    def state(self) -> dict[str, Any]:
        """The content of ``run.json``: status, and key, state and seconds of every node."""
        return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))

    @property
    def report(self) -> Path | None:
        """The page, when the recipe has a report step that is done."""
        page = self.path / "report.html"
        return page if page.exists() else None

    def verdict(self) -> str:
        """Return the sentence that the report begins with, or nothing when there is no report."""
        for name, node in self.state["nodes"].items():
            if CATALOGUE[node["kind"]].writes == "report" and node["state"] in ("cached", "done"):
                return str(self.artifact(name).manifest["result"].get("verdict", ""))
        return ""

    def artifact(self, name: str) -> Artifact:
        """Return the artifact of a step (``weak``), of one of its seeds (``dpo@1``), or of an implied node."""
        link = self.path / "steps" / _link_name(name)
        if not link.exists():
            raise UserError(f"This run has no finished step {name}.", fix=f"There is: {', '.join(self.names())}.")
        return Artifact.open(link.resolve()).whole()

    def names(self) -> list[str]:
        """Return the names of all finished nodes."""
        return [name for name, item in self.state["nodes"].items() if item["state"] in ("cached", "done")]

    def table(self, name: str, table: str | None = None) -> pa.Table:
        """Return the rows of a step's artifact as an Arrow table."""
        return self.artifact(name).table(table)


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


def recipe_from_text(text: str, name: str = "recipe.yaml") -> LoadedRecipe:
    """Check a recipe given as text; ``name`` is how messages call it."""
    return LoadedRecipe(load(parse_document(text, name), CATALOGUE))


def execute(
    recipe: Recipe,
    store: Store,
    machine: Machine,
    on_event: Callable[[Event], None],
    only: Collection[str] | None = None,
    part: tuple[int, int] | None = None,
) -> tuple[Run, Outcome]:
    """Plan and run a recipe on this machine, keeping the run's folder up to date all the while.

    Args:
        recipe: The recipe.
        store: Where artifacts are made.
        machine: What the steps may use.
        on_event: Called for everything that happens.
        only: Names of steps, or of single artifacts of them; nothing else is made.
        part: Of these, make this part: its number from 1, and how many there are. The last part that is finished, on
            whatever machine, puts the artifact together.

    Returns:
        The run, and what became of its steps.

    Raises:
        UserError: The recipe cannot work, or ``only`` names what is not there, or what reads something that is not.
    """
    if only is not None:
        store.look_anew()  # what this reads may have been made on another machine a moment ago
    planned = plan(recipe, store)
    chosen = None if only is None else _chosen(planned, only)
    if part is not None:
        _check_part(planned, chosen or (), part)

    def work(outcome: Outcome, on_event: Callable[[Event], None]) -> None:
        Executor(planned, store, machine, on_event, outcome, chosen, part).run()

    return carry_out(recipe, planned, store, work, on_event)


def carry_out(
    recipe: Recipe,
    planned: Mapping[str, Planned],
    store: Store,
    work: Callable[[Outcome, Callable[[Event], None]], None],
    on_event: Callable[[Event], None],
) -> tuple[Run, Outcome]:
    """Let something make the artifacts of a plan, and keep the run's folder up to date all the while.

    Args:
        recipe: The recipe.
        planned: Its plan.
        store: Where artifacts are made.
        work: Makes them: takes the outcome to fill in, and what to call for everything that happens.
        on_event: Called for everything that happens.

    Returns:
        The run, and what became of its steps.

    Raises:
        UserError: The folder of the runs cannot be written.
    """
    store.require_writable()
    run = open_run(recipe, store)
    outcome = Outcome()

    def record(event: Event) -> None:
        if event.kind not in ("progress", "cached"):
            _record(run, recipe, planned, store, outcome, "running")
        on_event(event)

    status = "interrupted"
    with storage_errors(store.root):
        try:
            work(outcome, record)
            status = "running" if outcome.ok else "failed"  # running, unless all is there: other jobs make the rest
        finally:
            _record(run, recipe, planned, store, outcome, status)
    return run, outcome


def _check_part(planned: Mapping[str, Planned], chosen: Collection[str], part: tuple[int, int]) -> None:
    """Refuse a part (on the command line: a shard) of what cannot be made in parts.

    Raises:
        UserError: With the way out.
    """
    number, count = part
    if not 1 <= number <= count:
        raise UserError(
            f"--shard {number}/{count}: there is no such shard.", fix=f"Give 1/{count} to {count}/{count}."
        )
    if not chosen:
        raise UserError("--shard is for one step.", fix=f"Name it: --only STEP --shard {number}/{count}")
    for name in chosen:
        config: Any = planned[name].node.config
        if not config.has_parts:
            kinds = ", ".join(kind for kind, step in CATALOGUE.items() if step.has_parts)
            raise UserError(f"{name} is of the kind {config.kind}, which has no shards.", fix=f"Only: {kinds}.")


def _chosen(planned: Mapping[str, Planned], only: Collection[str]) -> set[str]:
    """Return the artifacts that are meant by names of steps and artifacts; what they read must be there."""
    steps = {item.node.step for item in planned.values()}
    for name in only:
        if name not in planned and name not in steps:
            raise UserError(
                f"--only {name}: this recipe has no such step.", fix=did_you_mean(name, {*planned, *steps})
            )
    chosen = {name for name, item in planned.items() if name in only or item.node.step in only}
    for name in sorted(chosen):
        for source in planned[name].node.inputs.values():
            if planned[source].status != "cached" and source not in chosen:
                raise UserError(f"{name} reads {source}, which is not there.", fix=f"Make it first: --only {source}")
    return chosen


def _silent(event: Event) -> None:
    pass


def _link_name(name: str) -> str:
    return name.replace("/", ".")


def open_run(recipe: Recipe, store: Store) -> Run:
    """Return the latest run if it is of the very same recipe, else a new one."""
    with store.lock("run", recipe.name):
        return _open_run(recipe, store.root / "runs" / recipe.name)


def _open_run(recipe: Recipe, folder: Path) -> Run:
    latest = folder / "latest"
    recipe_digest = digest(dict(recipe.resolved))
    if (latest / "run.json").is_file():
        run = Run.open(latest)
        if run.state.get("recipe") == recipe_digest:
            return run
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = folder / stamp
    attempt = 1
    while path.exists():
        attempt += 1
        path = folder / f"{stamp}-{attempt}"
    (path / "steps").mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe.text, encoding="utf-8")
    (path / "resolved.yaml").write_text(yaml.safe_dump(dict(recipe.resolved), sort_keys=False), encoding="utf-8")
    write_json(path / "run.json", {"recipe": recipe_digest, "status": "running", "nodes": {}})
    _link(latest, Path(path.name))
    return Run.open(path)


def _record(
    run: Run, recipe: Recipe, planned: Mapping[str, Planned], store: Store, outcome: Outcome, status: str
) -> None:
    """Write run.json and the links to everything that is finished, by whatever process."""
    with store.lock("run", recipe.name):
        _record_alone(run, recipe, planned, store, outcome, status)


def _record_alone(
    run: Run, recipe: Recipe, planned: Mapping[str, Planned], store: Store, outcome: Outcome, status: str
) -> None:
    before = run.state
    nodes = {}
    for name, item in planned.items():
        kind = item.node.config.kind
        mine: str | None = outcome.states.get(name)
        state = "waiting" if mine in (None, "part") else mine
        other = before["nodes"].get(name, {})
        if state == "waiting" and store.find(kind, item.key) is not None:
            state = "cached"  # made by another process meanwhile
        elif mine is None and other.get("key") == item.key and other["state"] in ("running", "failed"):
            state = other["state"]  # of a process that makes what this one does not
        nodes[name] = {
            "kind": kind,
            "key": item.key,
            "state": state,
            "seconds": outcome.seconds.get(name) or other.get("seconds"),
        }
        if state in ("cached", "done"):
            target = store.path(kind, item.key)
            _link(run.path / "steps" / _link_name(name), Path(os.path.relpath(target, run.path / "steps")))
            if item.node.config.writes == "report":
                for page in ("report.html", "report.md"):
                    _link(run.path / page, Path(os.path.relpath(target / page, run.path)))
    if all(node["state"] in ("cached", "done") for node in nodes.values()):
        status = "done"
    write_json(
        run.path / "run.json", {"recipe": before["recipe"], "name": recipe.name, "status": status, "nodes": nodes}
    )


def _link(link: Path, target: Path) -> None:
    """Point a symbolic link to a target, replacing an older one in one move."""
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
