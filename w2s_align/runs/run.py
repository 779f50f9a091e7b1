"""A run: one execution of a recipe, with its own folder that points to the artifacts.

    <root>/runs/<recipe name>/<run id>/    recipe.yaml, resolved.yaml, run.json, steps/<name> -> artifact, report.html,
                                           models/<name>/: files and complete card of each evaluated model
    <root>/runs/<recipe name>/latest       -> <run id>

Running the same recipe again continues the same run as long as nothing in it has changed.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.keys import digest
from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.files import write_json
from w2s_align.recipe import Recipe
from w2s_align.runs.outcome import Outcome
from w2s_align.runs.plan import Planned

if TYPE_CHECKING:
    import pyarrow as pa


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
            UserError: The folder is not a run.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise UserError(f"{path} is not a run.", fix="Use a folder such as w2s_runs/runs/<recipe name>/latest.")
        return cls(path.resolve())

    @property
    def state(self) -> dict[str, Any]:
        """The content of ``run.json``: status, and key, state and seconds of every node.

        Raises:
            UserError: It is damaged.
        """
        try:
            state = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            nodes = state["nodes"].values()
            if isinstance(state["recipe"], str) and isinstance(state["status"], str) and all(map(_is_entry, nodes)):
                return dict(state)
            why = "An entry is not what a run writes."
        except KeyError as error:
            why = f"It has no {error}."
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            why = f"{error}."
        raise UserError(
            f"{self.path / 'run.json'} is damaged.",
            why=why,
            fix=f"Delete {self.path} and run the recipe again: finished artifacts are kept elsewhere.",
        )

    @property
    def report(self) -> Path | None:
        """The page, when the recipe has a report step that is done."""
        page = self.path / "report.html"
        return page if page.exists() else None

    def verdict(self) -> str:
        """Return the sentence that the report begins with, or nothing when there is no report."""
        page = self.report
        return "" if page is None else str(Artifact.open(page.resolve().parent).manifest["result"].get("verdict", ""))

    def artifact(self, name: str) -> Artifact:
        """Return the artifact of a step (``weak``), of one of its seeds (``dpo@1``), or of an implied node."""
        link = self.path / "steps" / _link_name(name)
        if not link.exists():
            raise UserError(
                f"This run has no finished step {name}.", fix=f"Available: {', '.join(self.names()) or 'none yet'}."
            )
        return Artifact.open(link.resolve()).whole()

    def names(self) -> list[str]:
        """Return the names of all finished nodes."""
        return [name for name, item in self.state["nodes"].items() if item["state"] in ("cached", "done")]

    def table(self, name: str, table: str | None = None) -> pa.Table:
        """Return the rows of a step's artifact as an Arrow table."""
        return self.artifact(name).table(table)


def _is_entry(node: Any) -> bool:
    return all(isinstance(node[name], str) for name in ("kind", "key", "state"))


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


def record_state(
    run: Run, recipe: Recipe, planned: Mapping[str, Planned], store: Store, outcome: Outcome, status: str
) -> None:
    """Write run.json and the links to everything that is finished, by whatever process.

    Args:
        run: The run.
        recipe: Its recipe.
        planned: Its plan.
        store: Where artifacts are made.
        outcome: What this process has made of it so far.
        status: How the run stands, unless all of it is done.
    """
    with store.lock("run", recipe.name):
        before = run.state
        nodes = {
            name: _record_node(run, item, store, outcome, before["nodes"].get(name, {}))
            for name, item in planned.items()
        }
        if all(node["state"] in ("cached", "done") for node in nodes.values()):
            status = "done"
        content = {"recipe": before["recipe"], "name": recipe.name, "status": status, "nodes": nodes}
        write_json(run.path / "run.json", content)


def _record_node(run: Run, item: Planned, store: Store, outcome: Outcome, other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a node in run.json, and link its artifact when it is finished.

    Args:
        other: The entry that is there, perhaps of another process.
    """
    name, kind = item.node.name, item.node.config.kind
    mine: str | None = outcome.states.get(name)
    state = "waiting" if mine in (None, "shard") else mine
    if state == "waiting" and store.find(kind, item.key) is not None:
        state = "cached"  # made by another process meanwhile
    elif mine is None and other.get("key") == item.key and other["state"] in ("running", "failed"):
        state = other["state"]  # of a process that makes what this one does not
    if state in ("cached", "done"):
        target = store.path(kind, item.key)
        _link(run.path / "steps" / _link_name(name), Path(os.path.relpath(target, run.path / "steps")))
        if item.node.config.writes == "report":
            for page in ("report.html", "report.md"):
                _link(run.path / page, Path(os.path.relpath(target / page, run.path)))
            link_models(run, target / "cards")
    seconds = outcome.seconds.get(name) or other.get("seconds")
    return {"kind": kind, "key": item.key, "state": state, "seconds": seconds}


def link_models(run: Run, cards: Path) -> None:
    """Make ``models/<step>``: the files of each evaluated model, with the card that has the evaluation in it."""
    for card in sorted(cards.glob("*.md")):
        model = run.path / "steps" / card.stem / "model"
        if not model.is_dir():
            continue
        folder = run.path / "models" / card.stem
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*(path for path in model.iterdir() if path.name != "README.md"), card]:
            link = folder / ("README.md" if file is card else file.name)
            _link(link, Path(os.path.relpath(file.resolve(), folder)))


def _link(link: Path, target: Path) -> None:
    """Point a symbolic link to a target, replacing an older one in one move."""
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
