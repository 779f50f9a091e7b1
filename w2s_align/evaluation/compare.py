"""Compares arms on the same problems: intervals, paired differences, delta gains, and what a reader must know first.

Reads arms (:class:`w2s_align.evaluation.arms.Arm`), returns :class:`w2s_align.evaluation.results.Results`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_align.evaluation.arms import Arm, Measured, check_arms, measure, task_numbers
from w2s_align.evaluation.breakdowns import agreements, breakdowns, estimate_of, gaps_recovered, selections, win_rates
from w2s_align.evaluation.length_control import METRIC, is_extreme
from w2s_align.evaluation.macro import macro_difference, macro_interval, macro_mean, over_seeds
from w2s_align.evaluation.metrics import pass_at_k
from w2s_align.evaluation.results import (
    ROLES,
    ArmResult,
    Comparison,
    DeltaGain,
    Estimate,
    Results,
    SeedComparison,
    SeedResult,
    SettingResult,
    WinRate,
    WorstCase,
)
from w2s_align.evaluation.statistics import LEVEL, holm

if TYPE_CHECKING:
    from w2s_align.evaluation.published_length_control import GamedRows


def evaluate_arms(
    problems: pa.Table,
    arms: Sequence[Arm],
    baseline: str,
    *,
    metrics: Mapping[str, str] | None = None,
    by_subject: Collection[str] = (),
    gamed: GamedRows | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Results:
    """Compare arms on the same problems.

    Problems of several tasks (``Prompt.task``) are compared by the plain mean over tasks, and each task by itself.

    Args:
        problems: Table of ``Prompt.SCHEMA``; every arm must have answered exactly these.
        arms: The arms, with distinct names and the same settings.
        baseline: Name of the arm that the others are compared with: the untouched student, or a classifiers' teacher.
        metrics: By task, what a problem's answers come to: ``mean`` (where it is not said), ``majority``, ``pass@k``
            or ``length_controlled``.
        by_subject: Tasks whose number is the plain mean over their subjects (in ``Prompt.meta``), not over problems.
        gamed: Rows of AlpacaEval's reference gamed on purpose: win rates have the published control for length too.
        level: Confidence level.
        seed: Seed of every resampling.

    Raises:
        UserError: No problems, an unknown baseline, doubled names, an arm that was asked other problems, doubled
            answers, several scorers for one task; all of them at once.
    """
    ids = problems.column("id").combine_chunks()
    names = problems.column("task").to_pylist()
    order = list(dict.fromkeys(names))
    tasks = task_numbers(problems)
    settings = check_arms(ids, arms, baseline, tasks)
    by_problem = [(metrics or {}).get(name, "mean") for name in names]
    measured = {(arm.name, s): measure(arm, s, ids, by_problem) for arm in arms for s in settings}
    bounds = (0.0, 1.0) if all(m.shares for m in measured.values()) else None
    options: dict[str, Any] = {"bounds": bounds, "level": level, "seed": seed}
    strata = task_numbers(problems, by_subject)
    over_tasks = options | {"tasks": strata}
    summaries = [
        ArmResult(
            name=arm.name,
            role=arm.role,
            settings={s: _summary(arm, s, measured[arm.name, s], ids, over_tasks) for s in settings},
        )
        for arm in arms
    ]
    summaries.sort(key=lambda arm: (ROLES.index(arm.role), _order_within_role(arm, settings[0])))
    comparisons = [c for s in settings for c in _comparisons(s, arms, summaries, baseline, measured, over_tasks)]
    parts = breakdowns(problems, measured, [a.name for a in summaries], settings, baseline, over_tasks)
    masks = {task: tasks == i for i, task in enumerate(order)}
    judged = {task: mask for task, mask in masks.items() if (metrics or {}).get(task) == METRIC}
    shown = sorted(arms, key=lambda arm: [a.name for a in summaries].index(arm.name))
    rates = win_rates(settings, shown, ids, judged, options, _published(problems, gamed, level))
    return Results(
        metric=_metric(arms[0], ids, tasks),
        unit="share" if bounds else "number",
        baseline=baseline,
        problems=len(ids),
        level=level,
        settings=settings,
        arms=summaries,
        comparisons=comparisons,
        delta_gains=_delta_gains(settings, summaries, comparisons),
        warnings=[
            *_warnings(summaries, comparisons, settings, shares=bounds is not None),
            *_missing_tasks(order, tasks, measured),
            *_length_warnings(rates),
        ],
        tasks=order if len(order) > 1 else [],
        by_subject=sorted(by_subject),
        breakdowns=parts,
        gaps=gaps_recovered(settings, summaries, measured, baseline, masks, over_tasks) if bounds else [],
        win_rates=rates,
        agreements=agreements(settings, summaries, arms, ids),
    )


def _published(
    problems: pa.Table, gamed: GamedRows | None, level: float
) -> Callable[[pa.Table, NDArray[np.bool_]], Estimate] | None:
    """Return what gives the published win rate of a run's scores on a task's problems; None without its data."""
    if gamed is None:
        return None
    from w2s_align.evaluation import published_length_control as published

    return lambda scores, mask: published.of_task(scores, problems.filter(pa.array(mask)), gamed, level)


def _metric(arm: Arm, ids: pa.Array, tasks: NDArray[np.int64]) -> str:
    answers = next(iter(arm.runs[0].settings.values()))
    scorers = answers.scores.column("scorer").unique().to_pylist()
    return str(scorers[0]) if len(scorers) == 1 else f"{len(np.unique(tasks))} tasks"


def _missing_tasks(
    order: Sequence[str], tasks: NDArray[np.int64], measured: Mapping[tuple[str, str], Measured]
) -> list[str]:
    """Name the tasks that an arm's mean lacks: it is then a mean over other tasks than its neighbour's."""
    if len(order) < 2:
        return []
    return [
        f"{arm}, {setting}: nothing of {order[task]} could be scored, so its mean leaves this task out."
        for (arm, setting), m in measured.items()
        for task in range(len(order))
        if not np.isfinite(m.values[tasks == task]).any()
    ]


def _summary(arm: Arm, setting: str, m: Measured, ids: pa.Array, options: dict[str, Any]) -> SettingResult:
    seeds = [
        SeedResult(seed=run.seed, estimate=estimate_of(macro_interval(m.means[row], **options)))
        for row, run in enumerate(arm.runs)
    ]
    bounded = options["bounds"] is not None and m.unscored.any()
    ends = [macro_mean(end.mean(axis=0), options["tasks"]) for end in (m.lowest, m.highest)] if bounded else []
    means = [s.estimate.value for s in seeds if s.estimate.value is not None]
    values = m.values
    answers = int(m.answers.sum())
    return SettingResult(
        setting=setting,
        estimate=estimate_of(over_seeds(macro_interval(values, **options), [m.means], options)),
        seeds=seeds,
        possible=(ends[0], ends[1]) if bounded and all(np.isfinite(ends)) else None,
        seed_spread=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        problems=int(np.isfinite(values).sum()),
        problems_without_score=int((~np.isfinite(values)).sum()),
        answers=answers,
        samples_per_problem=answers / m.means.size,
        unscored_reasons=dict(m.details.most_common()),
        pass_at=_pass_at(m),
        selections=selections(arm, setting, m, ids, options),
        **m.facts(),
    )


def _pass_at(m: Measured) -> dict[str, float]:
    least = int(m.scored.min())
    if least < 2 or not m.binary:
        return {}
    powers = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= least]
    return {str(k): float(pass_at_k(m.scored, m.right, k).mean()) for k in powers}


def _comparisons(
    setting: str,
    arms: Sequence[Arm],
    ordered: Sequence[ArmResult],
    baseline: str,
    measured: dict[tuple[str, str], Measured],
    options: dict[str, Any],
) -> list[Comparison]:
    """Make all comparisons of one setting and adjust their p-values as one family."""
    names = [arm.name for arm in ordered]
    role = {arm.name: arm.role for arm in ordered}
    runs = {arm.name: [run.seed for run in arm.runs] for arm in arms}
    wanted: list[tuple[str, str, Literal["baseline", "teacher", "control"]]]
    wanted = [(name, baseline, "baseline") for name in names if name != baseline]
    treatments = [name for name in names if role[name] == "treatment"]
    wanted += [
        (t, name, "teacher") for t in treatments for name in names if role[name] == "teacher" and name != baseline
    ]
    wanted += [(t, name, "control") for t in treatments for name in names if role[name] == "control"]
    found = []
    for first, second, kind in wanted:
        a, b = measured[first, setting], measured[second, setting]
        d = over_seeds(macro_difference(a.values, b.values, **options), [a.means, b.means], options)
        alone = [(s, macro_difference(a.means[i], b.values, **options)) for i, s in enumerate(runs[first])]
        found.append(
            Comparison(
                setting=setting,
                first=first,
                second=second,
                kind=kind,
                difference=estimate_of(d),
                p=d.p,
                p_holm=None,
                test=d.test,
                mde=d.mde,
                problems=d.problems,
                better=d.better,
                worse=d.worse,
                seeds=[SeedComparison(seed=s, value=one.value, p=one.p) for s, one in alone],
                worst_case=_worst_case(a, b, d.value, options),
            )
        )
    adjusted = holm([c.p for c in found])
    # Not scoring may hide a difference as well as make one: a worst case is never held to less than what was found.
    worst = holm([max(c.p or 0.0, c.worst_case.p or 0.0) if c.worst_case else c.p for c in found])
    return [
        c.model_copy(
            update={
                "p_holm": p,
                "worst_case": c.worst_case and c.worst_case.model_copy(update={"p_holm": p_worst}),
            }
        )
        for c, p, p_worst in zip(found, adjusted, worst, strict=True)
    ]


def _worst_case(first: Measured, second: Measured, value: float | None, options: dict[str, Any]) -> WorstCase | None:
    """Compare two arms with every unscored answer counted against the difference that was found."""
    if options["bounds"] is None or value is None or not (first.unscored.any() or second.unscored.any()):
        return None
    a, b = (first.lowest, second.highest) if value >= 0 else (first.highest, second.lowest)
    d = over_seeds(macro_difference(a.mean(axis=0), b.mean(axis=0), **options), [a, b], options)
    return WorstCase(difference=estimate_of(d), p=d.p)


def _delta_gains(
    settings: Sequence[str], arms: Sequence[ArmResult], comparisons: Sequence[Comparison]
) -> list[DeltaGain]:
    gains = []
    made = {(c.setting, c.first, c.second): c for c in comparisons}
    for setting in settings:
        teachers = [a for a in arms if a.role == "teacher" and a.settings[setting].estimate.value is not None]
        if not teachers:
            continue
        best = max(teachers, key=lambda a: a.settings[setting].estimate.value or 0.0).name
        gains += [
            DeltaGain(setting=setting, arm=a.name, teacher=best, difference=made[setting, a.name, best].difference)
            for a in arms
            if a.role == "treatment"
        ]
    return gains


def _warnings(
    arms: Sequence[ArmResult], comparisons: Sequence[Comparison], settings: Sequence[str], shares: bool
) -> list[str]:
    """Say what a reader must know before believing the numbers; limits are habits, and named in the text."""
    said = []
    for arm in arms:
        for s in (arm.settings[name] for name in settings):
            where = f"{arm.name}, {s.setting}"
            if s.unscored:
                share = f"{100 * s.unscored / s.answers:.1f}%"
                said.append(f"{where}: {s.unscored} of {s.answers} answers could not be scored ({share}), left out.")
            if s.truncated_share is not None and s.truncated_share > 0.05:
                said.append(f"{where}: {100 * s.truncated_share:.0f}% of the answers were cut at the token limit.")
    first = settings[0]
    mde = max((c.mde for c in comparisons if c.mde is not None and c.setting == first), default=None)
    if shares and mde is not None and mde > 0.15 and all(c.problems < 200 for c in comparisons):
        least = "of any size" if mde >= 1 else f"below {100 * mde:.0f} points"
        said.append(f"Few problems: true differences {least} would often be missed.")
    return said


def _length_warnings(rates: Sequence[WinRate]) -> list[str]:
    return [
        f"{r.arm}, {r.setting}: control for length moves the win rate of {r.task} from {100 * (r.raw.value or 0):.0f} "
        f"to {100 * (r.controlled.value or 0):.0f}%; so large a change depends on the fit more than on the answers."
        for r in rates
        if is_extreme(r.raw.value, r.controlled.value)
    ]


def _order_within_role(arm: ArmResult, setting: str) -> float:
    value = arm.settings[setting].estimate.value
    return float("-inf") if value is None else value
