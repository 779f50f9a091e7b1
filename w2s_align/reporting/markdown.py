"""The Markdown twin of the page: the same numbers, short enough for a README or a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from w2s_align.reporting.data import ReportData
from w2s_align.reporting.text import BY_NAMES, DASH, Words, duration, fenced, p_value, percent, role_name, setting_name
from w2s_align.reporting.text import markdown_cell as cell


def render_markdown(data: ReportData, plots: Sequence[str]) -> str:
    """Return the summary.

    Args:
        data: The report.
        plots: Names of the plots beside it, in ``plots/<name>.png``.
    """
    lines = [f"# {cell(data.title)}", ""]
    if data.subtitle:
        lines += [cell(data.subtitle), ""]
    if data.verdict:
        lines += [f"**{cell(data.verdict['headline'])}** {cell(data.verdict['sentence'])}", ""]
        lines += [f"- {cell(caveat)}" for caveat in dict.fromkeys([*data.verdict["caveats"], *data.warnings])] + [""]
    if data.results is not None:
        lines += _evaluation(data.results, plots)
    lines += _pairs(data) + _training(data) + _cost(data)
    if data.versions:
        lines += ["## Versions", "", ", ".join(f"{cell(k)} {cell(v)}" for k, v in data.versions.items()), ""]
    if data.recipe:
        lines += ["## Recipe", "", fenced(data.recipe, "yaml"), ""]
    return "\n".join(lines)


def _evaluation(results: dict[str, Any], plots: Sequence[str]) -> list[str]:
    words = Words(results["unit"])
    level = f"{100 * results['level']:.0f} %"
    lines = ["## Arms", ""]
    if "arms" in plots:
        lines += ["![Every arm with its interval](plots/arms.png)", ""]
    for setting in results["settings"]:
        header = ["arm", "role", "value", f"{level} interval", "seeds", "tokens", "cut off", "no answer", "unscored"]
        rows = [_arm_row(arm, setting, words) for arm in results["arms"]]
        lines += [
            f"**{cell(setting_name(setting))}**, {results['problems']:,} problems, {cell(results['metric'])}",
            "",
        ]
        lines += _table(header, rows)
    lines += _beside(results, words)
    lines += ["## Paired differences", ""]
    for setting in results["settings"]:
        header = ["comparison", "difference", f"{level} interval", "p, Holm", "p", "detectable", "test"]
        rows = [
            [
                f"{c['first']} \N{MINUS SIGN} {c['second']}",
                words.signed(c["difference"]["value"]),
                words.signed_interval(c["difference"]),
                p_value(c["p_holm"]),
                p_value(c["p"]),
                words.bare(c["mde"]),
                c["test"],
            ]
            for c in results["comparisons"]
            if c["setting"] == setting
        ]
        lines += [f"**{cell(setting_name(setting))}**", "", *_table(header, rows)]
    return lines + _breakdowns(results, words)


def _beside(results: dict[str, Any], words: Words) -> list[str]:
    """Choosing one of several answers, gaps recovered, agreement: where there are any."""
    lines: list[str] = []
    chosen = [
        [
            arm["name"],
            setting_name(s),
            one["by"],
            words.value(one["estimate"]["value"]),
            words.interval(one["estimate"]),
            words.bare(one["gap"]["value"]),
            words.interval(one["gap"]),
        ]
        for arm in results["arms"]
        for s in results["settings"]
        for one in arm["settings"][s]["selections"]
    ]
    if chosen:
        header = ["arm", "setting", "chosen by", "value", "interval", "gap to some answer right", "interval"]
        lines += ["## Choosing one of several answers", "", *_table(header, chosen)]
    rates = [
        [
            r["arm"],
            setting_name(r["setting"]),
            r["task"],
            words.value(r["controlled"]["value"]),
            words.interval(r["controlled"]),
            words.value(r["raw"]["value"]),
            f"{r['length_effect']:+.2f}",
            ", ".join(f"{n:,} {what}" for what, n in r["outcomes"].items()),
        ]
        for r in results["win_rates"]
    ]
    if rates:
        header = ["arm", "setting", "task", "controlled for length", "interval", "raw", "length effect", "answers"]
        lines += ["## Win rates against reference answers", "", *_table(header, rates)]
    gaps = [
        [
            g["arm"],
            setting_name(g["setting"]),
            g["measure"],
            g["lower"],
            g["upper"],
            *_recovered(g["estimate"], g["median"]),
        ]
        for g in results["gaps"]
    ]
    if gaps:
        lines += ["## Gap recovered", ""]
        header = ["arm", "setting", "measure", "from", "to", "recovered", "interval", "median over tasks"]
        lines += _table(header, gaps)
    agreed = [
        [a["arm"], setting_name(a["setting"]), a["teacher"]]
        + [percent(a[part]) for part in ("overall", "teacher_right", "teacher_wrong")]
        for a in results["agreements"]
    ]
    if agreed:
        lines += ["## Agreement with the best teacher", ""]
        lines += _table(["arm", "setting", "teacher", "all problems", "teacher right", "teacher wrong"], agreed)
    return lines


def _recovered(estimate: dict[str, Any], median: float | None) -> list[str]:
    over_tasks = DASH if median is None else f"{median:.2f}"
    if estimate["value"] is None:
        return [DASH, estimate["method"], over_tasks]
    low, high = estimate["low"], estimate["high"]
    return [f"{estimate['value']:.2f}", DASH if low is None else f"{low:.2f} to {high:.2f}", over_tasks]


def _breakdowns(results: dict[str, Any], words: Words) -> list[str]:
    lines: list[str] = []
    for b in results["breakdowns"]:
        arms = [arm["name"] for arm in results["arms"]]
        rows = [[p["name"], f"{p['problems']:,}", *(_part(p["arms"][arm], words) for arm in arms)] for p in b["parts"]]
        lines += [f"## {BY_NAMES[b['by']]}: {cell(setting_name(b['setting']).lower())}", ""]
        lines += _table([b["by"], "problems", *arms], rows)
    return lines


def _part(arm: dict[str, Any], words: Words) -> str:
    p = arm["p_holm"]
    mark = "*" if p is not None and p < 0.05 else ""
    return f"{words.value(arm['estimate']['value'])}{mark} ({words.interval(arm['estimate'])})"


def _arm_row(arm: dict[str, Any], setting: str, words: Words) -> list[str]:
    s = arm["settings"][setting]
    seeds = ", ".join(words.bare(one["estimate"]["value"]) for one in s["seeds"]) if len(s["seeds"]) > 1 else "one"
    return [
        arm["name"],
        role_name(arm["role"]),
        words.value(s["estimate"]["value"]),
        words.interval(s["estimate"]),
        seeds,
        "\N{EN DASH}" if s["mean_tokens"] is None else f"{s['mean_tokens']:.0f}",
        percent(s["truncated_share"]),
        percent(s["no_answer_share"]),
        f"{s['unscored']:,}",
    ]


def _pairs(data: ReportData) -> list[str]:
    if not data.pairs:
        return []
    header = ["pairs", "rule", "rows", "longer is chosen", "mean delta", "by the answer check", "dropped"]
    rows = [
        [
            audit.name,
            audit.rule,
            f"{audit.pairs:,}",
            percent(audit.longer_wins),
            "\N{EN DASH}" if audit.mean_delta is None else f"{audit.mean_delta:+.3g}",
            "; ".join(f"{n:,} {what}" for what, n in audit.gold.items()) or "\N{EN DASH}",
            "; ".join(f"{n:,} {reason}" for reason, n in audit.dropped.items()) or "0",
        ]
        for audit in data.pairs
    ]
    return ["## Pairs", "", *_table(header, rows)]


def _training(data: ReportData) -> list[str]:
    alarms = [
        f"- {cell(curve.model)}: {cell(alarm['message'])} (step {cell(alarm.get('step'))})"
        for curve in data.curves
        for alarm in curve.alarms
    ]
    return ["## Alarms of the trainings", "", *alarms, ""] if alarms else []


def _cost(data: ReportData) -> list[str]:
    if not data.steps:
        return []
    rows = [
        [
            step.name,
            step.kind,
            duration(step.seconds) + (" (reused)" if step.cached else ""),
            "" if step.rows is None else f"{step.rows:,}",
            "" if step.tokens is None else f"{step.tokens:,}",
            "" if not step.gpu_seconds else duration(step.gpu_seconds),
            "" if not step.cost else f"{step.cost:.2f}",
        ]
        for step in data.steps
    ]
    return ["## Cost", "", *_table(["step", "kind", "time", "rows", "tokens", "GPU time", "cost"], rows)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(cell(text) for text in row) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header), *body, ""]
