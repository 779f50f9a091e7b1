"""Arms: what an evaluation compares, checked and reduced to one number per run and problem.

An arm is one model (or several, one per training seed) with a part in the experiment. This file reads tables of the
records' schemas (problems: Prompt; answers: Response; verdicts: Score) and never makes a Python object per row. What
does not fit together (other problems, doubled answers, two scorers) is refused before anything is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from w2s_align.errors import Problem, UserError
from w2s_align.evaluation.results import Role

Floats = NDArray[np.float64]

NO_ANSWER = "no answer found"
"""``Score.detail`` of an answer in which the checker found no result."""

PRIMARY = "greedy"
"""The setting that a verdict is about, where it exists: one answer per problem, nothing drawn."""


@dataclass(frozen=True)
class Answers:
    """What one model answered in one sampling setting.

    Attributes:
        scores: Table of ``Score.SCHEMA``: one row per answer, null where it could not be scored.
        responses: Table of ``Response.SCHEMA`` for the same answers; None when only scores were kept, then lengths and
            truncation are unknown.
    """

    scores: pa.Table
    responses: pa.Table | None = None


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
    """One arm in one setting, reduced to arrays of runs x problems."""

    means: Floats
    scored: NDArray[np.int64]
    right: Floats
    details: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    no_answer: int = 0
    truncated: int = 0
    responses: int = 0
    tokens: list[float] = field(default_factory=list)

    @property
    def values(self) -> Floats:
        """One number per problem: the mean over runs; NaN where any run has none."""
        mean: Floats = self.means.mean(axis=0)
        return mean


def check_arms(ids: pa.Array, arms: Sequence[Arm], baseline: str) -> list[str]:
    """Refuse what cannot be compared; return the settings, the one of the verdict first."""
    found: list[Problem] = []
    names = [arm.name for arm in arms]
    if not len(ids):
        found.append(
            Problem("There are no problems to evaluate on.", fix="Give a prompt source with at least one row.")
        )
    if pc.count_distinct(ids).as_py() != len(ids):
        found.append(Problem("The problems contain the same prompt more than once.", fix="Drop the repeated prompts."))
    if baseline not in names:
        found.append(Problem(f"The baseline {baseline!r} is no arm.", f"The arms are {', '.join(names) or 'none'}."))
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
            for problem in _misfits(f"Arm {arm.name!r}, seed {run.seed}, {setting}", answers, ids)
        ]
    if found:
        raise UserError.all(found)
    return sorted(settings, key=lambda s: s != PRIMARY)


def _misfits(where: str, answers: Answers, ids: pa.Array) -> list[Problem]:
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
    scorers = answers.scores.column("scorer").unique().to_pylist()
    if len(scorers) > 1:
        why = "A comparison needs one score per answer."
        found.append(Problem(f"{where}: the scores come from {len(scorers)} scorers: {', '.join(scorers)}.", why))
    return found


def measure(arm: Arm, setting: str, ids: pa.Array) -> Measured:
    """Reduce the tables of one arm and setting to arrays of runs x problems, in the order of ``ids``."""
    shape = (len(arm.runs), len(ids))
    total, right = np.zeros(shape), np.zeros(shape)
    scored = np.zeros(shape, dtype=np.int64)
    result = Measured(means=total, scored=scored, right=right)
    for row, run in enumerate(arm.runs):
        answers = run.settings[setting]
        where = pc.index_in(answers.scores.column("prompt_id"), value_set=ids).to_numpy()
        value = answers.scores.column("value").to_numpy().astype(float)
        known = np.isfinite(value)
        scored[row] = np.bincount(where[known], minlength=len(ids))
        total[row] = np.bincount(where[known], weights=value[known], minlength=len(ids))
        right[row] = np.bincount(where[known & (value == 1.0)], minlength=len(ids))
        result.answers += len(value)
        _count_details(result, answers.scores, known, value)
        if answers.responses is not None:
            _count_responses(result, answers.responses)
    with np.errstate(invalid="ignore"):
        result.means = np.where(scored > 0, total / np.maximum(scored, 1), np.nan)
    return result


def _count_details(result: Measured, scores: pa.Table, known: NDArray[np.bool_], value: Floats) -> None:
    detail = scores.column("detail")
    for reason in detail.filter(pa.array(~known)).value_counts().to_pylist():
        result.details[reason["values"] or "no reason given"] += reason["counts"]
    result.no_answer += int((pc.equal(detail, NO_ANSWER).to_numpy() & known & (value == 0)).sum())


def _count_responses(result: Measured, responses: pa.Table) -> None:
    finish = responses.column("finish_reason")
    result.responses += len(finish)
    result.truncated += pc.sum(pc.equal(finish, "length")).as_py() or 0
    tokens = pc.mean(responses.column("completion_tokens")).as_py()
    if tokens is not None:
        result.tokens.append(float(tokens))
