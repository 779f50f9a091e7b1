"""What an evaluation refuses before it runs: metrics that its sampling cannot give, judging that cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from w2s_align.errors import Problem, UserError
from w2s_align.evaluation.task import Task, answers_needed
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.records import Settings
from w2s_align.scoring.judge import DEFAULT_SAMPLING

if TYPE_CHECKING:
    from w2s_align.evaluation.published_length_control import GamedRows


class Judging(Settings):
    """How the judge of judged tasks is asked."""

    reference: Literal["task", "baseline"] = "task"
    """What answers are compared with: the reference answers of the task, or those of the baseline (of its first seed,
    the first of each problem)."""
    template: str | None = None
    """What the judge is asked, with {prompt}, {first} and {second}; it ends in `Verdict: A`, `B` or `tie`. Default:
    this toolkit's own wording."""
    sampling: Sampling = DEFAULT_SAMPLING
    """How the judge's tokens are drawn. Default: greedy, 512 tokens."""
    gamed: str | None = None
    """`df_gamed.csv` of the data set tatsu-lab/alpaca_eval: win rates on alpaca_eval are then controlled for length as
    published too, beside our own control."""
    engine: Engine = Engine()
    """Engine of the judge; {name: openai} asks a server."""

    def gamed_rows(self) -> GamedRows | None:
        """Read the data of the published control for length, where they are named."""
        if self.gamed is None:
            return None
        from w2s_align.evaluation.published_length_control import read_gamed

        return read_gamed(Path(self.gamed).expanduser())


def check_metrics(tasks: Mapping[str, Task], sampling: Mapping[str, Sampling]) -> None:
    """Refuse pass@k of fewer than k answers: it would fail after all answers have been made.

    Args:
        tasks: The tasks.
        sampling: Settings of the whole evaluation by name; empty where each task has its own.

    Raises:
        UserError: With every such task and setting.
    """
    problems: list[Problem] = []
    for task in tasks.values():
        if task.kind != "generate":
            continue
        k = answers_needed(task.metric)
        drawn = {name: s.n for name, s in sampling.items()} or {"": task.sampling.n}
        for name, n in drawn.items():
            if n < k:
                where = f"sampling.{name}" if name else "sampling"
                problems.append(
                    Problem(
                        f"{task.name}: {task.metric} needs {k} answers to a problem, and {where} draws {n}.",
                        fix=f"sampling: {{n: {k}, temperature: 0.8, ...}} or more, or for this task metric: mean.",
                    )
                )
    if problems:
        raise UserError.all(problems)


def check_judging(judge: str | None, judging: Judging, has_resources: bool, tasks: Mapping[str, Task]) -> None:
    """Refuse judged tasks without a judge, a judge without them, and judging that they do not fit.

    Args:
        judge: The judge, or None.
        judging: How it is asked.
        has_resources: Whether resources are set for it.
        tasks: The tasks.

    Raises:
        UserError: See above.
    """
    judged = [task for task in tasks.values() if task.kind == "judged"]
    if judged and judge is None:
        raise UserError(
            f"{judged[0].name} needs a judge: a model that compares its answers with reference answers.",
            fix="judge: <hub id, folder or $step>, with how it is asked under judging.",
        )
    if judge is not None and not judged:
        raise UserError("judge: no task here is judged.", fix="Add tasks: [alpaca_eval], or leave judge out.")
    if judge is None and (judging != Judging() or has_resources):
        raise UserError("judging says how a judge is asked, and there is none.", fix="judge: <model>")
    silent = [task.name for task in judged if "reference" not in task.meta]
    if silent and judging.reference == "task":
        raise UserError(
            f"The task {silent[0]} has no reference answers.",
            fix="meta: {reference: <column>} in its file, or judging: {reference: baseline}",
        )
    if judging.gamed is not None:
        _check_gamed(judging, judged)


def _check_gamed(judging: Judging, judged: list[Task]) -> None:
    """Refuse the published control for length where its data do not belong: it would fail after all answers."""
    others = [task.name for task in judged if "index" not in task.meta]
    if others or judging.reference != "task":
        what = f"the task is {others[0]}" if others else "answers are compared with those of the baseline"
        raise UserError(
            f"judging.gamed is the published control for length of alpaca_eval, and {what}.",
            why="It was fitted on those instructions and that reference.",
            fix="Leave judging.gamed out: win rates are then controlled for length by our own fit.",
        )
    judging.gamed_rows()
