"""The plot of a training: loss, log-probabilities and rewards over the steps, the seeds over each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.data import TrainingCurve
from w2s_align.reporting.figure import Plot, Tones, figure_of, legend, slug, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: dict[str, tuple[str, ...]] = {
    "Loss": ("loss", "loss/held_out"),
    "Log-probability": ("logps/chosen", "logps/rejected"),
    "Implicit reward": ("rewards/chosen", "rewards/rejected"),
    "Quick task": ("accuracy",),
    "Same class as the label": ("label_agreement",),
}
"""Title of a panel to its metrics, under TRL's names where they are TRL's."""
MOST_POINTS = 250
"""Points of a line: more than a panel is wide in pixels only make the page large."""


def by_model(curves: Iterable[TrainingCurve]) -> list[list[TrainingCurve]]:
    """Put together the curves that are seeds of one training, in the order of the first of each."""
    found: dict[tuple[str, str], list[TrainingCurve]] = {}
    for curve in curves:
        found.setdefault((curve.model, curve.kind), []).append(curve)
    return list(found.values())


def training_plot(seeds: Sequence[TrainingCurve]) -> Plot | None:
    """Draw the seeds of one training, chosen and rejected apart; alarms as dashed marks.

    Args:
        seeds: Curves of one model.

    Returns:
        The plot; None where no metric of :data:`PANELS` was logged.
    """
    shown = {name: _logged(seeds, metrics) for name, metrics in PANELS.items()}
    drawn = {name: metrics for name, metrics in shown.items() if metrics}
    if not drawn:
        return None

    def draw(narrow: bool, tone: Tones) -> Figure:
        figure, panels = figure_of(tone, narrow, len(drawn), 2.1, narrow_height=1.75)
        for axes, (name, metrics) in zip(panels, drawn.items(), strict=True):
            for metric in metrics:
                _lines(axes, tone, seeds, metric)
            for step in {alarm.step for seed in seeds for alarm in seed.alarms if alarm.step is not None}:
                axes.axvline(step, color=tone.warn, linewidth=1.1, linestyle=(0, (3, 2)))
            title(axes, tone, name)
            axes.grid(axis="y", color=tone.rule, linewidth=0.7)
            axes.spines["bottom"].set_visible(True)
            if len(metrics) > 1:
                legend(axes)
        return figure

    model = seeds[0].model
    several = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    return Plot(f"training-{slug(model)}", f"Training of {model} by step{several}", draw)


def _logged(seeds: Sequence[TrainingCurve], metrics: Sequence[str]) -> list[str]:
    """Return the metrics of a panel of which any seed has a value to draw."""
    return [m for m in metrics if any(_drawable(row, m) for seed in seeds for row in seed.rows)]


def _lines(axes: Axes, tone: Tones, seeds: Sequence[TrainingCurve], metric: str) -> None:
    color = tone.accent if metric.endswith(("/chosen", "/held_out")) else tone.ink
    label: str | None = metric.split("/")[-1].replace("_", " ")
    for seed in seeds:
        points = _thin([(row["step"], row[metric]) for row in seed.rows if _drawable(row, metric)])
        if points:
            alpha, width = (1.0, 1.5) if len(seeds) == 1 else (0.7, 1.1)  # lines that cross stay apart
            axes.plot(*zip(*points, strict=True), color=color, linewidth=width, alpha=alpha, label=label)
            label = None  # one line of a metric names all of them


def _drawable(row: Mapping[str, Any], metric: str) -> bool:
    return row.get("step") is not None and row.get(metric) is not None and math.isfinite(row[metric])


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbors until at most :data:`MOST_POINTS` are left."""
    width = -(-len(points) // MOST_POINTS)
    if width < 2:
        return points
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
