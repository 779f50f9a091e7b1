"""A recipe on a Ray cluster: one Ray task for each artifact, as soon as what it reads is there.

Reads and writes the folder of the runs, which all machines of the cluster must see. A task does what
``w2s run RECIPE --only ARTIFACT`` does; Ray places it where its cores and GPUs are free, and starts it again when its
machine is lost. Of a generation, each task makes a shard, and the one that finishes last puts the artifact together. A
training on several machines has a placement group with one bundle for each (ray_start.py starts its processes there).
When this process is killed its tasks end with it; the same command goes on from where they were.
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
from w2s_align.recipe import Recipe, apply_overrides, load, parse_document
from w2s_align.runs.execute import Event, Outcome
from w2s_align.runs.machine import Machine, this_machine
from w2s_align.runs.plan import Planned, plan
from w2s_align.runs.run import Run, carry_out, execute
from w2s_align.runs.status import now
from w2s_align.steps import CATALOGUE

TAKEN_ALONG = ("HF_", "W2S_", "VLLM_", "NCCL_", "OPENAI_")
"""Environment variables with these beginnings go with a task, where its machine has none of its own."""
LOOK_EVERY = 1.0


@dataclass(frozen=True)
class Order:
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
    def of(cls, recipe: Recipe, overrides: Sequence[str], store: Store) -> Order:
        """Return the order for a recipe that was loaded here."""
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
        executor = RayExecutor(Order.of(recipe, overrides, store), planned, store, nodes, cpus)
        return carry_out(recipe, planned, store, executor.run, on_event)
    finally:
        if own:
            import ray

            ray.shutdown()


class RayExecutor:
    """Makes the artifacts of a plan on the Ray cluster that this process is connected to.

    Args:
        order: What the tasks are told.
        planned: The plan.
        store: Folder of the runs.
        nodes: Machines of a training on several processes, and shards of a generation, where the recipe does not say.
        cpus: Cores of a task that does not say.
    """

    def __init__(self, order: Order, planned: Mapping[str, Planned], store: Store, nodes: int, cpus: int) -> None:
        self._order, self._planned, self._store = order, planned, store
        self._machines = cluster_machines()
        self._cpus = min(cpus, max(machine.cpus for machine in self._machines))
        gpus = max(len(machine.gpus) for machine in self._machines)
        missing = {name: item for name, item in planned.items() if item.status != "cached"}
        self._needs = {name: needs(item, nodes, gpus) for name, item in missing.items()}
        self._refuse_what_does_not_fit()
        check_machines(store)
        self._tasks: dict[Any, _Task] = {}

    def run(self, outcome: Outcome, on_event: Callable[[Event], None]) -> None:
        """Run until nothing is left that can run; see :func:`~.run.carry_out`."""
        import ray

        self._outcome, self._on_event = outcome, on_event
        states = outcome.states
        for name, item in self._planned.items():
            states[name] = "cached" if item.status == "cached" else "waiting"
            if states[name] == "cached":
                on_event(Event(name, "cached"))
        try:
            while True:
                for name in self._ready():
                    self._start(name)
                if not self._tasks:
                    break
                finished, _ = ray.wait(list(self._tasks), timeout=LOOK_EVERY)
                for reference in finished:
                    self._finish(reference)
                self._look()
        finally:
            for reference in self._tasks:
                ray.cancel(reference, force=True)
        for name, state in states.items():
            if state == "waiting":
                states[name] = "skipped"
                on_event(Event(name, "skipped", note="it reads a step that failed"))

    def _ready(self) -> list[str]:
        states = self._outcome.states
        return [
            name
            for name, state in states.items()
            if state == "waiting"
            and all(states[source] in ("cached", "done") for source in self._planned[name].node.inputs.values())
        ]

    def _start(self, name: str) -> None:
        import ray

        need = self._needs[name]
        cpus = self._cores(name)
        make = ray.remote(_make)
        group: Any = None
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": need.gpus, "name": f"w2s {name}"}
        if need.nodes > 1:
            bundle: dict[str, float] = {"CPU": cpus, **({"GPU": need.gpus} if need.gpus else {})}
            group = _Group(f"w2s-{secrets.token_hex(6)}", [bundle] * need.nodes)
            options["scheduling_strategy"] = group.place(0)
        for number in range(1, need.shards + 1):
            part = (number, need.shards) if need.shards > 1 else None
            told = (self._order, name, part, (cpus, need.gpus), group.name if group else "", need.nodes)
            reference = make.options(**options).remote(*told)
            self._tasks[reference] = _Task(name, group)
        self._outcome.states[name] = "running"
        self._on_event(Event(name, "started", note=self._planned[name].status if need.shards == 1 else ""))

    def _cores(self, name: str) -> int:
        asked = self._planned[name].node.config.claims().cpus
        return min(asked or self._cpus, self._cpus)

    def _finish(self, reference: Any) -> None:
        import ray

        task = self._tasks.pop(reference)
        if task.group is not None:
            task.group.remove()
        name, states = task.name, self._outcome.states
        try:
            told = ray.get(reference)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            told = {"host": "a machine that is lost", "state": "failed", "problems": [], "crashes": []}
            self._outcome.crashes.append((name, f"Ray lost its task: {said[0] if said else error!r}", self._log(name)))
        self._outcome.problems += [Problem(**problem) for problem in told["problems"]]
        self._outcome.crashes += [tuple(crash) for crash in told["crashes"]]
        if told["state"] in ("done", "cached") and states[name] != "done":
            states[name] = "done"
            self._outcome.seconds[name] = told["seconds"]
            self._on_event(Event(name, "done", note=f"{told['seconds']:.1f} s on {told['host']}"))
        elif told["state"] == "failed" and states[name] == "running":
            states[name] = "failed"
            self._on_event(Event(name, "failed", note=f"on {told['host']}"))
        elif told["state"] == "part" and states[name] == "running" and not self._is_at_work(name):
            states[name] = "failed"  # a shard is missing that no task is making any more
            self._outcome.crashes.append((name, "Its shards ended, and not all are there.", self._log(name)))
            self._on_event(Event(name, "failed"))

    def _is_at_work(self, name: str) -> bool:
        return any(task.name == name for task in self._tasks.values())

    def _log(self, name: str) -> str:
        item = self._planned[name]
        return str(self._store.partial(item.node.config.kind, item.key))

    def _look(self) -> None:
        """Report the progress that tasks write beside their data."""
        for name in dict.fromkeys(task.name for task in self._tasks.values()):
            if self._outcome.states[name] != "running":
                continue  # one of its shards has failed
            item = self._planned[name]
            found = now(self._store, item.node.config.kind, item.key)
            if found.state == "running":
                where = f"on {', '.join(found.hosts)}" if found.hosts else ""
                note = ", ".join(text for text in (found.note, where) if text)
                self._on_event(Event(name, "progress", found.done, found.total, note))
            elif found.state == "waiting":
                self._on_event(Event(name, "progress", note="waits for a machine that is free"))

    def _refuse_what_does_not_fit(self) -> None:
        """Refuse what Ray would wait for until the end of time."""
        problems = []
        for name, need in self._needs.items():
            cpus = self._cores(name)
            fit = sum(machine.cpus >= cpus and len(machine.gpus) >= need.gpus for machine in self._machines)
            if fit < need.nodes:
                listed = ", ".join(f"{m.cpus} cores and {len(m.gpus)} GPUs" for m in self._machines)
                what = f"{name} needs {need.nodes} machines with {cpus} cores and {need.gpus} GPUs each, and {fit} fit"
                fix = "Lower --nodes or --cpus, or its resources in the recipe, or add machines."
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
    order: Order,
    name: str,
    part: tuple[int, int] | None,
    machine: tuple[int, int],
    group: str,
    nodes: int,
) -> dict[str, Any]:
    """Make one artifact, or a shard, on the machine where Ray has placed this task."""
    cpus, gpus = machine
    with contextlib.suppress(OSError):
        os.chdir(order.here)
    for variable, value in order.environment.items():
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
            document = parse_document(order.text, order.name)
            apply_overrides(document, order.overrides)
            recipe = load(document, CATALOGUE)
            here = Machine(cpus, this_machine().gpus[:gpus])
            _, outcome = execute(recipe, Store(Path(order.root)), here, lambda event: None, [name], part)
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
    from w2s_align.training.layout import STARTER

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
