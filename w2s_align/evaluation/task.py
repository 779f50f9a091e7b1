"""What a task is: where its problems come from, how they are asked, what checks an answer, and the metric.

Each task is one YAML file in ``tasks/`` beside this file, or a file of yours in the same form. A suite
(``tasks/suites/``) is a list of tasks with settings. Texts are Jinja templates over the columns of a row, and values
are Jinja expressions; both run in a sandbox. Importing this file is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from w2s_align.errors import Problem, UserError, did_you_mean
from w2s_align.records import Settings
from w2s_align.scoring.scorers import ScorerSettings

FOLDER = Path(__file__).parent / "tasks"
"""The shipped tasks, one YAML file each."""
GENERATORS = ("lab/", "reasoning_gym/")
"""Tasks that are made, not downloaded: any of these names is a task without a file."""
LM_EVAL = "lm_eval/"
"""Tasks of lm-eval begin with this."""


def _known_metric(metric: str) -> str:
    if metric not in ("mean", "majority", "length_controlled") and not (
        metric.startswith("pass@") and metric[5:].isdigit()
    ):
        raise ValueError(f"{metric} is not a metric; use mean, majority, pass@10, or length_controlled")
    return metric


Metric = Annotated[str, AfterValidator(_known_metric)]
"""What a problem's answers come to: their mean score, whether the most frequent one is right, pass@k (unbiased); or,
where a judge compares them with a reference, the win rate controlled for length."""


def answers_needed(metric: Metric) -> int:
    """Return how many answers to a problem a metric needs at least: k for pass@k."""
    return int(metric.removeprefix("pass@")) if metric.startswith("pass@") else 1


class TaskData(Settings):
    """Where the rows come from."""

    repo: str | None = None
    """Dataset on the hub; in a mirror folder the same name."""
    config: str | None = None
    """Configuration of the dataset."""
    configs: list[str] = []
    """Several configurations, one after the other; each row has its own as ``config``."""
    split: str = "test"
    """Split with the problems."""
    shots: str | None = None
    """Split with the examples of few-shot prompts. Default: the problems' own; those used are left out."""
    rows: dict[str, int] = Field({}, exclude=True)
    """Rows of a split, where they are known: `w2s plan` counts with them. They change no problem, so they are no part
    of a key."""
    files: dict[str, str] = {}
    """File of a split in the repository, where its name does not say the split."""
    source: str | None = None
    """``lab/<task>`` or ``reasoning_gym/<dataset>`` in place of a dataset; or a local file."""
    options: dict[str, Any] = {}
    """Options of the generator."""


class TaskSampling(Settings):
    """How answers are drawn where the evaluation does not say: greedy, once."""

    max_tokens: int = Field(1024, ge=1)
    """Longest answer in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw only from the most likely tokens that together have this probability."""
    n: int = Field(1, ge=1)
    """Answers per problem."""
    stop: list[str] = []
    """Texts that end an answer."""


class TaskExamples(Settings):
    """Examples that a paper published, read from lm-eval's task files (see ``published.py``)."""

    file: str
    """The file below lm-eval's folder of tasks; ``{config}`` is the configuration of the problem's row."""
    shot: str
    """Template of the assistant's turn, over a row of the examples."""


class TaskSetting(Settings):
    """Which published setting a task follows, and what differs; shown with its results."""

    name: str
    """The setting and its source."""
    shots: int = 0
    """Examples before each problem in that setting."""
    sampling: TaskSampling | None = None
    """How answers are drawn in that setting, where it is known."""
    differs: list[str] = []
    """What is not as published, or could not be found out."""


class Task(Settings):
    """One benchmark."""

    name: str = ""
    """Its name; that of the file."""
    title: str = ""
    """What it is, with its paper."""
    data: TaskData
    """Where the rows come from."""
    prompt: str = "{{ prompt }}"
    """Template of the user's turn."""
    answer: str | None = None
    """Template of the gold answer."""
    choices: str | None = None
    """Multiple choice: expression that gives the list of options; ``options`` in the prompt are the lettered lines."""
    gold: str | None = None
    """Multiple choice: expression that gives the position of the right option, from 0."""
    option_label: str = "{}."
    """Multiple choice: how an option is labeled; ``{}`` is its letter."""
    shuffle: bool = False
    """Multiple choice: put the options in an order that the seed and the problem decide."""
    shot: str | None = None
    """Template of the assistant's turn in a few-shot example. Default: the gold answer."""
    shots: int = Field(0, ge=0)
    """Examples before each problem: the first of the examples' split, the same for all problems."""
    shots_style: Literal["turns", "text"] = "turns"
    """Examples as turns of the chat, or as text in one user's turn."""
    shots_same: str | None = None
    """Expression over a row; examples are taken from rows where it has the problem's value (e.g. the subject)."""
    shots_other: str | None = None
    """Expression over a row; the examples are the first row of each value that is not the problem's. No problem is
    lost to them, though they come from the same split."""
    published: TaskExamples | None = None
    """Published examples in place of a split's."""
    examples: list[dict[str, Any]] = []
    """Examples of your own in place of a split's or of published ones: rows with the same columns."""
    system: str | None = None
    """System turn."""
    meta: dict[str, str] = {}
    """What else the answer check reads: expressions over a row."""
    subject: str | None = None
    """Template of the part of the benchmark that a problem belongs to; reported apart."""
    difficulty: str | None = None
    """Template of how hard a problem is; reported apart."""
    scorer: str | ScorerSettings = "auto"
    """Answer check."""
    kind: Literal["generate", "judged", "likelihood", "lm_eval"] = "generate"
    """The model writes an answer; or a judge compares it with ``reference`` in the meta (AlpacaEval); or the model
    rates the given options (mc2 of TruthfulQA); or lm-eval asks it."""
    metric: Metric = "mean"
    """What a problem's answers come to."""
    average: Literal["problems", "subjects"] = "problems"
    """What the task's number is the mean of: its problems, or the means of its subjects, which all count the same."""
    setting: TaskSetting | None = Field(None, exclude=True)
    """The published setting that the file follows. It changes no problem, so it is no part of a key."""
    sampling: TaskSampling = TaskSampling()
    """How answers are drawn."""
    limit: int | None = Field(None, ge=1)
    """Ask this many problems, drawn by the seed."""

    @property
    def expected_problems(self) -> int | None:
        """How many problems are asked, as far as that is known before the data are loaded."""
        known = [number for number in (self.limit, self.data.rows.get(self.data.split)) if number is not None]
        return min(known, default=None)

    def content(self) -> dict[str, Any]:
        """Return what is part of a key: all but unused options that earlier versions did not have."""
        later = {"option_label", "shots_other", "published", "average"}
        unused = {name for name in later if getattr(self, name) == Task.model_fields[name].default}
        return self.model_dump(mode="json", exclude=unused)

    def published_files(self) -> list[str]:
        """Return the files of lm-eval that this task reads examples from: none without published examples."""
        if self.published is None or not self.shots or self.examples:
            return []
        configs = self.data.configs or [self.data.config or ""]
        return list(dict.fromkeys(self.published.file.replace("{config}", config) for config in configs))


class TaskChoice(Settings):
    """A task with settings of your own."""

    name: str
    """A shipped task, a YAML file, ``lab/<task>``, ``reasoning_gym/<dataset>``, or ``lm_eval/<task>``."""
    shots: int | None = Field(None, ge=0)
    """Examples before each problem."""
    shots_style: Literal["turns", "text"] | None = None
    """Examples as turns of the chat, or as text in one user's turn."""
    examples: list[dict[str, Any]] | None = None
    """Examples of your own: rows with the task's columns."""
    limit: int | None = Field(None, ge=1)
    """Ask this many problems, drawn by the seed."""
    scorer: str | ScorerSettings | None = None
    """Answer check."""
    metric: Metric | None = None
    """What a problem's answers come to: mean, majority, pass@k or length_controlled."""
    sampling: TaskSampling | None = None
    """How answers are drawn."""
    options: dict[str, Any] | None = None
    """Options of a generator."""
    include_path: str | None = None
    """Folder of lm-eval task files."""


def shipped_tasks() -> dict[str, Path]:
    """Return the shipped tasks by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


@cache
def dataset_rows(repo: str, config: str | None, split: str) -> int | None:
    """Return the rows of a dataset's split, where a shipped task knows them.

    Args:
        repo: Dataset on the hub.
        config: Configuration of the dataset; None for its only one.
        split: Split of the dataset.
    """
    known = [task.data.rows for path in shipped_tasks().values() if _is_of(task := _read(path), repo, config)]
    return next((rows[split] for rows in known if split in rows), None)


def _is_of(task: Task, repo: str, config: str | None) -> bool:
    return (task.data.repo, task.data.config, task.data.configs) == (repo, config, [])


def shipped_suites() -> dict[str, Path]:
    """Return the shipped suites by name."""
    return {path.stem: path for path in sorted((FOLDER / "suites").glob("*.yaml"))}


def load_task(name: str | TaskChoice) -> Task:
    """Return a task, with the settings of a choice put in.

    Args:
        name: A shipped task, a YAML file, ``lab/<task>``, ``reasoning_gym/<dataset>``, ``lm_eval/<task>``; or a
        choice.

    Raises:
        UserError: There is no such task, or its file is not one.
    """
    choice = TaskChoice(name=name) if isinstance(name, str) else name
    task = _find(choice.name)
    _refuse_idle_options(choice, task)
    given = choice.model_dump(exclude_none=True, exclude={"name", "options", "include_path", "scorer", "sampling"})
    if choice.options is not None:
        given["data"] = task.data.model_copy(update={"options": choice.options})
    for whole in ("scorer", "sampling"):
        if getattr(choice, whole) is not None:
            given[whole] = getattr(choice, whole)
    if choice.include_path is not None:
        given["data"] = task.data.model_copy(update={"source": choice.include_path})
    return task.model_copy(update=given)


def setting_lines(choice: TaskChoice, sampling: Sequence[TaskSampling] = ()) -> list[str]:
    """Return which published setting a task follows, what differs from it, and what the choice changes.

    Args:
        choice: The task, with settings of the user's own.
        sampling: How answers are drawn, where that is not left to the task.

    Returns:
        The setting first; empty where the task's file names none.
    """
    file, task = _find(choice.name), load_task(choice)
    if file.setting is None:
        return []
    changed = [
        f"{name} {value}"
        for name, value, as_published in (
            ("shots", task.shots, file.setting.shots),
            ("shots_style", task.shots_style, file.shots_style),
            ("scorer", task.scorer, file.scorer),
            ("metric", task.metric, file.metric),
            ("limit", task.limit, file.limit),
        )
        if value != as_published
    ]
    changed += ["examples of your own"] if task.examples and task.shots else []
    drawn = list(sampling) or [task.sampling]
    if file.kind != "likelihood" and any(one != (file.setting.sampling or file.sampling) for one in drawn):
        changed.append("sampling")
    lines = [file.setting.name, *file.setting.differs]
    return [*lines, f"Changed by this evaluation: {', '.join(changed)}."] if changed else lines


def _refuse_idle_options(choice: TaskChoice, task: Task) -> None:
    """Refuse settings that a task of this kind would not look at."""
    idle: dict[str, str] = {}
    if task.kind == "lm_eval":
        idle = dict.fromkeys(("shots_style", "examples", "scorer", "metric", "options"), "lm-eval asks and checks")
    elif task.data.source is not None and task.data.source.startswith(GENERATORS):
        idle = dict.fromkeys(("shots", "shots_style", "examples", "include_path"), "its problems are generated")
    else:
        idle = {"include_path": "it is not a task of lm-eval", "options": "its problems are not generated"}
        if task.kind == "judged":
            idle |= {"scorer": "a judge compares its answers with a reference"}
        if task.kind == "likelihood":
            idle |= dict.fromkeys(("scorer", "metric", "sampling"), "given answers are rated, none is written")
    for name, why in idle.items():
        if getattr(choice, name) is not None:
            raise UserError(f"tasks: {choice.name} does not take {name}: {why}.", fix="Leave it out.")


def _find(name: str) -> Task:
    if name.startswith(LM_EVAL):
        return Task(name=name, title="lm-eval", data=TaskData(repo=None), kind="lm_eval")
    if name.startswith(GENERATORS):
        return Task(name=name, title=name, data=TaskData(source=name), limit=200)
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _read(path)
    shipped = shipped_tasks()
    if name not in shipped:
        raise UserError(
            f"There is no task {name}.",
            fix=did_you_mean(name, shipped) + " Or a YAML file, lab/<task>, reasoning_gym/<dataset>, lm_eval/<task>.",
        )
    return _read(shipped[name])


def _read(path: Path) -> Task:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The task file {path} cannot be read: {error}.") from None
    if not isinstance(data, dict):
        raise UserError(
            f"The task file {path} does not hold a mapping.", fix="See any file of w2s_align/evaluation/tasks."
        )
    try:
        return Task.model_validate({"name": path.stem, **data})
    except ValidationError as error:
        raise UserError.all(
            [_explain(path, item["loc"], item["type"], item["msg"]) for item in error.errors()]
        ) from None


def _explain(path: Path, place: tuple[int | str, ...], kind: str, message: str) -> Problem:
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        fix = did_you_mean(str(place[-1]), Task.model_fields) if len(place) == 1 else ""
        return Problem(f"{name} is not an option of a task.", fix=fix, where=str(path))
    return Problem(f"{name}: {message.removeprefix('Value error, ')}.", where=str(path))


def load_suite(name: str) -> list[TaskChoice]:
    """Return the tasks of a suite.

    Raises:
        UserError: There is no such suite.
    """
    shipped = shipped_suites()
    if name not in shipped:
        raise UserError(f"There is no suite {name}.", fix=did_you_mean(name, shipped))
    data = yaml.safe_load(shipped[name].read_text(encoding="utf-8"))
    return [
        TaskChoice.model_validate(entry if isinstance(entry, dict) else {"name": entry}) for entry in data["tasks"]
    ]
