"""What stands beside the main comparison: parts of the problems, choosing one of several answers, gaps recovered,
agreement.

Reads measured arms (see arms.py), returns plain values of results.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from w2s_align.evaluation.arms import Arm, ArmRun, Measured
from w2s_align.evaluation.best_of_n import agreement, best_of_values, counted_answers, majority_values
from w2s_align.evaluation.calibration import calibration_error
from w2s_align.evaluation.length_control import of_task
from w2s_align.evaluation.macro import macro_difference, macro_gap_recovered, macro_interval
from w2s_align.evaluation.results import (
    Agreement,
    ArmResult,
    Breakdown,
    Estimate,
    GapRecovered,
    Part,
    PartArm,
    Selection,
    WinRate,
)
from w2s_align.evaluation.statistics import Floats, Interval, holm, mean_interval

MOST_PARTS = 120
"""A table with more parts than this is not readable; the problems' own groups are then left out."""
By = Literal["task", "subject", "difficulty"]
"""What parts of the problems are made by."""


def breakdowns(
    problems: pa.Table,
    measured: Mapping[tuple[str, str], Measured],
    arms: Sequence[str],
    settings: Sequence[str],
    baseline: str,
    options: dict[str, Any],
) -> list[Breakdown]:
    """Compare every arm with the baseline on the parts of the problems, where there are at least two.

    P-values of one arm are adjusted over the parts (Holm).

    Args:
        problems: Rows of ``Prompt.SCHEMA``.
        measured: Each arm's values, by arm and setting.
        arms: The arms, in the order of the tables.
        settings: The sampling settings.
        baseline: The untouched student.
        options: Bounds, level and seed of the intervals.
    """
    names: dict[By, list[str | None]] = {"task": problems.column("task").to_pylist()}
    metas = [json.loads(text) for text in problems.column("meta").to_pylist()]
    several = len(set(names["task"])) > 1
    names["difficulty"] = _labels([difficulty_of(meta) for meta in metas], names["task"], several)
    names["subject"] = _labels([meta.get("subject") for meta in metas], names["task"], several)
    found = []
    for by, labels in names.items():
        parts = list(dict.fromkeys(label for label in labels if label is not None))
        if 2 <= len(parts) <= MOST_PARTS:
            if by == "difficulty":
                parts.sort()
            masks = {part: np.asarray([label == part for label in labels]) for part in parts}
            found += [
                Breakdown(by=by, setting=s, parts=_parts(masks, measured, arms, s, baseline, options))
                for s in settings
            ]
    return found


def difficulty_of(meta: Mapping[str, Any]) -> str | None:
    """Return how hard a problem is, in words, from what its source says: a task file, the lab, reasoning-gym."""
    if meta.get("difficulty") is not None:
        return str(meta["difficulty"])
    if "carries" in meta:
        return f"{meta['carries']} carries"
    entry = meta.get("entry")
    known = entry.get("metadata", {}).get("difficulty") if isinstance(entry, dict) else None
    return json.dumps(known) if isinstance(known, dict) and known else None


def _labels(labels: list[Any], tasks: Sequence[str | None], several: bool) -> list[str | None]:
    return [
        None if label is None else f"{task}: {label}" if several else str(label)
        for label, task in zip(labels, tasks, strict=True)
    ]


def _parts(
    masks: Mapping[str, NDArray[np.bool_]],
    measured: Mapping[tuple[str, str], Measured],
    arms: Sequence[str],
    setting: str,
    baseline: str,
    options: dict[str, Any],
) -> list[Part]:
    tasks = options["tasks"]
    fast = {name: value for name, value in options.items() if name != "tasks"} | {"resamples": 4_000}
    before = measured[baseline, setting].values
    made: dict[str, list[PartArm]] = {}
    for arm in arms:
        m = measured[arm, setting]
        rows = []
        for mask in masks.values():
            estimate = estimate_of(macro_interval(m.values[mask], tasks[mask], **fast))
            row = PartArm(estimate=estimate, **m.facts(mask))
            if arm != baseline:
                d = macro_difference(m.values[mask], before[mask], tasks[mask], **fast)
                row = row.model_copy(update={"difference": estimate_of(d), "p": d.p, "mde": d.mde})
            rows.append(row)
        adjusted = holm([row.p for row in rows])
        made[arm] = [row.model_copy(update={"p_holm": p}) for row, p in zip(rows, adjusted, strict=True)]
    return [
        Part(name=name, problems=int(mask.sum()), arms={arm: made[arm][i] for arm in arms})
        for i, (name, mask) in enumerate(masks.items())
    ]


def selections(arm: Arm, setting: str, measured: Measured, ids: pa.Array, options: dict[str, Any]) -> list[Selection]:
    """Return what choosing one of several answers gives: by majority, and by every scorer that was asked.

    Args:
        arm: The arm.
        setting: The sampling setting.
        measured: The arm's values in it.
        ids: The problems.
        options: Tasks, bounds, level and seed of the intervals.
    """
    if measured.answers.sum() <= measured.means.size or not measured.binary:
        return []
    order = ids.to_pylist()
    some = np.where(measured.scored > 0, (measured.right > 0).astype(float), np.nan)
    chosen: dict[str, Floats] = {}
    calibration: float | None = None
    votes = [majority_values(run.settings[setting].scores, order) for run in arm.runs]
    if all(vote is not None for vote in votes):
        right, share = (np.stack([vote[i] for vote in votes if vote is not None]) for i in (0, 1))
        chosen["majority"] = right
        calibration = calibration_error(share.ravel(), right.ravel())
    for scorer in dict.fromkeys(name for run in arm.runs for name in run.settings[setting].choosers):
        chosen[scorer] = np.stack(
            [
                best_of_values(run.settings[setting].scores, run.settings[setting].choosers[scorer], order)
                for run in arm.runs
            ]
        )
    return [
        Selection(
            by=name,
            estimate=estimate_of(macro_interval(values.mean(axis=0), **options)),
            gap=estimate_of(macro_interval((some - values).mean(axis=0), **options)),
            calibration_error=calibration if name == "majority" else None,
        )
        for name, values in chosen.items()
    ]


def gaps_recovered(
    settings: Sequence[str],
    arms: Sequence[ArmResult],
    measured: Mapping[tuple[str, str], Measured],
    baseline: str,
    tasks: Mapping[str, NDArray[np.bool_]],
    options: dict[str, Any],
) -> list[GapRecovered]:
    """Return PGR and RGR of every tuned student, where there is a ceiling.

    PGR (Burns et al. 2023, arXiv 2312.09390): from the best teacher to the ceiling. RGR (W2SR): from the untouched
    student to the ceiling, all three being the same student. With several tasks both are of the plain means over
    tasks, each task counting the same; and of each task by itself, with the median that Burns et al. report.

    Args:
        settings: The sampling settings.
        arms: The arms.
        measured: Their values.
        baseline: The untouched student.
        tasks: By task, which problems are its own.
        options: Bounds, level and seed of the intervals.
    """
    found: list[GapRecovered] = []
    ceilings = [arm.name for arm in arms if arm.role == "ceiling"]
    more = {name: options[name] for name in ("level", "seed")}
    strata = options["tasks"]
    for setting in settings if ceilings else ():
        student = next(arm.role for arm in arms if arm.name == baseline) == "student"
        lower: dict[Literal["PGR", "RGR"], str | None] = {
            "PGR": best_teacher(arms, setting),
            "RGR": baseline if student else None,
        }
        for arm in arms:
            if arm.role not in ("treatment", "control"):
                continue
            for measure, low in lower.items():
                if low is None:
                    continue
                weak, tuned, top = (measured[name, setting].values for name in (low, arm.name, ceilings[0]))
                interval = macro_gap_recovered(weak, tuned, top, strata, **more)
                alone = {
                    task: estimate_of(macro_gap_recovered(weak[mask], tuned[mask], top[mask], strata[mask], **more))
                    for task, mask in (tasks.items() if len(tasks) > 1 else ())
                }
                defined = [one.value for one in alone.values() if one.value is not None]
                found.append(
                    GapRecovered(
                        setting=setting,
                        measure=measure,
                        arm=arm.name,
                        lower=low,
                        upper=ceilings[0],
                        estimate=estimate_of(interval),
                        tasks=alone,
                        median=float(np.median(defined)) if len(defined) > 1 else None,
                    )
                )
    return found


def win_rates(
    settings: Sequence[str],
    arms: Sequence[Arm],
    ids: pa.Array,
    tasks: Mapping[str, NDArray[np.bool_]],
    options: dict[str, Any],
    published: Callable[[pa.Table, NDArray[np.bool_]], Estimate] | None = None,
) -> list[WinRate]:
    """Return every arm's win rate against the reference of each judged task, raw and controlled for length.

    Args:
        settings: The sampling settings.
        arms: The arms.
        ids: The problems.
        tasks: The judged tasks; by name, which problems are its own.
        options: Bounds, level and seed of the intervals.
        published: Gives the published fit of one run's scores on a task's problems, where its data are there.
    """
    found: list[WinRate] = []
    for setting in settings:
        for task, mask in tasks.items():
            own = ids.filter(pa.array(mask))
            for arm in arms:
                runs = [run.settings[setting].scores for run in arm.runs]
                fits = [fit for scores in runs if (fit := of_task(scores, ids, mask)) is not None]
                outcomes: Counter[str] = Counter()
                for scores in runs:
                    mine = scores.filter(pc.is_in(scores["prompt_id"], value_set=own))
                    outcomes.update(pc.fill_null(mine["outcome"], "unscored").to_pylist())
                found.append(
                    WinRate(
                        setting=setting,
                        task=task,
                        arm=arm.name,
                        controlled=estimate_of(mean_interval(np.mean([f.values for f in fits], axis=0), **options)),
                        published=_mean_of([published(scores, mask) for scores in runs]) if published else None,
                        raw=estimate_of(mean_interval(np.mean([f.preferences for f in fits], axis=0), **options)),
                        length_effect=float(np.mean([f.phi for f in fits])),
                        outcomes=dict(outcomes.most_common()),
                    )
                )
    return found


def _mean_of(runs: Sequence[Estimate]) -> Estimate:
    """Return the mean over runs; the interval is that of a single run, the mean of their ends."""
    values = [[one.value, one.low, one.high] for one in runs]
    if any(value is None for row in values for value in row):
        return next(one for one in runs if one.value is None)
    value, low, high = np.mean(np.array(values, dtype=float), axis=0).tolist()
    return Estimate(value=value, low=low, high=high, method=runs[0].method)


def agreements(
    settings: Sequence[str], summaries: Sequence[ArmResult], arms: Sequence[Arm], ids: pa.Array
) -> list[Agreement]:
    """Return how often each student's first answer is that of its best teacher's first run, where scores keep the
    answers; mean over the student's runs.

    Args:
        settings: The sampling settings.
        summaries: What the arms' answers come to.
        arms: The arms.
        ids: The problems.
    """
    by_name = {arm.name: arm for arm in arms}
    found: list[Agreement] = []
    for setting in settings:
        teacher = best_teacher(summaries, setting)
        given = _first_answers(by_name[teacher].runs[0], setting, ids) if teacher else None
        if teacher is None or given is None:
            continue
        for arm in summaries:
            runs = (
                [_first_answers(run, setting, ids) for run in by_name[arm.name].runs] if arm.role != "teacher" else []
            )
            shares = [agreement(own[0], *given) for own in runs if own is not None]
            if not shares or len(shares) < len(runs):
                continue
            mean = {
                part: None
                if any(share[part] is None for share in shares)
                else fmean(share[part] or 0 for share in shares)
                for part in shares[0]
            }
            found.append(
                Agreement(
                    setting=setting,
                    arm=arm.name,
                    teacher=teacher,
                    overall=mean["all"],
                    teacher_right=mean["teacher right"],
                    teacher_wrong=mean["teacher wrong"],
                )
            )
    return found


def _first_answers(run: ArmRun, setting: str, ids: pa.Array) -> tuple[list[str | None], list[float | None]] | None:
    scores = run.settings[setting].scores
    first = scores.filter(pc.equal(scores["sample"], 0))
    answers = counted_answers(first)
    if answers is None:
        return None
    rows = dict(
        zip(first["prompt_id"].to_pylist(), zip(answers, first["value"].to_pylist(), strict=True), strict=True)
    )
    found = [rows.get(problem, (None, None)) for problem in ids.to_pylist()]
    return [answer for answer, _ in found], [value for _, value in found]


def best_teacher(arms: Sequence[ArmResult], setting: str) -> str | None:
    """Return the teacher with the highest observed mean."""
    values = {
        arm.name: value
        for arm in arms
        if arm.role == "teacher" and (value := arm.settings[setting].estimate.value) is not None
    }
    return max(values, key=lambda name: values[name], default=None)


def estimate_of(interval: Interval) -> Estimate:
    """Return an interval as the plain value that goes into JSON."""
    return Estimate(value=interval.value, low=interval.low, high=interval.high, method=interval.method)
