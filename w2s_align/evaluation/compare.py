"""Compares arms on the same problems: intervals, paired differences, delta gains, and what a reader must know first.

Reads arms (see arms.py), returns Results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from w2s_align.evaluation.arms import Arm, Measured, check_arms, measure
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
)
from w2s_align.evaluation.statistics import LEVEL, Interval, holm, mean_interval, paired_difference


def evaluate_arms(
    problems: pa.Table, arms: Sequence[Arm], baseline: str, *, level: float = LEVEL, seed: int = 0
) -> Results:
    """Compare arms on the same problems.

    Args:
        problems: Table of ``Prompt.SCHEMA``; every arm must have answered exactly these.
        arms: The arms, with distinct names and the same settings.
        baseline: Name of the arm that the others are compared with: the untouched student.
        level: Confidence level.
        seed: Seed of every resampling.

    Raises:
        UserError: No problems, an unknown baseline, doubled names, an arm that was asked other problems, doubled
            answers, several scorers in one table; all of them at once.
    """
    ids = problems.column("id").combine_chunks()
    settings = check_arms(ids, arms, baseline)
    measured = {(arm.name, s): measure(arm, s, ids) for arm in arms for s in settings}
    known = [m.means[np.isfinite(m.means)] for m in measured.values()]
    flat = np.concatenate(known) if known else np.array([])
    bounds = (0.0, 1.0) if not len(flat) or (flat.min() >= 0 and flat.max() <= 1) else None
    options: dict[str, Any] = {"bounds": bounds, "level": level, "seed": seed}
    summaries = [
        ArmResult(
            name=arm.name,
            role=arm.role,
            settings={s: _summary(arm, s, measured[arm.name, s], options) for s in settings},
        )
        for arm in arms
    ]
    summaries.sort(key=lambda arm: (ROLES.index(arm.role), _order_within_role(arm, settings[0])))
    comparisons = [c for s in settings for c in _comparisons(s, arms, summaries, baseline, measured, options)]
    return Results(
        metric=_metric(arms[0]),
        unit="share" if bounds else "number",
        baseline=baseline,
        problems=len(ids),
        level=level,
        settings=settings,
        arms=summaries,
        comparisons=comparisons,
        delta_gains=_delta_gains(settings, summaries, comparisons),
        warnings=_warnings(summaries, comparisons, settings, shares=bounds is not None),
    )


def _metric(arm: Arm) -> str:
    answers = next(iter(arm.runs[0].settings.values()))
    return str(answers.scores.column("scorer")[0].as_py())


def _summary(arm: Arm, setting: str, m: Measured, options: dict[str, Any]) -> SettingResult:
    seeds = [
        SeedResult(seed=run.seed, estimate=_estimate(mean_interval(m.means[row], **options)))
        for row, run in enumerate(arm.runs)
    ]
    means = [s.estimate.value for s in seeds if s.estimate.value is not None]
    values = m.values
    unscored = sum(m.details.values())
    return SettingResult(
        setting=setting,
        estimate=_estimate(mean_interval(values, **options)),
        seeds=seeds,
        seed_spread=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        problems=int(np.isfinite(values).sum()),
        problems_without_score=int((~np.isfinite(values)).sum()),
        answers=m.answers,
        samples_per_problem=m.answers / m.means.size,
        unscored=unscored,
        unscored_reasons=dict(m.details.most_common()),
        truncated_share=m.truncated / m.responses if m.responses else None,
        no_answer_share=m.no_answer / (m.answers - unscored) if m.answers > unscored else None,
        mean_tokens=float(np.mean(m.tokens)) if m.tokens else None,
        pass_at=_pass_at(m),
    )


def _pass_at(m: Measured) -> dict[str, float]:
    least = int(m.scored.min())
    binary = bool(np.isclose(np.nan_to_num(m.means) * m.scored, m.right).all())
    if least < 2 or not binary:
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
    wanted += [(t, name, "teacher") for t in treatments for name in names if role[name] == "teacher"]
    wanted += [(t, name, "control") for t in treatments for name in names if role[name] == "control"]
    found = []
    for first, second, kind in wanted:
        a, b = measured[first, setting], measured[second, setting].values
        d = paired_difference(a.values, b, **options)
        alone = [(s, paired_difference(a.means[i], b, **options)) for i, s in enumerate(runs[first])]
        found.append(
            Comparison(
                setting=setting,
                first=first,
                second=second,
                kind=kind,
                difference=_estimate(d),
                p=d.p,
                p_holm=None,
                test=d.test,
                mde=d.mde,
                problems=d.problems,
                better=d.better,
                worse=d.worse,
                seeds=[SeedComparison(seed=s, value=one.value, p=one.p) for s, one in alone],
            )
        )
    adjusted = holm([c.p for c in found])
    return [c.model_copy(update={"p_holm": p}) for c, p in zip(found, adjusted, strict=True)]


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
                share = f"{100 * s.unscored / s.answers:.1f} %"
                said.append(f"{where}: {s.unscored} of {s.answers} answers could not be scored ({share}), left out.")
            if s.truncated_share is not None and s.truncated_share > 0.05:
                said.append(f"{where}: {100 * s.truncated_share:.0f} % of the answers were cut at the token limit.")
    first = settings[0]
    mde = max((c.mde for c in comparisons if c.mde is not None and c.setting == first), default=None)
    if shares and mde is not None and mde > 0.15 and all(c.problems < 200 for c in comparisons):
        said.append(f"Few problems: true differences below {100 * mde:.0f} points would often be missed.")
    return said


def _order_within_role(arm: ArmResult, setting: str) -> float:
    value = arm.settings[setting].estimate.value
    return float("-inf") if value is None else value


def _estimate(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, method=interval.method)
