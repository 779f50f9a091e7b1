"""Plots: arms as dots with intervals, paired differences as a forest, pairs as histograms, training as curves.

Reads the dicts of ReportData, returns a Plot: the drawing as SVG for the page (coloured by the page's own variables,
so that light and dark both work), and as files in tones that read on white and on black.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.data import PairAudit, TrainingCurve
from w2s_align.reporting.text import setting_name

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tones:
    """The colours of a drawing."""

    ink: str
    soft: str
    rule: str
    accent: str
    warn: str
    ground: str


IN_PAGE = Tones("#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
"""Stand-ins: in the page each becomes the CSS variable of the same name, so that light and dark both work."""

PAGE_WIDTH = 8.6
"""Inches of a drawing that is as wide as the page."""

IN_FILES = Tones("#77818c", "#808992", "#8c959f44", "#0f9288", "#c9662f", "#d0d7de")
"""Tones that read on white and on GitHub's dark background (contrast of at least 3 for text)."""

MARKER = {"teacher": "s", "student": "o", "control": "D", "other": "v", "treatment": "o", "ceiling": "^"}


@dataclass(frozen=True)
class Plot:
    """One plot, drawn for two widths.

    Attributes:
        name: File name without ending.
        title: What it shows, for people who cannot see it.
        draw: Draws it; the arguments say whether for a narrow screen, and in which colours.
    """

    name: str
    title: str
    draw: Callable[[bool, Tones], Figure]

    def inline(self, narrow: bool) -> str:
        """Return the drawing as an SVG element without anything that could clash with its neighbours."""
        figure = self.draw(narrow, IN_PAGE)
        share = 100 if narrow else min(100, 100 * float(figure.get_figwidth()) / PAGE_WIDTH)  # letters of one size
        text = _svg(figure)
        prefix = f"{self.name}-{'n' if narrow else 'w'}-"
        text = re.sub(r'\bid="', f'id="{prefix}', text)
        text = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}", text)
        for tone in fields(Tones):
            text = text.replace(getattr(IN_PAGE, tone.name), f"var(--{tone.name})")
        text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
        text = re.sub(r"font: (\d+) ([\d.]+)px [^;\"]*", r"font-weight: \1; font-size: \2px", text)
        start = text.index("<svg")
        label = self.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        return text[start:].replace("<svg", f'<svg role="img" aria-label="{label}" style="max-width: {share:.0f}%"', 1)

    def save(self, folder: Path) -> None:
        """Write ``<name>.svg`` and ``<name>.png``."""
        figure = self.draw(False, IN_FILES)
        (folder / f"{self.name}.svg").write_text(_svg(figure), encoding="utf-8")
        figure.savefig(folder / f"{self.name}.png", dpi=200, transparent=True, metadata={"Software": None})


def arms_plot(results: dict[str, Any]) -> Plot:
    """Every arm with its interval, one panel per setting; small dots are the seeds."""

    def draw(narrow: bool, tone: Tones) -> Figure:
        arms, settings = results["arms"], results["settings"]
        baseline = next(arm for arm in arms if arm["name"] == results["baseline"])
        height = 0.42 * len(arms) + 0.75
        shape = (len(settings), 1) if narrow else (1, len(settings))
        size = (4.2, height * len(settings)) if narrow else (PAGE_WIDTH, height)
        figure, panels = figure_of(tone, size, shape, sharey=not narrow)
        percent = 100 if results["unit"] == "share" else 1
        for number, (axes, setting) in enumerate(zip(panels, settings, strict=True)):
            before = baseline["settings"][setting]["estimate"]["value"]
            if before is not None:
                axes.axvline(percent * before, color=tone.soft, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
            for row, arm in enumerate(arms):
                _arm(axes, tone, row, arm["role"], arm["settings"][setting], percent)
            labels = [arm["name"] for arm in arms] if narrow or not number else None
            _rows(axes, tone, range(len(arms)), labels, [arm["role"] == "treatment" for arm in arms])
            title(axes, tone, setting_name(setting))
            if percent == 100:
                axes.set_xlim(-4, 124)
                axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
            else:
                low, high = axes.get_xlim()
                axes.set_xlim(low, high + 0.2 * (high - low))
        return figure

    shown = "Accuracy of every arm with its interval" if results["unit"] == "share" else "Mean score of every arm"
    return Plot("arms", shown, draw)


def _arm(axes: Axes, tone: Tones, row: int, role: str, setting: dict[str, Any], percent: float) -> None:
    colour = tone.accent if role == "treatment" else tone.ink
    value, low, high = (setting["estimate"][key] for key in ("value", "low", "high"))
    if value is None:
        axes.annotate("nothing scored", (0, row), color=tone.soft, fontsize=8.5, va="center")
        return
    seeds = [s["estimate"]["value"] for s in setting["seeds"] if s["estimate"]["value"] is not None]
    if len(seeds) > 1:
        axes.plot([percent * s for s in seeds], [row + 0.25] * len(seeds), "o", color=colour, markersize=2.6)
    if low is not None and high is not None:
        axes.plot([percent * low, percent * high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
    hollow = role not in ("treatment", "student")
    axes.plot(
        percent * value,
        row,
        MARKER[role],
        color=colour,
        markersize=6.5 if role != "treatment" else 8,
        markerfacecolor=tone.ground if hollow else colour,
        markeredgewidth=1.6,
        zorder=4,
    )
    text = f"{percent * value:.1f}" if percent == 1 or percent * value < 99.95 else f"{percent * value:.0f}"
    axes.annotate(
        text,
        (1.0, row),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        color=colour,
        fontsize=9.5,
        fontweight="bold" if role == "treatment" else "normal",
    )


def forest_plot(results: dict[str, Any], setting: str) -> Plot:
    """Paired differences of one setting with intervals, grouped by what the other arm is."""

    def draw(narrow: bool, tone: Tones) -> Figure:
        rows = [c for c in results["comparisons"] if c["setting"] == setting and c["difference"]["value"] is not None]
        kinds = list(dict.fromkeys(c["kind"] for c in rows))
        places = [i + 0.6 * kinds.index(c["kind"]) for i, c in enumerate(rows)]  # a gap between the kinds
        height = 0.34 * (places[-1] + 1 if places else 1) + 0.75
        figure, panels = figure_of(tone, (4.2 if narrow else PAGE_WIDTH, height), (1, 1))
        axes = panels[0]
        percent = 100 if results["unit"] == "share" else 1
        axes.axvline(0, color=tone.soft, linewidth=1)
        for row, c in zip(places, rows, strict=True):
            sure = c["p_holm"] is not None and c["p_holm"] < 0.05
            d = c["difference"]
            colour = tone.ink if not sure else tone.accent if d["value"] > 0 else tone.warn
            if d["low"] is not None:
                axes.plot([percent * d["low"], percent * d["high"]], [row, row], color=colour, linewidth=2.2)
            seeds = [s["value"] for s in c["seeds"] if s["value"] is not None]
            if len(seeds) > 1:
                axes.plot([percent * s for s in seeds], [row + 0.26] * len(seeds), "o", color=colour, markersize=2.4)
            (dot,) = axes.plot(percent * d["value"], row, "o", color=colour, markersize=6, zorder=4)
            dot.set_markerfacecolor(colour if sure else tone.ground)
            dot.set_markeredgewidth(1.5)
        names = [f"{c['first']} \N{MINUS SIGN} {c['second']}" for c in rows]
        _rows(axes, tone, places, names)
        title(axes, tone, f"{setting_name(setting)}: difference{' in points' if percent == 100 else ''}")
        return figure

    return Plot(f"differences-{slug(setting)}", f"Paired differences with intervals, {setting}", draw)


def pairs_plot(audit: PairAudit) -> Plot | None:
    """Lengths of chosen and rejected responses and the score delta, as histograms."""
    if not audit.chosen_lengths and not audit.deltas:
        return None

    def draw(narrow: bool, tone: Tones) -> Figure:
        import numpy as np

        both = bool(audit.chosen_lengths) and bool(audit.deltas)
        count = 2 if both else 1
        size = (4.2, 2.2 * count) if narrow else (PAGE_WIDTH if both else 5.4, 2.3)
        figure, panels = figure_of(tone, size, (count, 1) if narrow else (1, count))
        left = list(panels)
        if audit.chosen_lengths:
            axes = left.pop(0)
            lengths = [np.asarray(audit.rejected_lengths, float), np.asarray(audit.chosen_lengths, float)]
            edges = _edges(np.concatenate(lengths))
            for x, colour, name in zip(lengths, (tone.ink, tone.accent), ("rejected", "chosen"), strict=True):
                shown = np.clip(x, edges[0], edges[-1])
                axes.hist(shown, edges, histtype="step", color=colour, linewidth=1.6, label=name)
            title(axes, tone, f"Length in {audit.length_unit}")
            _bars(axes)
            legend(axes)
        if audit.deltas:
            axes = left.pop(0)
            deltas = np.asarray(audit.deltas, float)
            values, counts = np.unique(deltas, return_counts=True)
            gap = float(np.diff(values).min()) if len(values) > 1 else 1.0
            if np.ptp(values) <= 12 * gap:  # each value with a name that has room
                axes.bar(values, counts, width=0.18 * (float(np.ptp(values)) or 1.0) / 2, color=tone.accent)
                axes.set_xticks(values, [f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in values])
            else:
                axes.hist(deltas, _edges(deltas), color=tone.accent)
                axes.axvline(0, color=tone.soft, linewidth=1)
            title(axes, tone, "Delta: score of chosen \N{MINUS SIGN} score of rejected")
            _bars(axes)
        return figure

    return Plot(f"pairs-{slug(audit.name)}", f"Lengths and deltas of the pairs {audit.name}", draw)


CURVES: dict[str, tuple[str, ...]] = {
    "Loss": ("loss", "loss/held_out"),
    "Log-probability": ("logps/chosen", "logps/rejected"),
    "Implicit reward": ("rewards/chosen", "rewards/rejected"),
    "Quick task": ("accuracy",),
}
"""Panels of a training plot: title to metrics, under TRL's names where they are TRL's."""


def curve_plot(curve: TrainingCurve) -> Plot | None:
    """Loss, log-probabilities and rewards over the steps, chosen and rejected apart; alarms as marks."""
    drawn = [(name, keys) for name, keys in CURVES.items() if any(k in row for row in curve.rows for k in keys)]
    if not drawn:
        return None

    def draw(narrow: bool, tone: Tones) -> Figure:
        shape = (len(drawn), 1) if narrow else (1, len(drawn))
        size = (4.2, 1.75 * len(drawn)) if narrow else (PAGE_WIDTH if len(drawn) > 1 else 4.4, 2.1)
        figure, panels = figure_of(tone, size, shape)
        for axes, (name, keys) in zip(panels, drawn, strict=True):
            lines = {key: _thin([(r["step"], r[key]) for r in curve.rows if _drawable(r, key)]) for key in keys}
            lines = {key: points for key, points in lines.items() if points}
            for key, points in lines.items():
                colour = tone.accent if key.endswith(("/chosen", "/held_out")) else tone.ink
                label = key.split("/")[-1].replace("_", " ")
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, label=label)
            for alarm in curve.alarms:
                if alarm.get("step") is not None:
                    axes.axvline(alarm["step"], color=tone.warn, linewidth=1.1, linestyle=(0, (3, 2)))
            title(axes, tone, name)
            axes.grid(axis="y", color=tone.rule, linewidth=0.7)
            axes.spines["bottom"].set_visible(True)
            if len(lines) > 1:
                legend(axes)
        return figure

    return Plot(f"training-{slug(curve.model)}", f"Training of {curve.model} by step", draw)


def _drawable(row: dict[str, Any], key: str) -> bool:
    return row.get("step") is not None and row.get(key) is not None and math.isfinite(row[key])


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbours until at most 250 points are left: a page has no use for ten thousand."""
    width = -(-len(points) // 250)
    if width < 2:
        return points
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def figure_of(
    tone: Tones, size: tuple[float, float], shape: tuple[int, int], sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure in the style of the page with its axes, row by row.

    Args:
        tone: Colours.
        size: Width and height in inches.
        shape: Rows and columns of axes.
        sharey: All axes have the same vertical scale.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style = {
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.edgecolor": tone.rule,
        "axes.labelcolor": tone.soft,
        "text.color": tone.ink,
        "xtick.color": tone.soft,
        "ytick.color": tone.ink,
        "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06))
        FigureCanvasAgg(figure)
        panels = figure.subplots(*shape, squeeze=False, sharey=sharey).ravel()
        for axes in panels:
            axes.set_facecolor("none")
            axes.tick_params(length=0, pad=5)
            for side in axes.spines.values():
                side.set_visible(False)
    figure.patch.set_alpha(0)
    return figure, list(panels)


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


def title(axes: Axes, tone: Tones, text: str) -> None:
    """Write the title of a panel above its left end."""
    axes.set_title(text, loc="left", fontsize=9, color=tone.soft, pad=8)


def _edges(values: NDArray[np.float64]) -> list[float]:
    """About 30 bins up to the 99.5 % quantile; whole numbers get bins of whole width, else some bins hold one more."""
    import numpy as np

    low, high = float(values.min()), float(np.quantile(values, 0.995))
    if bool((values == np.round(values)).all()):
        width = max(1.0, float(np.ceil((high - low) / 30)))
        return np.arange(low - 0.5, high + width + 0.5, width).tolist()
    return np.linspace(low, max(high, low + 1e-9), 31).tolist()


def _bars(axes: Axes) -> None:
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(True)


def legend(axes: Axes) -> None:
    """Name what is drawn, each in its own colour; nothing where nothing has a name."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8.5, labelcolor="linecolor", handlelength=1.2)


def _svg(figure: Figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "w2s"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.S)


def slug(name: str) -> str:
    """Return a name as it can stand in a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "unnamed"
