"""The page of models that order pairs: their accuracy, and what a conflict costs them, region by region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from w2s_align.evaluation.conclusion import Verdict
from w2s_align.evaluation.results import ConflictResult, Results, ShareResult
from w2s_align.reporting.arm_plots import arms_plot
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.text import DASH, Words, p_value, role_name

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HOW = (
    "A model is right about a pair where it scores the response higher that the gold label calls better. Intervals "
    "are of 95%; p-values are adjusted for all comparisons."
)
"""Explains the table of arms."""
READINGS = {"no_conflict": "A", "ceiling": "B"}
"""How the two readings of the tax are called."""
SHORT = ("both", "strong", "weak", "neither")
"""Names of the regions where there is little room: who knows the pairs."""
CONFLICT = (
    "Reading A: a pair is tax where the run that it is compared with is right and this one is wrong. Reading B: where "
    "it and the ceiling order it differently. The deception score is the part of the tax that lies where the ceiling "
    "knows a pair and the weak model does not; expected is that region's part of all pairs, which an evenly spread "
    "tax would have. A row whose arm has no conflict shows what a training seed alone changes, the ceiling's what "
    "gold labels change."
)
"""Explains the table of conflicts."""


def pairs_article(title: str, results: Results, verdict: Verdict, recipe: str = "") -> Article:
    """Return the page of models that order pairs.

    Args:
        title: Name of the study.
        results: What was found.
        verdict: What it comes to.
        recipe: Text to show at the end.
    """
    sections = [Section("Arms", [HOW], [arms_plot(results)], [Table(*_arms(results))])]
    if results.conflicts:
        known = f"A pair is known to a model whose confidence is at least {results.conflicts[0].threshold:g}."
        tables = [Table(*_conflicts(results), "Tax and deception score"), Table(*_regions(results), "Tax by region")]
        sections.append(Section("Conflicts", [CONFLICT, known], tables=tables))
    if recipe:
        sections.append(Section("Recipe", code=recipe))
    status: Literal["improved", "worse", "plain"] = "plain"
    if verdict.status == "improved" or verdict.status == "worse":
        status = verdict.status
    numbers = {"results": results.model_dump(mode="json"), "verdict": verdict.to_dict()}
    return Article(title, verdict.headline, verdict.sentence, sections, numbers, status, verdict.caveats)


def conflict_table(results: Results) -> RichTable:
    """Return tax and deception score of each conflict, and the tax of each region, for the terminal."""
    from rich import box
    from rich.table import Table as Rich
    from rich.text import Text

    title = Text("Conflicts: tax, its part where the strong model alone knows, and tax by who knows")
    table = Rich(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    header = ["run", "", "tax", "score", "expected", *SHORT]
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place > 1 else "left", overflow="fold")
    for found in results.conflicts:
        shares = [found.tax, found.score, found.expected, *(region.tax for region in found.regions)]
        table.add_row(*map(Text, [*_named(found)[:2], *(counted(share, "\n") for share in shares)]))
    return table


def _arms(results: Results) -> tuple[list[str], list[list[str]]]:
    words, setting = Words(results.unit), results.settings[0]
    recovered = {gap.arm: gap.estimate for gap in results.gaps if gap.measure == "PGR"}
    rows = []
    for arm in results.arms:
        found, c = arm.settings[setting], results.comparison(setting, arm.name, results.baseline)
        gap = recovered.get(arm.name)
        cells = [
            arm.name,
            role_name(arm.role),
            words.value(found.estimate.value),
            words.interval(found.estimate.low, found.estimate.high),
        ]
        cells += [words.signed(c.difference.value) if c else DASH, p_value(c.p_holm) if c else DASH]
        rows.append([*cells, f"{gap.value:.2f}" if gap and gap.value is not None else DASH, str(found.unscored)])
    return ["arm", "role", "right", "95%", f"against {results.reference}", "p", "PGR", "unscored"], rows


def _named(found: ConflictResult) -> list[str]:
    return [f"{found.arm} {found.seed}", READINGS[found.reading], found.against]


def _conflicts(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [
        [*_named(found), counted(found.tax), counted(found.score), counted(found.expected), str(found.unscored)]
        for found in results.conflicts
    ]
    return ["run", "reading", "compared with", "tax", "deception score", "expected", "left out"], rows


def _regions(results: Results) -> tuple[list[str], list[list[str]]]:
    names = [region.name for region in results.conflicts[0].regions]
    rows = [[*_named(found), *(counted(region.tax) for region in found.regions)] for found in results.conflicts]
    return ["run", "reading", "compared with", *names], rows


def counted(share: ShareResult, between: str = " ") -> str:
    """Return a share with its counts, e.g. ``12/340 (3.5%)``; of no cases it has no value.

    Args:
        share: The share.
        between: What stands between the counts and the share.
    """
    value = f"{between}({Words('share').value(share.value)})" if share.whole else ""
    return f"{share.part}/{share.whole}{value}"
