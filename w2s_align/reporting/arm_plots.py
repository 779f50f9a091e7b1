"""Plots of an evaluation: every arm with its interval, and paired differences as a forest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s_align.reporting.figure import Plot, Tones, figure_of, slug, title
from w2s_align.reporting.text import direction_class, setting_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from w2s_align.evaluation import Results, SettingResult

MARKER = {"teacher": "s", "student": "o", "control": "D", "other": "v", "treatment": "o", "ceiling": "^"}
"""Shapes of the roles: they can be told apart without color."""


def arms_plot(results: Results) -> Plot:
    """Every arm with its interval, one panel per setting; small dots are the seeds."""

    def draw(narrow: bool, tone: Tones) -> Figure:
        arms, settings = results.arms, results.settings
        baseline = results.arm(results.baseline)
        figure, panels = figure_of(tone, narrow, len(settings), 0.42 * len(arms) + 0.75, sharey=True)
        scale = 100 if results.unit == "share" else 1
        for number, (axes, setting) in enumerate(zip(panels, settings, strict=True)):
            before = baseline.settings[setting].estimate.value
            if before is not None:
                axes.axvline(scale * before, color=tone.soft, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
            for row, arm in enumerate(arms):
                _arm(axes, tone, row, arm.role, arm.settings[setting], scale)
            labels = [arm.name for arm in arms] if narrow or not number else None
            _rows(axes, tone, range(len(arms)), labels, [arm.role == "treatment" for arm in arms])
            title(axes, tone, setting_name(setting))
            if scale == 100:
                axes.set_xlim(-4, 124)
                axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100%"])
            else:
                low, high = axes.get_xlim()
                axes.set_xlim(low, high + 0.2 * (high - low))
        return figure

    shown = "Accuracy of every arm with its interval" if results.unit == "share" else "Mean score of every arm"
    return Plot("arms", shown, draw)


def _arm(axes: Axes, tone: Tones, row: int, role: str, setting: SettingResult, scale: float) -> None:
    color = tone.accent if role == "treatment" else tone.ink
    value, low, high = setting.estimate.value, setting.estimate.low, setting.estimate.high
    if value is None:
        axes.annotate("nothing scored", (0, row), color=tone.soft, fontsize=8.5, va="center")
        return
    seeds = [s.estimate.value for s in setting.seeds if s.estimate.value is not None]
    if len(seeds) > 1:
        axes.plot([scale * s for s in seeds], [row + 0.25] * len(seeds), "o", color=color, markersize=2.6)
    if low is not None and high is not None:
        axes.plot([scale * low, scale * high], [row, row], color=color, linewidth=2.2, solid_capstyle="round")
    hollow = role not in ("treatment", "student")
    axes.plot(
        scale * value,
        row,
        MARKER[role],
        color=color,
        markersize=6.5 if role != "treatment" else 8,
        markerfacecolor=tone.ground if hollow else color,
        markeredgewidth=1.6,
        zorder=4,
    )
    text = f"{scale * value:.1f}" if scale == 1 or scale * value < 99.95 else f"{scale * value:.0f}"
    axes.annotate(
        text,
        (1.0, row),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        color=color,
        fontsize=9.5,
        fontweight="bold" if role == "treatment" else "normal",
    )


def forest_plot(results: Results, setting: str) -> Plot:
    """Paired differences of one setting with intervals, grouped by what the other arm is."""

    def draw(narrow: bool, tone: Tones) -> Figure:
        rows = [c for c in results.comparisons if c.setting == setting and c.difference.value is not None]
        kinds = list(dict.fromkeys(c.kind for c in rows))
        places = [i + 0.6 * kinds.index(c.kind) for i, c in enumerate(rows)]  # a gap between the kinds
        height = 0.34 * (places[-1] + 1 if places else 1) + 0.75
        figure, panels = figure_of(tone, narrow, 1, height)
        axes = panels[0]
        scale = 100 if results.unit == "share" else 1
        axes.axvline(0, color=tone.soft, linewidth=1)
        for row, c in zip(places, rows, strict=True):
            d = c.difference
            color = {"up": tone.accent, "down": tone.warn}.get(direction_class(c.p_holm, d), tone.ink)
            if d.low is not None and d.high is not None:
                axes.plot([scale * d.low, scale * d.high], [row, row], color=color, linewidth=2.2)
            seeds = [s.value for s in c.seeds if s.value is not None]
            if len(seeds) > 1:
                axes.plot([scale * s for s in seeds], [row + 0.26] * len(seeds), "o", color=color, markersize=2.4)
            (dot,) = axes.plot(scale * (d.value or 0.0), row, "o", color=color, markersize=6, zorder=4)
            dot.set_markerfacecolor(tone.ground if color == tone.ink else color)
            dot.set_markeredgewidth(1.5)
        names = [f"{c.first} \N{MINUS SIGN} {c.second}" for c in rows]
        _rows(axes, tone, places, names)
        title(axes, tone, f"{setting_name(setting)}: difference{' in points' if scale == 100 else ''}")
        return figure

    return Plot(f"differences-{slug(setting)}", f"Paired differences with intervals, {setting}", draw)


def _rows(
    axes: Axes, tone: Tones, places: Sequence[float], names: list[str] | None, marked: Sequence[bool] = ()
) -> None:
    axes.set_ylim((places[-1] if places else 0) + 0.6, -0.6)
    axes.grid(axis="x", color=tone.rule, linewidth=0.7)
    axes.set_axisbelow(True)
    if names is None:
        axes.tick_params(labelleft=False)
        return
    axes.set_yticks(places, names, fontsize=9.5)
    for label, special in zip(axes.get_yticklabels(), marked, strict=False):
        if special:
            label.set_color(tone.accent)
            label.set_fontweight("bold")
