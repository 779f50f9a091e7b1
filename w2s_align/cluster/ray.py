"""A recipe on a Ray cluster: one Ray task for each artifact, as soon as what it reads is there.

Reads and writes the folder of the runs, which all machines of the cluster must see. A task does what
``w2s run RECIPE --only ARTIFACT`` does; Ray places it where its cores and GPUs are free, and starts it again when its
machine is lost. Of a generation, each task makes a shard, and the last one to finish assembles the artifact. A
training on several machines has a placement group with one bundle for each (ray_start.py starts its processes there).
When this process is killed its tasks end with it; the same command resumes from there.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w2s_align.artifacts.store import Store
from w2s_align.cluster.needs import needs
from w2s_align.cluster.ray_nodes import check_machines, cluster_machines, connect_cluster
from w2s_align.errors import Problem, UserError
from w2s_align.machine import Machine, this_machine
from w2s_align.processes import STARTER
from w2s_align.recipe import Recipe
from w2s_align.runs.execute import execute, run_plan
from w2s_align.runs.executor import Executor
from w2s_align.runs.loaded import recipe_from_text
from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.plan import Planned, plan
from w2s_align.runs.run import Run
from w2s_align.runs.status import now

TAKEN_ALONG = ("HF_", "W2S_", "VLLM_", "NCCL_", "OPENAI_")
"""Environment variables with these beginnings go with a task, where its machine has none of its own."""
POLL_SECONDS = 1.0
"""Seconds between two looks at the tasks and their progress."""


@dataclass(frozen=True)
class Launch:
    """What every task is told, the same for all of them.

    Attributes:
        text: The recipe as the user wrote it.
        name: How messages call it.
        overrides: Values set on the command line.
        root: Folder of the runs.
        here: Where relative paths begin, on machines that have this folder.
        environment: Variables that tasks take along.
    """

    text: str
    name: str
    overrides: tuple[str, ...]
    root: str
    here: str
    environment: Mapping[str, str]

    @classmethod
    def of(cls, recipe: Recipe, overrides: Sequence[str], store: Store) -> Launch:
        """Return what tasks are told about a recipe that was loaded here."""
        taken = {name: value for name, value in os.environ.items() if name.startswith(TAKEN_ALONG)}
        return cls(recipe.text, recipe.path or recipe.name, tuple(overrides), str(store.root), str(Path.cwd()), taken)


def launch_on_ray(
    recipe: Recipe,
    overrides: Sequence[str],
    runs_dir: Path,
    on_event: Callable[[Event], None],
    nodes: int = 1,
    cpus: int = 16,
    address: str | None = None,
) -> tuple[Run, Outcome]:
    """Run a recipe on a Ray cluster, until everything is done that can be done.

    Args:
        recipe: The recipe, loaded with the overrides.
        overrides: Values set on the command line; each machine reads the recipe again.
        runs_dir: Folder of the runs, which all machines share.
        on_event: Called for everything that happens.
        nodes: Machines of a training on several processes, and shards of a generation, where the recipe does not say.
        cpus: Cores of a task that does not say.
        address: The cluster, as ``ray.init`` takes it. Default: the environment variable RAY_ADDRESS, else ``auto``.

    Returns:
        The run, and what became of its steps.

    Raises:
        UserError: There is no such cluster; a machine of it does not see the folder, or has other packages; or an
            artifact needs more than the cluster has.
    """
    store = Store(runs_dir)
    planned = plan(recipe, store)
    own = connect_cluster(address)
    try:
        executor = RayExecutor(Launch.of(recipe, overrides, store), planned, store, nodes, cpus)
        return run_plan(recipe, planned, store, executor.run, on_event)
    finally:
        if own:
            import ray

            ray.shutdown()


class RayExecutor(Executor):
    """Makes the artifacts of a plan on the Ray cluster that this process is connected to.

    Args:
        launch: What the tasks are told.
        planned: The plan.
        store: Folder of the runs.
        nodes: Machines of a training on several processes, and shards of a generation, where the recipe does not say.
        cpus: Cores of a task that does not say.

    Raises:
        UserError: A machine does not see the folder, or an artifact needs more than the cluster has.
    """

    def __init__(self, launch: Launch, planned: Mapping[str, Planned], store: Store, nodes: int, cpus: int) -> None:
        super().__init__(planned)
        self._launch, self._store = launch, store
        self._machines = cluster_machines()
        self._cpus = min(cpus, max(machine.cpus for machine in self._machines))
        gpus = max(len(machine.gpus) for machine in self._machines)
        missing = {name: item for name, item in planned.items() if item.status != "cached"}
        self._needs = {name: needs(item, nodes, gpus) for name, item in missing.items()}
        self._refuse_what_does_not_fit()
        check_machines(store)
        self._tasks: dict[Any, _Task] = {}

    def running(self) -> list[str]:
        """Return the nodes that tasks are making; of one that failed, some shards may still be at work."""
        return list(dict.fromkeys(task.name for task in self._tasks.values()))

    def start(self, name: str) -> None:
        """Hand a node to Ray, which places its tasks where cores and GPUs are free."""
        import ray

        need, cpus = self._needs[name], self._cores(name)
        make = ray.remote(_make)
        group: Any = None
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": need.gpus, "name": f"w2s {name}"}
        if need.nodes > 1:
            bundle: dict[str, float] = {"CPU": cpus, **({"GPU": need.gpus} if need.gpus else {})}
            group = _Group(f"w2s-{secrets.token_hex(6)}", [bundle] * need.nodes)
            options["scheduling_strategy"] = group.place(0)
        for number in range(1, need.shards + 1):
            shard = (number, need.shards) if need.shards > 1 else None
            told = (self._launch, name, shard, (cpus, need.gpus), group.name if group else "", need.nodes)
            reference = make.options(**options).remote(*told)
            self._tasks[reference] = _Task(name, group)
        self.outcome.states[name] = "running"
        self.on_event(Event(name, "started", note=self.planned[name].status if need.shards == 1 else ""))

    def wait(self) -> None:
        """Wait for tasks to end, and report the progress of the others."""
        import ray

        finished, _ = ray.wait(list(self._tasks), timeout=POLL_SECONDS)
        for reference in finished:
            self._finished(reference)
        self._report_progress()

    def stop(self, completed: bool) -> None:
        """Cancel the tasks that are still there."""
        import ray

        for reference in self._tasks:
            ray.cancel(reference, force=True)

    def _cores(self, name: str) -> int:
        asked = self.planned[name].node.config.claims().cpus
        return min(asked or self._cpus, self._cpus)

    def _finished(self, reference: Any) -> None:
        import ray

        task = self._tasks.pop(reference)
        if task.group is not None:
            task.group.remove()
        name, states = task.name, self.outcome.states
        try:
            told = ray.get(reference)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            told = {"host": "a machine that was lost", "state": "failed", "problems": [], "crashes": []}
            self.outcome.crashes.append((name, f"Ray lost its task: {said[0] if said else error!r}", self._log(name)))
        self.outcome.problems += [Problem(**problem) for problem in told["problems"]]
        self.outcome.crashes += [tuple(crash) for crash in told["crashes"]]
        if told["state"] in ("done", "cached") and states[name] != "done":
            self.done(name, told["seconds"], Event(name, "done", note=f"{told['seconds']:.1f} s on {told['host']}"))
        elif told["state"] == "failed" and states[name] == "running":
            self.failed(name, Event(name, "failed", note=f"on {told['host']}"))
        elif told["state"] == "shard" and states[name] == "running" and name not in self.running():
            # A shard is missing that no task is making any more.
            self.outcome.crashes.append((name, "Its tasks ended, but some shards are missing.", self._log(name)))
            self.failed(name, Event(name, "failed"))

    def _log(self, name: str) -> str:
        return str(self._store.partial(*self.artifact(name)))

    def _report_progress(self) -> None:
        """Report the progress that tasks write beside their data."""
        for name in self.running():
            if self.outcome.states[name] != "running":
                continue  # one of its shards has failed
            found = now(self._store, *self.artifact(name))
            if found.state == "running":
                where = f"on {', '.join(found.hosts)}" if found.hosts else ""
                note = ", ".join(text for text in (found.note, where) if text)
                self.on_event(Event(name, "progress", found.done, found.total, note))
            elif found.state == "waiting":
                self.on_event(Event(name, "progress", note="waiting for a free machine"))

    def _refuse_what_does_not_fit(self) -> None:
        """Refuse what Ray would wait for until the end of time."""
        problems = []
        for name, need in self._needs.items():
            cpus = self._cores(name)
            fit = sum(machine.cpus >= cpus and len(machine.gpus) >= need.gpus for machine in self._machines)
            if fit < need.nodes:
                listed = ", ".join(f"{m.cpus} cores and {len(m.gpus)} GPUs" for m in self._machines)
                what = f"{name} needs {need.nodes} machines with {cpus} cores and {need.gpus} GPUs each; {fit} fit"
                fix = "Lower --nodes or --cpus or its resources in the recipe, or add machines."
                problems.append(Problem(f"{what}.", f"The cluster has: {listed}.", fix))
        if problems:
            raise UserError.all(problems)


@dataclass(frozen=True)
class _Task:
    """A Ray task: its artifact, and the machines that it holds."""

    name: str
    group: _Group | None


class _Group:
    """Machines for one training: a placement group with one bundle on each of them."""

    def __init__(self, name: str, bundles: list[dict[str, float]]) -> None:
        from ray.util import placement_group

        self.name = name
        self._group = placement_group(bundles, strategy="STRICT_SPREAD", name=name)

    def place(self, bundle: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    def remove(self) -> None:
        from ray.util import remove_placement_group

        remove_placement_group(self._group)


def _make(
    launch: Launch,
    name: str,
    shard: tuple[int, int] | None,
    machine: tuple[int, int],
    group: str,
    nodes: int,
) -> dict[str, Any]:
    """Make one artifact, or a shard, on the machine where Ray has placed this task."""
    cpus, gpus = machine
    with contextlib.suppress(OSError):
        os.chdir(launch.here)
    for variable, value in launch.environment.items():
        os.environ.setdefault(variable, value)
    told: dict[str, Any] = {
        "host": socket.gethostname(),
        "state": "failed",
        "problems": [],
        "crashes": [],
        "seconds": 0.0,
    }
    with _rank_variables(group, nodes):
        try:
            recipe = recipe_from_text(launch.text, launch.name, launch.overrides).recipe
            here = Machine(cpus, this_machine().gpus[:gpus])
            _, outcome = execute(recipe, Store(Path(launch.root)), here, lambda event: None, [name], shard)
        except UserError as error:
            return told | {"problems": error.to_json()}
    return told | {
        "state": outcome.states[name],
        "seconds": outcome.seconds.get(name, 0.0),
        "problems": [asdict(problem) for problem in outcome.problems],
        "crashes": outcome.crashes,
    }


@contextlib.contextmanager
def _rank_variables(group: str, nodes: int) -> Iterator[None]:
    """Set, for the first machine of a training, what its launcher needs to reach the others (training/launch.py)."""
    ray: Any = importlib.import_module("ray")
    address = ray.get_runtime_context().gcs_address
    values = {"RAY_ADDRESS": address, "NNODES": str(nodes)}
    values[STARTER] = shlex.join([sys.executable, "-m", "w2s_align.cluster.ray_start", group])
    values["MASTER_ADDR"] = ray.util.get_node_ip_address()
    with socket.socket() as free:
        free.bind(("", 0))
        values["MASTER_PORT"] = str(free.getsockname()[1])
    before = {variable: os.environ.get(variable) for variable in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
