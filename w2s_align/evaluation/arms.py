"""Arms: what an evaluation compares, checked and reduced to one number per run and problem.

An arm is one model (or several, one per training seed) with a part in the experiment. This file reads tables of the
records' schemas (problems: Prompt; answers: Response; verdicts: Score) and never makes a Python object per row. What
does not fit together (other problems, doubled answers, two scorers) is refused before anything is computed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from w2s_align.errors import Problem, UserError
from w2s_align.evaluation.metrics import pass_at_k
from w2s_align.evaluation.results import Role
from w2s_align.evaluation.statistics import Floats
from w2s_align.scoring.scorer import Outcome

PRIMARY = "greedy"
"""The setting that a verdict is about, where it exists: one answer per problem, nothing drawn."""


@dataclass(frozen=True)
class Answers:
    """What one model answered in one sampling setting.

    Attributes:
        scores: Table of ``Score.SCHEMA``: one row per answer, null where it could not be scored.
        responses: Table of ``Response.SCHEMA`` for the same answers; None when only scores were kept, then lengths and
            truncation are unknown.
        choosers: Scores of the same answers by other scorers, each of which chooses one answer of several (best-of-n).
    """

    scores: pa.Table
    responses: pa.Table | None = None
    choosers: dict[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmRun:
    """One model of an arm.

    Attributes:
        seed: Name of the run, usually the training seed.
        settings: Its answers by name of the sampling setting (``greedy``, ``sampled``, ...).
    """

    seed: str
    settings: dict[str, Answers]


@dataclass(frozen=True)
class Arm:
    """One side of the experiment.

    Attributes:
        name: As the recipe calls it.
        role: teacher, student (the untouched one), treatment, control, ceiling or other.
        runs: One per training seed.
    """

    name: str
    role: Role
    runs: Sequence[ArmRun]


@dataclass
class Measured:
    """One arm in one setting, reduced to arrays: ``means``, ``scored`` and ``right`` of runs x problems, counts by
    problem.

    Attributes:
        means: What a problem's answers come to in a run: their mean, or the metric of its task; NaN where it has none.
        lowest: The same if every answer without a score were worth 0; NaN where that cannot be said.
        highest: The same if every one were worth 1.
        scored: Scored answers.
        right: Right answers.
        answers: Answers in all runs.
        unscored: Answers without a score.
        no_answer: Scored answers in which no result was found.
        responses: Answers of which it is known why they ended.
        truncated: Answers cut at the limit.
        tokens: Sum of their tokens.
        measured: Answers that ``tokens`` counts.
        details: Reasons of unscored answers.
        binary: Whether every scored answer is right or wrong.
        shares: Whether every score lies between 0 and 1; what a metric makes of them for one problem need not.
    """

    means: Floats
    lowest: Floats
    highest: Floats
    scored: NDArray[np.int64]
    right: Floats
    answers: Floats
    unscored: Floats
    no_answer: Floats
    responses: Floats
    truncated: Floats
    tokens: Floats
    measured: Floats
    details: Counter[str] = field(default_factory=Counter)
    binary: bool = True
    shares: bool = True

    @property
    def values(self) -> Floats:
        """One number per problem: the mean over runs; NaN where any run has none."""
        mean: Floats = self.means.mean(axis=0)
        return mean

    def facts(self, mask: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """Return what stands beside an accuracy, for some of the problems or for all."""
        here = slice(None) if mask is None else mask
        answers, unscored = self.answers[here].sum(), self.unscored[here].sum()
        responses, measured = self.responses[here].sum(), self.measured[here].sum()
        return {
            "unscored": int(unscored),
            "truncated_share": float(self.truncated[here].sum() / responses) if responses else None,
            "no_answer_share": float(self.no_answer[here].sum() / (answers - unscored))
            if answers > unscored
            else None,
            "mean_tokens": float(self.tokens[here].sum() / measured) if measured else None,
        }


def check_arms(ids: pa.Array, arms: Sequence[Arm], baseline: str, tasks: NDArray[np.int64]) -> list[str]:
    """Refuse what cannot be compared; return the settings, the one of the verdict first.

    Args:
        ids: The problems.
        arms: The arms.
        baseline: Name of the arm that the others are compared with.
        tasks: Number of each problem's task.

    Raises:
        UserError: With everything that does not fit together.
    """
    found: list[Problem] = []
    names = [arm.name for arm in arms]
    if not len(ids):
        found.append(
            Problem("There are no problems to evaluate on.", fix="Give a prompt source with at least one row.")
        )
    if pc.count_distinct(ids).as_py() != len(ids):
        found.append(Problem("The problems contain the same prompt more than once.", fix="Drop the repeated prompts."))
    if baseline not in names:
        found.append(
            Problem(f"The baseline {baseline!r} is not an arm.", f"The arms are {', '.join(names) or 'none'}.")
        )
    found += [Problem(f"Two arms are called {name!r}.") for name, n in Counter(names).items() if n > 1]
    found += [Problem(f"Arm {arm.name!r} has no run.") for arm in arms if not arm.runs]
    used = {arm.name: [list(run.settings) for run in arm.runs] for arm in arms}
    settings = next((runs[0] for runs in used.values() if runs), [])
    for name, runs in used.items():
        found += [
            Problem(f"Arm {name!r} has the settings {', '.join(s) or 'none'}, another has {', '.join(settings)}.")
            for s in runs
            if set(s) != set(settings) or not s
        ][:1]
    if not found:
        found = [
            problem
            for arm in arms
            for run in arm.runs
            for setting, answers in run.settings.items()
            for problem in _misfits(f"Arm {arm.name!r}, seed {run.seed}, {setting}", answers, ids, tasks)
        ]
    if found:
        raise UserError.all(found)
    return sorted(settings, key=lambda s: s != PRIMARY)


def _misfits(where: str, answers: Answers, ids: pa.Array, tasks: NDArray[np.int64]) -> list[Problem]:
    found = []
    for what, table in (("scores", answers.scores), ("responses", answers.responses)):
        if table is None:
            continue
        asked = table.column("prompt_id").unique()
        missing = len(ids) - pc.sum(pc.is_in(ids, value_set=asked)).as_py()
        other = len(asked) - (pc.sum(pc.is_in(asked, value_set=ids)).as_py() or 0)
        if missing or other:
            found.append(
                Problem(
                    f"{where}: the {what} belong to other problems than the ones given.",
                    f"{missing} of {len(ids)} problems have none, {other} problems are not among the given.",
                    "Let every arm answer the same prompts; an answer that failed is a row without a value.",
                )
            )
        distinct = table.group_by(["prompt_id", "sample"]).aggregate([]).num_rows
        if distinct != table.num_rows:
            doubled = table.num_rows - distinct
            found.append(
                Problem(f"{where}: {doubled} {what} are doubled (same problem, same sample).", fix="Drop them.")
            )
    several = _scorers_by_task(answers.scores, ids, tasks)
    if several:
        why = "A comparison needs one score per answer."
        found.append(Problem(f"{where}: the scores come from {len(several)} scorers: {', '.join(several)}.", why))
    return found


def _scorers_by_task(scores: pa.Table, ids: pa.Array, tasks: NDArray[np.int64]) -> list[str]:
    """Return the scorers of the first task that has several."""
    where = pc.index_in(scores.column("prompt_id"), value_set=ids).to_numpy()
    known = ~np.isnan(where) if where.dtype.kind == "f" else np.ones(len(where), dtype=bool)
    names = np.asarray(scores.column("scorer").to_pylist(), dtype=object)
    by_task: dict[int, set[str]] = {}
    for task, name in set(zip(tasks[where[known].astype(int)].tolist(), names[known].tolist(), strict=True)):
        by_task.setdefault(task, set()).add(name)
    return next((sorted(found) for found in by_task.values() if len(found) > 1), [])


def task_numbers(problems: pa.Table, averages: Collection[str] = ()) -> NDArray[np.int64]:
    """Number the task of each problem, in the order in which tasks first occur.

    Args:
        problems: Rows of ``Prompt.SCHEMA``.
        averages: Tasks that are the mean over their subjects.

    Returns:
        Shape (problems,); with ``averages`` (problems, 2), the second column being the number of the problem's subject
        in these tasks, and 0 in the others (see macro.py).
    """
    names = problems.column("task").to_pylist()
    first = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tasks = np.asarray([first[name] for name in names], dtype=np.int64)
    if not averages:
        return tasks
    subjects: list[str] = []
    for name, meta in zip(names, problems.column("meta").to_pylist(), strict=True):
        subjects.append(str(json.loads(meta).get("subject", "")) if name in averages else "")
    number = {subject: place for place, subject in enumerate(dict.fromkeys(["", *subjects]))}
    return np.column_stack([tasks, [number[subject] for subject in subjects]]).astype(np.int64)


def measure(arm: Arm, setting: str, ids: pa.Array, metrics: Sequence[str] = ()) -> Measured:
    """Reduce the tables of one arm and setting to arrays of runs x problems, in the order of ``ids``.

    Args:
        arm: The arm.
        setting: The sampling setting.
        ids: The problems.
        metrics: Metric of each problem: ``mean``, ``majority``, ``pass@k`` or ``length_controlled``; ``mean`` for all
            where it is empty.
    """
    n, runs = len(ids), len(arm.runs)
    total, right, scored = np.zeros((runs, n)), np.zeros((runs, n)), np.zeros((runs, n), dtype=np.int64)
    missing = np.zeros((runs, n))
    result = Measured(total, total, total, scored, right, *np.zeros((7, n)))
    for row, run in enumerate(arm.runs):
        answers = run.settings[setting]
        where = pc.index_in(answers.scores.column("prompt_id"), value_set=ids).to_numpy()
        value = answers.scores.column("value").to_numpy().astype(float)
        known = np.isfinite(value)
        scored[row] = np.bincount(where[known], minlength=n)
        total[row] = np.bincount(where[known], weights=value[known], minlength=n)
        right[row] = np.bincount(where[known & (value == 1.0)], minlength=n)
        result.binary = result.binary and bool(np.isin(value[known], (0.0, 1.0)).all())
        result.shares = result.shares and bool(((value[known] >= 0) & (value[known] <= 1)).all())
        result.answers += np.bincount(where, minlength=n)
        missing[row] = np.bincount(where[~known], minlength=n)
        result.unscored += missing[row]
        outcome = answers.scores.column("outcome")
        # Scores of older files have the reason in words alone.
        reason = pc.coalesce(outcome, answers.scores.column("detail"))
        for row_count in reason.filter(pa.array(~known)).value_counts().to_pylist():
            result.details[row_count["values"] or "no reason given"] += row_count["counts"]
        lost = pc.equal(outcome, Outcome.NO_ANSWER).fill_null(False).to_numpy() & known & (value == 0)
        result.no_answer += np.bincount(where[lost], minlength=n)
        if answers.responses is not None:
            _count_responses(result, answers.responses, ids)
    with np.errstate(invalid="ignore"):
        result.means = np.where(scored > 0, total / np.maximum(scored, 1), np.nan)
        given = scored + missing
        result.lowest = np.where(given > 0, total / np.maximum(given, 1), np.nan)
        result.highest = np.where(given > 0, (total + missing) / np.maximum(given, 1), np.nan)
    for metric in sorted(set(metrics) - {"mean"}):
        mask = np.asarray([m == metric for m in metrics])
        _apply_metric(result, metric, mask, arm, setting, ids)
        _bound_metric(result, metric, mask, missing)
    return result


def _bound_metric(result: Measured, metric: str, mask: NDArray[np.bool_], missing: Floats) -> None:
    """Say what the answers without a score could change in the problems of a metric."""
    touched = mask & (missing > 0)
    result.lowest = np.where(mask, result.means, result.lowest)
    result.highest = np.where(mask, result.means, result.highest)
    if metric.startswith("pass@"):
        k = int(metric.removeprefix("pass@"))
        given = (result.scored + missing).astype(np.int64)
        enough = touched & (given >= k)
        result.lowest[enough] = pass_at_k(given[enough], result.right[enough], k)
        result.highest[enough] = pass_at_k(given[enough], (result.right + missing)[enough], k)
    elif metric == "majority":
        result.lowest[touched], result.highest[touched] = 0.0, 1.0
    else:  # a fit over all answers: there is no telling what the missing ones would do to it
        result.lowest[touched] = result.highest[touched] = np.nan


def _apply_metric(
    result: Measured, metric: str, mask: NDArray[np.bool_], arm: Arm, setting: str, ids: pa.Array
) -> None:
    """Replace the means of some problems by what their task's metric makes of the answers."""
    from w2s_align.evaluation import length_control
    from w2s_align.evaluation.best_of_n import majority_values

    for row, run in enumerate(arm.runs):
        if metric == length_control.METRIC:
            judged = length_control.of_task(run.settings[setting].scores, ids, mask)
            if judged is None:
                raise UserError(
                    f"Arm {arm.name!r}: these scores keep no lengths of judged answers.", fix="metric: mean"
                )
            result.means[row, mask] = judged.values
            continue
        if metric == "majority":
            found = majority_values(run.settings[setting].scores, ids.to_pylist())
            if found is None:
                raise UserError(
                    f"Arm {arm.name!r}: these scores keep no answers to count votes of.", fix="metric: mean"
                )
            result.means[row, mask] = found[0][mask]
            continue
        k = int(metric.removeprefix("pass@"))
        enough = mask & (result.scored[row] >= k)
        if mask.any() and not enough.any():
            raise UserError(
                f"Arm {arm.name!r}, {setting}: {metric} needs at least {k} scored answers to a problem.",
                fix=f"Sample n: {k} or more answers.",
            )
        result.means[row, mask] = np.nan
        result.means[row, enough] = pass_at_k(result.scored[row, enough], result.right[row, enough], k)


def _count_responses(result: Measured, responses: pa.Table, ids: pa.Array) -> None:
    where = pc.index_in(responses.column("prompt_id"), value_set=ids).to_numpy()
    cut = pc.equal(responses.column("finish_reason"), "length").to_numpy(zero_copy_only=False)
    result.responses += np.bincount(where, minlength=len(ids))
    result.truncated += np.bincount(where[cut], minlength=len(ids))
    tokens = responses.column("completion_tokens").to_numpy().astype(float)
    known = np.isfinite(tokens)
    result.tokens += np.bincount(where[known], weights=tokens[known], minlength=len(ids))
    result.measured += np.bincount(where[known], minlength=len(ids))
