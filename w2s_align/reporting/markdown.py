"""The Markdown twin of the page: the same numbers, short enough for a README or a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from w2s_align.reporting.data import ReportData
from w2s_align.reporting.text import Words, duration, p_value, percent, role_name, setting_name
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
        fence = "`" * max(3, 1 + max((len(run) for run in data.recipe.split() if set(run) == {"`"}), default=0))
        lines += ["## Recipe", "", f"{fence}yaml", data.recipe.rstrip(), fence, ""]
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
    return lines


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
        ]
        for step in data.steps
    ]
    return ["## Cost", "", *_table(["step", "kind", "time", "rows", "tokens"], rows)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(cell(text) for text in row) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header), *body, ""]
