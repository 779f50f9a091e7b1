"""The plot of a set of pairs: lengths of chosen and rejected responses, and the delta of their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_align.reporting.data import PairAudit
from w2s_align.reporting.figure import Plot, Tones, figure_of, legend, slug, title
from w2s_align.reporting.text import length_name

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def pairs_plot(audit: PairAudit) -> Plot | None:
    """Lengths of chosen and rejected responses and the score delta, as histograms."""
    lengths = bool(audit.chosen_lengths) and audit.constant_length is None  # a single bar says less than the number
    if not lengths and not audit.deltas:
        return None

    def draw(narrow: bool, tone: Tones) -> Figure:
        import numpy as np

        figure, left = figure_of(tone, narrow, lengths + bool(audit.deltas), 2.3)
        if lengths:
            axes = left.pop(0)
            sides = [np.asarray(audit.rejected_lengths, float), np.asarray(audit.chosen_lengths, float)]
            edges = _edges(np.concatenate(sides))
            for x, color, name in zip(sides, (tone.ink, tone.accent), ("rejected", "chosen"), strict=True):
                shown = np.clip(x, edges[0], edges[-1])
                axes.hist(shown, edges, histtype="step", color=color, linewidth=1.6, label=name)
            title(axes, tone, f"Length in {length_name(audit.length_unit)}")
            _bars(axes)
            legend(axes)
        if audit.deltas:
            axes = left.pop(0)
            deltas = np.asarray(audit.deltas, float) + 0.0  # no -0.0, which has a tick of its own
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


def _edges(values: NDArray[np.float64]) -> list[float]:
    """About 30 bins up to the 99.5% quantile; whole numbers get bins of whole width, else some bins hold one more."""
    import numpy as np

    low, high = float(values.min()), float(np.quantile(values, 0.995))
    if bool((values == np.round(values)).all()):
        width = max(1.0, float(np.ceil((high - low) / 30)))
        return np.arange(low - 0.5, high + width + 0.5, width).tolist()
    return np.linspace(low, max(high, low + 1e-9), 31).tolist()


def _bars(axes: Axes) -> None:
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(True)
