"""All drawings of a report, each with a name of its own.

Reads ReportData; page.py shows the drawings, write.py saves them as files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from w2s_align.reporting.data import ReportData
from w2s_align.reporting.plots import Plot, arms_plot, curve_plot, forest_plot, pairs_plot


@dataclass(frozen=True)
class Drawings:
    """The plots of a report, beside what they show.

    Attributes:
        arms: Every arm with its interval; None without an evaluation.
        forests: Paired differences by setting.
        pairs: One per audit, None where there is nothing to draw.
        curves: One per training curve, None where there is nothing to draw.
    """

    arms: Plot | None = None
    forests: dict[str, Plot] = field(default_factory=dict)
    pairs: Sequence[Plot | None] = ()
    curves: Sequence[Plot | None] = ()

    def all(self) -> list[Plot]:
        """Return the plots that there are, in the order of the page."""
        return [plot for plot in (self.arms, *self.forests.values(), *self.pairs, *self.curves) if plot is not None]


def draw_report(data: ReportData) -> Drawings:
    """Prepare every plot; nothing is drawn before it is shown or saved."""
    results = data.results
    return Drawings(
        arms=arms_plot(results) if results else None,
        forests={setting: forest_plot(results, setting) for setting in results["settings"]} if results else {},
        pairs=_distinct([pairs_plot(audit) for audit in data.pairs]),
        curves=_distinct([curve_plot(curve) for curve in data.curves]),
    )


def _distinct(plots: Sequence[Plot | None]) -> list[Plot | None]:
    """Number the plots whose names would become the same file."""
    seen: dict[str, int] = {}
    named: list[Plot | None] = []
    for plot in plots:
        again = 0
        if plot is not None:
            again = seen[plot.name] = seen.get(plot.name, 0) + 1
        named.append(replace(plot, name=f"{plot.name}-{again}") if plot is not None and again > 1 else plot)
    return named
