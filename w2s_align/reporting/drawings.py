"""All plots of a report, each with a file name of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from w2s_align.reporting.arm_plots import arms_plot, forest_plot
from w2s_align.reporting.curve_plots import by_model, training_plot
from w2s_align.reporting.data import PairAudit, ReportData, TrainingCurve
from w2s_align.reporting.figure import Plot
from w2s_align.reporting.pair_plots import pairs_plot


@dataclass(frozen=True)
class DrawnPairs:
    """A set of pairs with its plot, None where there is nothing to draw."""

    of: PairAudit
    plot: Plot | None


@dataclass(frozen=True)
class DrawnTraining:
    """The seeds of one training with their plot, None where there is nothing to draw."""

    seeds: Sequence[TrainingCurve]
    plot: Plot | None

    @property
    def alarms(self) -> list[str]:
        """What the health checks said, in words, with the training and the step."""
        return [
            f"{seed.name}{'' if alarm.step is None else f', step {alarm.step}'}: {alarm.message}"
            for seed in self.seeds
            for alarm in seed.alarms
        ]


@dataclass(frozen=True)
class Drawings:
    """The plots of a report, beside what they show.

    Attributes:
        arms: Every arm with its interval; None without an evaluation.
        forests: Paired differences by setting.
        pairs: The sets of pairs.
        trainings: The trainings, their seeds together.
    """

    arms: Plot | None = None
    forests: Mapping[str, Plot] = field(default_factory=dict)
    pairs: Sequence[DrawnPairs] = ()
    trainings: Sequence[DrawnTraining] = ()

    def all(self) -> list[Plot]:
        """Return the plots that there are, in the order of the page."""
        pairs, trainings = (one.plot for one in self.pairs), (one.plot for one in self.trainings)
        return [p for p in (self.arms, *self.forests.values(), *pairs, *trainings) if p is not None]


def draw_report(data: ReportData) -> Drawings:
    """Prepare every plot; nothing is drawn before it is shown or saved."""
    results, trainings = data.results, by_model(data.curves)
    pairs = zip(data.pairs, _distinct([pairs_plot(audit) for audit in data.pairs]), strict=True)
    curves = zip(trainings, _distinct([training_plot(seeds) for seeds in trainings]), strict=True)
    return Drawings(
        arms=arms_plot(results) if results else None,
        forests={setting: forest_plot(results, setting) for setting in results.settings} if results else {},
        pairs=[DrawnPairs(*one) for one in pairs],
        trainings=[DrawnTraining(*one) for one in curves],
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
