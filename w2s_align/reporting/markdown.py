"""The Markdown twin of the page: the same numbers, short enough for a README or a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_align.evaluation.conclusion import ALPHA
from w2s_align.reporting.data import PairAudit, ReportData, StepCost
from w2s_align.reporting.drawings import Drawings
from w2s_align.reporting.text import (
    BY_NAMES,
    DASH,
    MINUS,
    Words,
    duration,
    fenced,
    markdown_table,
    p_value,
    percent,
    role_name,
    setting_name,
)
from w2s_align.reporting.text import markdown_cell as cell

if TYPE_CHECKING:
    from w2s_align.evaluation.results import ArmResult, Comparison, GapRecovered, PartArm, Results, WinRate


def render_markdown(data: ReportData, drawings: Drawings) -> str:
    """Return the summary.

    Args:
        data: The report.
        drawings: Its plots; they stand beside it in ``plots/``.
    """
    lines = [f"# {cell(data.title)}", ""]
    if data.subtitle:
        lines += [cell(data.subtitle), ""]
    if data.verdict:
        lines += [f"**{cell(data.verdict.headline)}** {cell(data.verdict.sentence)}", ""]
        lines += [f"- {cell(caveat)}" for caveat in data.caveats] + [""]
    if data.results is not None:
        lines += _evaluation(data.results, drawings)
    if data.pairs:
        header = ["pairs", "rule", "rows", "longer is chosen", "mean delta", "by the answer check", "dropped"]
        lines += ["## Pairs", "", *markdown_table(header, map(_pairs_row, data.pairs))]
    alarms = [f"- {cell(alarm)}" for training in drawings.trainings for alarm in training.alarms]
    if alarms:
        lines += ["## Alarms of the trainings", "", *alarms, ""]
    if data.steps:
        header = ["step", "kind", "time", "rows", "tokens", "GPU time", "cost"]
        lines += ["## Cost", "", *markdown_table(header, map(_step_row, data.steps))]
    if data.versions:
        lines += ["## Versions", "", ", ".join(f"{cell(k)} {cell(v)}" for k, v in data.versions.items()), ""]
    if data.recipe:
        lines += ["## Recipe", "", fenced(data.recipe, "yaml"), ""]
    return "\n".join(lines)


def _evaluation(results: Results, drawings: Drawings) -> list[str]:
    words = Words(results.unit)
    interval = f"{100 * results.level:.0f}% interval"
    lines = ["## Arms", ""]
    if drawings.arms:
        lines += [f"![Every arm with its interval](plots/{drawings.arms.name}.png)", ""]
    for setting in results.settings:
        header = ["arm", "role", "value", interval, "seeds", "tokens", "cut off", "no answer", "unscored"]
        of = f"{results.problems:,} problems, {cell(results.metric)}"
        lines += [f"**{cell(setting_name(setting))}**, {of}", ""]
        lines += markdown_table(header, [_arm_row(arm, setting, words) for arm in results.arms])
    lines += _task_settings(results)
    lines += _selections(results, words) + _win_rates(results, words) + _gaps(results) + _agreements(results)
    lines += _classifiers(results, words)
    lines += ["## Paired differences", ""]
    for setting in results.settings:
        header = ["comparison", "difference", interval, "p, Holm", "p", "detectable", "test"]
        rows = [_comparison_row(c, words) for c in results.comparisons if c.setting == setting]
        lines += [f"**{cell(setting_name(setting))}**", "", *markdown_table(header, rows)]
    return lines + _breakdowns(results, words)


def _task_settings(results: Results) -> list[str]:
    """Which published setting each task follows, and what differs."""
    lines = [
        f"- **{cell(task)}**: {' '.join(_sentence(line) for line in said)}"
        for task, said in results.task_settings.items()
    ]
    if results.by_subject:
        lines.append(f"- Mean over subjects, not over problems: {', '.join(map(cell, results.by_subject))}.")
    return ["**Settings of the tasks**, and what differs from them", "", *lines, ""] if lines else []


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _arm_row(arm: ArmResult, setting: str, words: Words) -> list[str]:
    s = arm.settings[setting]
    return [
        arm.name,
        role_name(arm.role),
        words.value(s.estimate.value),
        words.interval(s.estimate.low, s.estimate.high),
        ", ".join(words.bare(one.estimate.value) for one in s.seeds) if len(s.seeds) > 1 else "one",
        DASH if s.mean_tokens is None else f"{s.mean_tokens:.0f}",
        percent(s.truncated_share),
        percent(s.no_answer_share),
        f"{s.unscored:,}",
    ]


def _comparison_row(c: Comparison, words: Words) -> list[str]:
    d = c.difference
    return [
        f"{c.first} {MINUS} {c.second}",
        words.signed(d.value),
        words.signed_interval(d.low, d.high),
        p_value(c.p_holm),
        p_value(c.p),
        words.bare(c.mde),
        c.test,
    ]


def _selections(results: Results, words: Words) -> list[str]:
    """Choosing one of several answers, where there are several."""
    rows = [
        [
            arm.name,
            setting_name(setting),
            one.by,
            words.value(one.estimate.value),
            words.interval(one.estimate.low, one.estimate.high),
            words.bare(one.gap.value),
            words.interval(one.gap.low, one.gap.high),
        ]
        for arm in results.arms
        for setting in results.settings
        for one in arm.settings[setting].selections
    ]
    header = ["arm", "setting", "chosen by", "value", "interval", "gap to some answer right", "interval"]
    return ["## Choosing one of several answers", "", *markdown_table(header, rows)] if rows else []


def _win_rates(results: Results, words: Words) -> list[str]:
    published = any(r.published for r in results.win_rates)

    def row(r: WinRate) -> list[str]:
        controlled = [words.value(r.controlled.value), words.interval(r.controlled.low, r.controlled.high)]
        if published:
            p = r.published
            controlled += [words.value(p.value), words.interval(p.low, p.high)] if p else [DASH, DASH]
        outcomes = ", ".join(f"{n:,} {what}" for what, n in r.outcomes.items())
        effect = f"{r.length_effect:+.2f}"
        return [r.arm, setting_name(r.setting), r.task, *controlled, words.value(r.raw.value), effect, outcomes]

    header = ["arm", "setting", "task", "controlled for length", "interval"]
    header += ["published control for length", "interval"] if published else []
    header += ["raw", "length effect", "answers"]
    title = "## Win rates against reference answers"
    return [title, "", *markdown_table(header, map(row, results.win_rates))] if results.win_rates else []


def _gaps(results: Results) -> list[str]:
    def row(g: GapRecovered) -> list[str]:
        e = g.estimate
        found = [DASH, e.method]
        if e.value is not None:
            found = [f"{e.value:.2f}", DASH if e.low is None else f"{e.low:.2f} to {e.high:.2f}"]
        return [g.arm, setting_name(g.setting), g.measure, g.lower, g.upper, *found, _two_digits(g.median)]

    header = ["arm", "setting", "measure", "from", "to", "recovered", "interval", "median over tasks"]
    return ["## Gap recovered", "", *markdown_table(header, map(row, results.gaps))] if results.gaps else []


def _two_digits(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def _agreements(results: Results) -> list[str]:
    rows = [
        [a.arm, setting_name(a.setting), a.teacher, *map(percent, (a.overall, a.teacher_right, a.teacher_wrong))]
        for a in results.agreements
    ]
    header = ["arm", "setting", "teacher", "all problems", "teacher right", "teacher wrong"]
    return ["## Agreement with the best teacher", "", *markdown_table(header, rows)] if rows else []


def _classifiers(results: Results, words: Words) -> list[str]:
    rows = [
        [
            c.arm,
            *(f"{words.value(e.value)} ({words.interval(e.low, e.high)})" for e in (c.balanced_accuracy, c.f1)),
            f"{_two_digits(c.auroc.value)} ({_two_digits(c.auroc.low)} to {_two_digits(c.auroc.high)})",
            percent(c.confidence),
            percent(c.calibration_error),
            ", ".join(f"{name} {percent(share)}" for name, share in c.classes.items()),
        ]
        for c in results.classifiers
    ]
    header = ["arm", "balanced accuracy", "F1", "AUROC", "confidence", "calibration error", "classes given"]
    return ["## Classifiers", "", *markdown_table(header, rows)] if rows else []


def _breakdowns(results: Results, words: Words) -> list[str]:
    lines: list[str] = []
    arms = [arm.name for arm in results.arms]
    for b in results.breakdowns:
        rows = [[p.name, f"{p.problems:,}", *(_part(p.arms[arm], words) for arm in arms)] for p in b.parts]
        lines += [f"## {BY_NAMES[b.by]}: {cell(setting_name(b.setting).lower())}", ""]
        lines += markdown_table([b.by, "problems", *arms], rows)
    return lines


def _part(arm: PartArm, words: Words) -> str:
    mark = "*" if arm.p_holm is not None and arm.p_holm < ALPHA else ""
    return f"{words.value(arm.estimate.value)}{mark} ({words.interval(arm.estimate.low, arm.estimate.high)})"


def _pairs_row(pairs: PairAudit) -> list[str]:
    unequal = "" if pairs.unequal == pairs.audit.pairs else f" of {pairs.unequal:,} unequal"
    return [
        pairs.name,
        pairs.rule,
        f"{pairs.audit.pairs:,}",
        DASH if pairs.longer_wins is None else f"{percent(pairs.longer_wins)}{unequal}",
        DASH if pairs.mean_delta is None else f"{pairs.mean_delta:+.3g}",
        "; ".join(f"{n:,} {what}" for what, n in pairs.audit.gold.items()) or DASH,
        "; ".join(f"{n:,} {reason}" for reason, n in pairs.dropped.items()) or "0",
    ]


def _step_row(step: StepCost) -> list[str]:
    return [
        step.name,
        step.kind,
        duration(step.seconds) + (" (reused)" if step.cached else ""),
        "" if step.rows is None else f"{step.rows:,}",
        "" if step.tokens is None else f"{step.tokens:,}",
        duration(step.gpu_seconds) if step.gpu_seconds else "",
        f"{step.cost:.2f}" if step.cost else "",
    ]
