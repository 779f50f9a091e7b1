"""The core of runs with tiny steps: what runs when, in which process, and what a run records. No domain package."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from tiny_steps import CATALOGUE, Number, tiny_recipe
from waiting import wait_until

from w2s_align.artifacts.store import Store
from w2s_align.errors import UserError
from w2s_align.machine import Machine
from w2s_align.recipe import Recipe
from w2s_align.runs import Run
from w2s_align.runs.execute import execute, run_plan
from w2s_align.runs.executor import Executor
from w2s_align.runs.find import find_target
from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.plan import plan
from w2s_align.runs.run import link_models
from w2s_align.runs.status import now
from w2s_align.runs.worker import WorkItem, run_item

DIAMOND = """
one: {kind: number, value: 1}
two: {kind: number, value: 2}
left: {kind: sum, of: [$one, $two]}
right: {kind: sum, of: [$two]}
all: {kind: sum, of: [$left, $right]}
"""


@pytest.fixture(autouse=True)
def workers_find_the_tiny_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker imports the class of a step by its path."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'tests' / 'support'}")


def run(recipe: Recipe, root: Path, **more: object) -> tuple[Run, Outcome, list[Event]]:
    events: list[Event] = []
    made, outcome = execute(recipe, Store(root), Machine(2, ()), events.append, **more)  # type: ignore[arg-type]
    return made, outcome, events


def number(made: Run, name: str) -> str:
    return (made.artifact(name).path / "number").read_text()


class Instant(Executor):
    """Makes everything at once in this process, in the order in which it may; some nodes fail."""

    def __init__(self, recipe: Recipe, store: Store, failing: Collection[str] = ()) -> None:
        super().__init__(plan(recipe, store))
        self.failing, self.order, self.busy = failing, [], []  # type: tuple[Collection[str], list[str], list[str]]

    def start(self, name: str) -> None:
        self.outcome.states[name] = "running"
        self.order.append(name)
        self.busy.append(name)

    def running(self) -> list[str]:
        return self.busy

    def wait(self) -> None:
        name = self.busy.pop()
        if name in self.failing:
            self.failed(name, Event(name, "failed"))
        else:
            self.done(name, 1.0, Event(name, "done"))

    def stop(self, completed: bool) -> None:
        self.completed = completed


def test_nothing_starts_before_what_it_reads(tmp_path: Path) -> None:
    executor, outcome = Instant(tiny_recipe(DIAMOND), Store(tmp_path)), Outcome()
    executor.run(outcome, lambda event: None)
    place = {name: index for index, name in enumerate(executor.order)}
    assert place["left"] > max(place["one"], place["two"]) and place["right"] > place["two"]
    assert executor.order[-1] == "all" and outcome.ok and executor.completed
    assert set(outcome.seconds) == set(place)


def test_what_reads_a_failed_node_is_skipped_and_the_rest_is_made(tmp_path: Path) -> None:
    executor, outcome = Instant(tiny_recipe(DIAMOND), Store(tmp_path), {"one"}), Outcome()
    events: list[Event] = []
    executor.run(outcome, events.append)
    assert outcome.states == {"one": "failed", "two": "done", "left": "skipped", "right": "done", "all": "skipped"}
    assert [event.note for event in events if event.kind == "skipped"] == ["it reads a step that failed"] * 2
    assert not outcome.ok


@pytest.mark.parametrize(("fails", "state"), [((), "cached"), (("one",), "skipped")])
def test_twins_are_made_once(tmp_path: Path, fails: tuple[str, ...], state: str) -> None:
    recipe = tiny_recipe("one: {kind: number, value: 1}\nsame: {kind: number, value: 1}")
    executor, outcome = Instant(recipe, Store(tmp_path), fails), Outcome()
    executor.run(outcome, lambda event: None)
    assert executor.order == ["one"] and outcome.states["same"] == state


def test_an_interrupted_executor_stops_what_is_at_work(tmp_path: Path) -> None:
    class Interrupted(Instant):
        def wait(self) -> None:
            raise KeyboardInterrupt

    recipe, store = tiny_recipe(DIAMOND), Store(tmp_path)
    executor = Interrupted(recipe, store)
    with pytest.raises(KeyboardInterrupt):
        run_plan(recipe, executor.planned, store, executor.run, lambda event: None)
    assert executor.completed is False
    assert Run.open(tmp_path / "runs" / "tiny" / "latest").state["status"] == "interrupted"


def test_a_plan_has_keys_that_follow_the_options_and_the_inputs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = plan(tiny_recipe(DIAMOND), store)
    again = plan(tiny_recipe(DIAMOND.replace("left", "links"), name="other"), store)
    assert {name: item.key for name, item in before.items() if name != "left"} == {
        name: item.key for name, item in again.items() if name != "links"
    }
    assert again["links"].key == before["left"].key  # names are not part of a key
    changed = plan(tiny_recipe(DIAMOND.replace("value: 1", "value: 3")), store)
    assert {name for name in before if before[name].key != changed[name].key} == {"one", "left", "all"}
    assert {item.status for item in before.values()} == {"to do"}


def test_a_run_makes_what_is_missing_and_records_it(tmp_path: Path) -> None:
    made, outcome, events = run(tiny_recipe(DIAMOND), tmp_path)
    assert outcome.ok and number(made, "all") == "5"
    assert made.state["status"] == "done" and set(made.names()) == {"one", "two", "left", "right", "all"}
    again, outcome, events = run(tiny_recipe(DIAMOND), tmp_path)
    assert again.path == made.path and {event.kind for event in events} == {"cached"}
    other, outcome, events = run(tiny_recipe(DIAMOND.replace("value: 2", "value: 4")), tmp_path)
    assert other.path != made.path and number(other, "all") == "9"
    assert [event.name for event in events if event.kind == "cached"] == ["one"]


def test_steps_that_name_the_same_process_share_it(tmp_path: Path) -> None:
    alone = "a: {kind: number, value: 1}\nb: {kind: number, value: 2}"
    made, _, _ = run(tiny_recipe(alone.replace("}", ", shared: true, resources: {cpus: 2}}")), tmp_path / "shared")
    assert made.artifact("a").manifest["result"]["pid"] == made.artifact("b").manifest["result"]["pid"]
    made, _, _ = run(tiny_recipe(alone), tmp_path / "alone")
    assert made.artifact("a").manifest["result"]["pid"] != made.artifact("b").manifest["result"]["pid"]


@pytest.mark.parametrize("how", ["refused", "crashed", "killed"])
def test_a_step_that_ends_badly_says_how(tmp_path: Path, how: str) -> None:
    recipe = tiny_recipe(f"bad: {{kind: broken, how: {how}}}\ngood: {{kind: number, value: 1}}")
    made, outcome, _ = run(recipe, tmp_path)
    assert outcome.states == {"bad": "failed", "good": "done"} and made.state["status"] == "failed"
    bad = plan(recipe, Store(tmp_path))["bad"]
    found = now(Store(tmp_path), "broken", bad.key)
    assert found.log is not None and "about to break" in found.log.read_text()
    if how == "refused":
        (problem,) = outcome.problems
        assert (problem.what, problem.where) == ("The number is odd.", "step bad")
        assert (found.state, found.note) == ("failed", "The number is odd.")
    else:
        ((name, said, log),) = outcome.crashes
        assert name == "bad" and log == str(found.log)
        assert ("RuntimeError: a bug" if how == "crashed" else "killed (signal 9)") in said
        assert found.state == ("failed" if how == "crashed" else "stopped")


def test_a_killed_step_resumes_and_is_watched_meanwhile(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    recipe = tiny_recipe(
        f"one: {{kind: number, value: 1}}\ntotal: {{kind: sum, of: [$one, $one], waits_for: {str(gate)!r}}}"
    )
    store = Store(tmp_path / "runs")
    result: list[Outcome] = []
    thread = threading.Thread(target=lambda: result.append(run(recipe, tmp_path / "runs")[1]))
    thread.start()
    key = plan(recipe, store)["total"].key
    found = wait_until(lambda: (seen := now(store, "sum", key)).hosts and seen)
    assert found.state == "running" and found.since is not None
    wait_until(lambda: found.last_line.endswith("adding"))
    status = json.loads((store.partial("sum", key) / "status.json").read_text())
    os.kill(status["pid"], signal.SIGKILL)
    thread.join()
    assert not result[0].ok and now(store, "sum", key).state == "stopped"
    kept = store.partial("sum", key) / "part-0"
    before = kept.stat().st_mtime_ns
    gate.touch()
    made, outcome, _ = run(recipe, tmp_path / "runs")
    assert outcome.ok and made.artifact("total").manifest["resumed"]
    assert (made.artifact("total").path / "part-0").stat().st_mtime_ns == before
    assert now(store, "sum", key).state == "done" and not (store.path("sum", key) / "status.json").exists()


def test_only_what_is_asked_for_is_made(tmp_path: Path) -> None:
    recipe = tiny_recipe(DIAMOND)
    with pytest.raises(UserError, match=r"left reads one, which has not been made yet.*--only one"):
        run(recipe, tmp_path, only=["left"])
    with pytest.raises(UserError, match=r"--only lft: no such step.*Did you mean left"):
        run(recipe, tmp_path, only=["lft"])
    run(recipe, tmp_path, only=["one", "two"])
    made, outcome, _ = run(recipe, tmp_path, only=["left"])
    assert outcome.ok and made.state["status"] == "running" and set(made.names()) == {"one", "two", "left"}


def test_until_makes_a_step_and_what_it_reads_and_nothing_else(tmp_path: Path) -> None:
    recipe = tiny_recipe(DIAMOND)
    with pytest.raises(UserError, match=r"--until lft: no such step.*Did you mean left"):
        run(recipe, tmp_path, only=["lft"], with_inputs=True)
    made, outcome, _ = run(recipe, tmp_path, only=["right"], with_inputs=True)
    assert outcome.ok and set(made.names()) == {"two", "right"}


def test_a_run_of_one_step_with_other_values_does_not_hide_the_last_finished_run(tmp_path: Path) -> None:
    whole, _, _ = run(tiny_recipe(DIAMOND), tmp_path)
    part, _, _ = run(tiny_recipe(DIAMOND.replace("value: 1", "value: 5")), tmp_path, only=["one"])

    def finished(one: Run) -> bool:
        return "all" in one.names()

    assert find_target("tiny", tmp_path) == part
    assert find_target("tiny", tmp_path, finished) == whole
    assert find_target(f"tiny/{whole.path.name}", tmp_path) == whole
    assert find_target(f"tiny/{part.path.name}", tmp_path, finished) == part
    assert find_target(f"tiny/{whole.path.name}/left", tmp_path).path == whole.artifact("left").path
    assert find_target("tiny/one", tmp_path).path == part.artifact("one").path


def test_the_last_shard_assembles_the_artifact(tmp_path: Path) -> None:
    recipe = tiny_recipe("word: {kind: shared, digits: abcd}\nplain: {kind: number, value: 1}")
    store = Store(tmp_path)
    key = plan(recipe, store)["word"].key
    _, outcome, events = run(recipe, tmp_path, only=["word"], shard=(2, 2))
    assert outcome.states == {"word": "shard"} and outcome.ok
    assert events[-1].note == "shard 2 of 2; others are not finished"
    assert now(store, "shared", key).note == "1 of 2 shards finished"
    made, outcome, _ = run(recipe, tmp_path, only=["word"], shard=(1, 2))
    assert outcome.states == {"word": "done"} and number(made, "word") == "ac|bd"
    with pytest.raises(UserError, match=r"plain is a number step, which cannot be split.*word"):
        run(recipe, tmp_path, only=["plain"], shard=(1, 2))


def test_a_worker_opens_the_step_by_its_path_and_reports_in_events(tmp_path: Path) -> None:
    item = WorkItem(
        root=str(tmp_path),
        name="one",
        step=WorkItem.path_of(Number),
        config={"kind": "number", "value": 7},
        key="k" * 20,
        material={},
        inputs={},
        recipe={},
    )
    assert item.step == "tiny_steps:Number" and WorkItem(**json.loads(item.to_line())) == item
    events: list[dict[str, object]] = []
    assert run_item(item, events.append)["event"] == "done"
    artifact = Store(tmp_path).find("number", item.key)
    assert artifact is not None and artifact.type == CATALOGUE["number"].writes and artifact.manifest["name"] == "one"
    assert run_item(item, events.append) == {"event": "done", "twin": True}


def test_the_complete_card_lies_beside_the_weights(tmp_path: Path) -> None:
    made = Run(tmp_path / "run")
    model, cards = made.path / "steps" / "dpo@1" / "model", tmp_path / "report" / "cards"
    model.mkdir(parents=True)
    cards.mkdir(parents=True)
    for name, text in (("model.safetensors", "weights"), ("README.md", "of the training")):
        (model / name).write_text(text)
    for name in ("dpo@1", "pairs"):  # a data set has a card and no model
        (cards / f"{name}.md").write_text(f"with the evaluation of {name}")
    for _ in range(2):  # again when the run goes on
        link_models(made, cards)
    found = {path.name: path.read_text() for path in (made.path / "models" / "dpo@1").iterdir()}
    assert found == {"model.safetensors": "weights", "README.md": "with the evaluation of dpo@1"}
    assert [path.name for path in (made.path / "models").iterdir()] == ["dpo@1"]
    assert (model / "README.md").read_text() == "of the training"
