"""The same study in several worlds: how far do its numbers move when everything that it trains is trained anew?

    found = over_worlds([results_of_seed_0, results_of_seed_1, ...])

A world is one draw of all seeds: other teachers, another student, other answers. The interval inside a study says what
other problems and other training seeds would change, with these teachers and this student; it does not know how lucky
they were. Over worlds, the unit is the world: a t interval over their means, and beside it the lowest and the highest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from w2s_align.errors import UserError
from w2s_align.evaluation.conclusion import direction, verdict
from w2s_align.evaluation.results import Results, Role

FEWEST = 3
"""Worlds below which no interval is given: of two, a 95% t interval is 12.7 standard errors wide to each side."""


@dataclass(frozen=True)
class Spread:
    """A number in every world.

    Attributes:
        values: One per world; None where it is not defined.
        mean: Their mean.
        low: Lower end of the t interval of the mean; None for fewer than three worlds, or where all are alike.
        high: Upper end.
        lowest: The lowest of them.
        highest: The highest.
    """

    values: list[float | None]
    mean: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None


@dataclass(frozen=True)
class WorldArm:
    """One arm in one setting, over the worlds."""

    arm: str
    role: Role
    setting: str
    spread: Spread


@dataclass(frozen=True)
class WorldGain:
    """One arm minus another in one setting, over the worlds.

    Attributes:
        setting: The sampling setting.
        first: The arm that is judged.
        second: What it is compared with.
        kind: What the second arm is to the first.
        spread: The difference in every world.
        above: Worlds in which the verdict calls the first above the second (``direction``).
        below: Worlds in which it calls it below.
    """

    setting: str
    first: str
    second: str
    kind: Literal["baseline", "teacher", "control"]
    spread: Spread
    above: int
    below: int


@dataclass(frozen=True)
class WorldGap:
    """PGR or RGR of one arm in one setting, over the worlds in which it is defined."""

    setting: str
    measure: Literal["PGR", "RGR"]
    arm: str
    spread: Spread


@dataclass(frozen=True)
class Worlds:
    """A study over worlds.

    Attributes:
        names: The worlds.
        unit: ``share`` or ``number``.
        level: Confidence level.
        statuses: Status of the verdict in each world, e.g. ``improved``.
        headlines: Headline of the verdict in each world.
        arms: Every arm in every setting.
        gains: Every comparison of the studies.
        gaps: PGR and RGR, where there is a ceiling.
    """

    names: list[str]
    unit: Literal["share", "number"]
    level: float
    statuses: list[str]
    headlines: list[str]
    arms: list[WorldArm]
    gains: list[WorldGain]
    gaps: list[WorldGap]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def over_worlds(results: Sequence[Results], names: Sequence[str]) -> Worlds:
    """Put the same study in several worlds together.

    Args:
        results: What the study found in each world.
        names: Name of each world.

    Raises:
        UserError: The worlds have other arms, settings or scorers, so that no number of theirs can be averaged.
    """
    first = results[0]
    # Sorted: within a role, arms are shown in the order of their values, which another world may change.
    shapes = [(sorted((arm.name, arm.role) for arm in r.arms), r.settings, r.metric, r.level) for r in results]
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0]:
            raise UserError(
                f"{name} has other arms, sampling settings or another scorer than {names[0]}.",
                why="A mean over worlds needs the same study in each.",
                fix="Compare them with w2s compare.",
            )
    bounds = {"share": (0.0, 1.0), "number": (-math.inf, math.inf)}[first.unit]
    arms = [
        WorldArm(
            arm.name,
            arm.role,
            setting,
            _spread([r.arm(arm.name).settings[setting].estimate.value for r in results], first.level, bounds),
        )
        for setting in first.settings
        for arm in first.arms
    ]
    gains = []
    for c in first.comparisons:
        same = [r.comparison(c.setting, c.first, c.second) for r in results]
        values = [None if other is None else other.difference.value for other in same]
        sides = [direction(other) for other in same if other is not None]
        spread = _spread(values, first.level, (bounds[0] - bounds[1], bounds[1] - bounds[0]))
        gains.append(
            WorldGain(c.setting, c.first, c.second, c.kind, spread, sides.count("above"), sides.count("below"))
        )
    verdicts = [verdict(r) for r in results]
    statuses: list[str] = [v.status for v in verdicts]
    headlines = [v.headline for v in verdicts]
    return Worlds(list(names), first.unit, first.level, statuses, headlines, arms, gains, _gaps(results))


def _gaps(results: Sequence[Results]) -> list[WorldGap]:
    """Return the gaps of the first world with their share in every world in which it is defined."""
    found = []
    for gap in results[0].gaps:
        wanted = (gap.setting, gap.measure, gap.arm)
        # the lower end is the best teacher, which need not be the same one in every world
        same = [[g for g in r.gaps if (g.setting, g.measure, g.arm) == wanted] for r in results]
        values = [own[0].estimate.value if own else None for own in same]
        spread = _spread(values, results[0].level, (-math.inf, math.inf))
        found.append(WorldGap(gap.setting, gap.measure, gap.arm, spread))
    return found


def _spread(values: Sequence[float | None], level: float, bounds: tuple[float, float]) -> Spread:
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return Spread(list(values), None, None, None, None, None)
    mean, low, high = float(known.mean()), None, None
    if known.size >= FEWEST and known.std() > 0:  # where all agree, e.g. at 100%, t would claim to know the next world
        half = float(stats.t.ppf(0.5 + level / 2, known.size - 1) * known.std(ddof=1) / math.sqrt(known.size))
        low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Spread(list(values), mean, low, high, float(known.min()), float(known.max()))
