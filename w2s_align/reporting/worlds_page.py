"""The page and the terminal table of a sweep over seeds: the same study in several worlds, mean and range.

Reads Worlds and the RunComparison of the same runs (for the plot); makes an Article and a rich table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.evaluation.run_comparison import RunComparison
from w2s_align.evaluation.worlds import Spread, WorldGain, Worlds
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.compare_page import sweep_plot
from w2s_align.reporting.text import DASH, Words, setting_name

if TYPE_CHECKING:
    from rich.console import Group

WHAT = (
    "A world is one draw of every seed: whatever the recipe trains and draws is another one. The interval is a t "
    "interval over the means of the worlds, beside it the lowest and the highest; the interval inside a single run "
    "does not know how lucky its own world was."
)
"""Explains the numbers under the headline."""
IMPROVED = ("improved", "partial")
"""Statuses of a verdict that found a gain."""


def worlds_sentences(found: Worlds) -> tuple[str, str]:
    """Return the headline and what the treatments gained, in words."""
    counted = Counter(found.headlines)
    headline = "; ".join(f"{n} of {len(found.names)} worlds: {text.rstrip('.')}" for text, n in counted.most_common())
    words = Words(found.unit)
    treatments = {arm.arm for arm in found.arms if arm.role == "treatment"}
    gains = [gain for gain in found.gains if gain.first in treatments and gain.kind == "baseline"]
    said = [
        f"{gain.first} gains {words.signed(gain.spread.mean)}{_unit(found)} on {gain.second} "
        f"({setting_name(gain.setting).lower()}; {_ends(gain.spread, words)})."
        for gain in gains
        if gain.spread.mean is not None
    ]
    return f"{headline}.", " ".join(said)


def worlds_article(
    found: Worlds, runs: RunComparison, values: Mapping[str, Sequence[Any]], failed: Sequence[Mapping[str, Any]]
) -> Article:
    """Return the page of a study over worlds.

    Args:
        found: The study over worlds.
        runs: The same runs side by side.
        values: Swept seeds, with the value in each finished world.
        failed: The seeds of every world that failed.
    """
    headline, lede = worlds_sentences(found)
    seeds = [
        [name, *(str(listed[i]) for listed in values.values()), found.headlines[i]]
        for i, name in enumerate(found.names)
    ]
    seeds += [[DASH, *(str(missing.get(path, DASH)) for path in values), "failed"] for missing in failed]
    plot = sweep_plot(runs, {})
    sections = [
        Section("Over worlds", [WHAT], [plot] if plot is not None else [], _arm_tables(found)),
        Section("Differences", ["A world counts as above or below as its own verdict counts it."], (), _gains(found)),
        Section("Worlds", (), (), [Table(["world", *values, "verdict"], seeds)]),
    ]
    if found.gaps:
        sections.insert(2, Section("Gaps", (), (), [_gaps(found)]))
    numbers = {**found.to_json(), "values": {path: list(v) for path, v in values.items()}, "failed": [*failed]}
    improved = sum(status in IMPROVED for status in found.statuses)
    caveats = [*_failed(failed), *runs.caveats]
    return Article(
        f"{len(found.names)} worlds", headline, lede, sections, numbers, caveats=caveats,
        status="improved" if improved == len(found.names) and not failed else "plain",
    )  # fmt: skip


def worlds_table(found: Worlds, failed: Sequence[Mapping[str, Any]]) -> Group:
    """Return a study over worlds for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[Any] = []
    for table in [*_arm_tables(found), *_gains(found), *([_gaps(found)] if found.gaps else [])]:
        made = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left", pad_edge=False)
        for i, name in enumerate(table.header):
            made.add_column(Text(name), justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            made.add_row(*map(Text, row))
        parts.append(made)
    return Group(*parts, *(Text(f"Note: {text}", style="yellow") for text in _failed(failed)))


def _failed(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how many worlds are missing from the means."""
    if not failed:
        return []
    return [
        "1 more world failed and is in no mean."
        if len(failed) == 1
        else f"{len(failed)} more worlds failed and are in no mean."
    ]


def _unit(found: Worlds) -> str:
    return " points" if found.unit == "share" else ""


def _ends(spread: Spread, words: Words) -> str:
    interval = "" if spread.low is None else f"95% interval {words.signed_interval(spread.low, spread.high)}, "
    return f"{interval}from {words.signed(spread.lowest)} to {words.signed(spread.highest)}"


def _arm_tables(found: Worlds) -> list[Table]:
    words = Words(found.unit)
    header = ["arm", "mean", "95% interval", "lowest", "highest"]
    made = []
    for setting in dict.fromkeys(arm.setting for arm in found.arms):
        rows = [
            [
                arm.arm,
                words.value(arm.spread.mean),
                words.interval(arm.spread.low, arm.spread.high),
                words.value(arm.spread.lowest),
                words.value(arm.spread.highest),
            ]
            for arm in found.arms
            if arm.setting == setting
        ]
        made.append(Table(header, rows, setting_name(setting)))
    return made


def _gains(found: Worlds) -> list[Table]:
    header = ["", f"mean{_unit(found)}", "95% interval", "range", "above", "below"]
    settings = dict.fromkeys(gain.setting for gain in found.gains)
    return [
        Table(
            header,
            [_gain(gain, found) for gain in found.gains if gain.setting == setting],
            f"Differences, {setting_name(setting).lower()}",
        )
        for setting in settings
    ]


def _gain(gain: WorldGain, found: Worlds) -> list[str]:
    words, spread = Words(found.unit), gain.spread
    return [
        f"{gain.first} against {gain.second}",
        words.signed(spread.mean),
        words.signed_interval(spread.low, spread.high),
        words.signed_interval(spread.lowest, spread.highest),
        f"{gain.above} of {len(found.names)}",
        f"{gain.below} of {len(found.names)}",
    ]


def _gaps(found: Worlds) -> Table:
    words = Words("number")
    rows = [
        [
            f"{gap.measure} of {gap.arm}, {setting_name(gap.setting).lower()}",
            words.value(gap.spread.mean),
            words.interval(gap.spread.low, gap.spread.high),
            words.interval(gap.spread.lowest, gap.spread.highest),
            f"{sum(value is not None for value in gap.spread.values)} of {len(found.names)}",
        ]
        for gap in found.gaps
    ]
    return Table(["", "mean", "95% interval", "range", "defined in"], rows, "Gap recovered")
