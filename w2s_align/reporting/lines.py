"""Line plots: what changes over a step, a time or a swept value. Reads plain numbers, returns a Plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from w2s_align.reporting.figure import Plot, Tones, figure_of, legend, slug, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tone = Literal["accent", "ink", "warn", "soft"]


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: What it is; lines without a label are not in the legend.
        x: Positions.
        y: Values; None leaves a gap.
        tone: Its color: accent for what the reader should look at.
        style: ``solid``, ``dashed``, or ``points`` for marks without a line.
        low: Lower ends of intervals, drawn as bars; empty for none.
        high: Upper ends of intervals.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    tone: Tone = "ink"
    style: Literal["solid", "dashed", "points"] = "solid"
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: What is drawn, with its unit.
        lines: What is drawn.
        x_title: What the horizontal axis is.
        log_x: Horizontal axis in powers of ten.
        log_y: Vertical axis in powers of ten.
        level: A dotted horizontal line at this value, e.g. the untouched student.
        ticks: Positions and names on the horizontal axis, where its values are names.
    """

    title: str
    lines: Sequence[Line]
    x_title: str = ""
    log_x: bool = False
    log_y: bool = False
    level: float | None = None
    ticks: Sequence[tuple[float, str]] = ()


def lines_plot(name: str, description: str, panels: Sequence[Panel]) -> Plot:
    """Draw panels side by side, on a narrow screen below each other.

    Args:
        name: File name without ending.
        description: What it shows, for people who cannot see it.
        panels: One to three.
    """

    def draw(narrow: bool, tone: Tones) -> Figure:
        figure, axes = figure_of(tone, narrow, len(panels), 2.9, narrow_height=2.5)
        for one, panel in zip(axes, panels, strict=True):
            _panel(one, tone, panel)
            named = one.get_legend()
            if not narrow and len(panels) == 1 and named is not None:
                named.set_loc("upper left")
                named.set_bbox_to_anchor((1.0, 1.0))
        return figure

    return Plot(slug(name), description, draw)


def _panel(axes: Axes, tone: Tones, panel: Panel) -> None:
    if panel.level is not None:
        axes.axhline(panel.level, color=tone.soft, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
    for line in panel.lines:
        color = getattr(tone, line.tone)
        points = [(i, value) for i, value in enumerate(line.y) if value is not None]
        x, y = [line.x[i] for i, _ in points], [value for _, value in points]
        marks = line.style == "points"
        axes.plot(
            x,
            y,
            color=color,
            linewidth=0 if marks else 1.6,
            linestyle="none" if marks else (0, (4, 2)) if line.style == "dashed" else "-",
            marker="o" if marks or line.low else None,
            markersize=4,
            label=line.label or None,
        )
        for i, _ in points:
            low, high = (line.low[i], line.high[i]) if line.low else (None, None)
            if low is not None and high is not None:
                axes.plot([line.x[i]] * 2, [low, high], color=color, linewidth=1.6)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    if panel.ticks:
        axes.set_xticks([x for x, _ in panel.ticks], [text for _, text in panel.ticks])
    for axis, is_log in ((axes.xaxis, panel.log_x), (axes.yaxis, panel.log_y)):
        if is_log:
            axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.minorticks_off()
    axes.tick_params(axis="y", colors=tone.soft)
    axes.grid(axis="y", color=tone.rule, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_visible(True)
    title(axes, tone, panel.title)
    if panel.x_title:
        axes.set_xlabel(panel.x_title, fontsize=8.5)
    legend(axes)
