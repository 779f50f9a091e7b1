"""The pages of the theory recipes: delta learning in logistic regression, and the count of bold sections.

Reads what w2s_align.lab.theory_study and w2s_align.lab.sections return; makes an Article.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from w2s_align.lab.sections import SectionsSettings
from w2s_align.lab.theory import Method, accuracy
from w2s_align.lab.theory_study import Case, Chance, TheorySettings, TheoryStudy
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.figure import Plot
from w2s_align.reporting.lines import Line, Panel, Tone, lines_plot

NAMES: dict[Method, str] = {
    "delta": "delta",
    "dpo": "DPO",
    "reversed": "reversed pairs",
    "sft": "SFT on the better one",
}
"""Methods in tables and legends."""
TONES: dict[Method, Tone] = {"delta": "accent", "dpo": "accent", "reversed": "soft", "sft": "warn"}
"""The delta is what the reader should look at, SFT what goes wrong."""
PAPER = {"DPO, 3 over 2": "81.1", "DPO, 2 over 3": "1.1", "DPO, 3 over 3": "6.1", "SFT on 3": "4.4"}
"""Mean sections after training in the paper (section 3 of arXiv 2507.06187; Llama-3.2-3B-Instruct, 5.9 before)."""


def theory_article(title: str, study: TheoryStudy, settings: TheorySettings, recipe: str = "") -> Article:
    """Return the page of a theory study.

    Args:
        title: Name of the study.
        study: What was found.
        settings: What was simulated.
        recipe: Text to show at the end.
    """
    failed = [check for check in study.checks if not check.held]
    agree = f"All {len(study.checks)} predictions hold" if not failed else f"{len(failed)} predictions fail"
    main = max(study.cases, key=lambda case: case.best("delta")[0])
    best, when = main.best("delta")
    imitation = "hurts from the first step" if main.geometry.sft_slope < 0 else "helps at first too"
    teachers = f"{_percent(settings.better)} and {_percent(settings.worse)}"
    lede = (
        f"Two teachers that are both worse than the student ({teachers} right, against {_percent(settings.start)}) "
        f"lift it to {_percent(best)} when it is tuned on the better one's labels over the worse one's, up to time "
        f"{when:.2f}; then it overfits their errors. SFT on the better teacher {imitation} when they share "
        f"{main.geometry.shared:g} of the student's error."
    )
    checks = Table(
        ["prediction", "holds", "what was found"],
        [[check.name, "yes" if check.held else "NO", check.detail] for check in study.checks],
    )
    sections = [
        Section(
            "Training paths",
            [
                "Each panel is one share of the student's error that both teachers have too. Lines: mean cosine of "
                f"the student with the truth over {settings.repeats} simulations in {settings.dimension} dimensions; "
                "dashed: the closed form; dotted: the untouched student.",
                "Shared errors cancel in the delta, but not in imitation: with independent errors SFT on the better "
                "teacher helps for a while too, with shared errors it hurts from the first step.",
            ],
            [_paths_plot(study.cases)],
            [_paths_table(study.cases)],
        ),
        Section(
            "Random teachers",
            [
                "When the teachers' errors point in random directions, a gap between them almost always helps, the "
                "more surely the more dimensions there are. Lines: the formula; dots: the share of "
                f"{settings.draws:,} drawn pairs of teachers whose first step helps. Named by the cosines: student, "
                "better over worse teacher.",
            ],
            [_chances_plot(study.chances, study.gains)],
            [_chances_table(study.chances)],
        ),
        Section("Predictions", ["Each is checked on every run of this recipe."], tables=[checks]),
    ]
    if recipe:
        sections.append(Section("Recipe", code=recipe))
    return Article(
        title,
        f"{agree}: a delta between weak teachers lifts a stronger student",
        lede,
        sections,
        _numbers(study),
        "worse" if failed else "improved",
    )


def _percent(cosine: float) -> str:
    return f"{100 * float(accuracy(cosine)):.1f}%"


def _paths_plot(cases: Sequence[Case]) -> Plot:
    panels = []
    for case in cases:
        time = case.time.tolist()
        lines = [
            Line(
                NAMES[method] if case is cases[0] else "",
                time,
                case.paths[method].mean(axis=0).tolist(),
                TONES[method],
            )
            for method in ("sft", "reversed", "delta")
        ]
        lines.append(Line("closed form" if case is cases[0] else "", time, case.predicted.tolist(), "ink", "dashed"))
        shared = f"{case.geometry.shared:g} of the error shared"
        panels.append(Panel(shared, lines, "time", level=case.geometry.start))
    return lines_plot("paths", "Cosine of the student with the truth over training", panels)


def _paths_table(cases: Sequence[Case]) -> Table:
    def found(case: Case, method: Method) -> str:
        best, when = case.best(method)
        return f"{best:.4f} at {when:.2f}; {case.last(method):.3f}"

    rows = [
        [
            f"{case.geometry.shared:g}",
            f"{case.geometry.best_cosine:.4f} at {case.geometry.best_time:.3f}; {case.geometry.limit:.3f}",
            *(found(case, method) for method in NAMES),
        ]
        for case in cases
    ]
    header = ["shared error", "predicted; limit", *NAMES.values()]
    return Table(header, rows, "Cosine with the truth: best at time; at the end")


def _by_teachers(chances: Sequence[Chance]) -> dict[str, list[Chance]]:
    grouped: dict[str, list[Chance]] = {}
    for chance in chances:
        g = chance.geometry
        grouped.setdefault(f"{g.start:g}, {g.better:g} over {g.worse:g}", []).append(chance)
    return grouped


def _chances_plot(chances: Sequence[Chance], gains: Sequence[tuple[float, float]]) -> Plot:
    tones: list[Tone] = ["accent", "ink", "warn", "soft"]
    lines = []
    for tone, (name, group) in zip(tones * len(chances), _by_teachers(chances).items(), strict=False):
        dimensions = [c.dimension for c in group]
        lines.append(Line(name, dimensions, [c.formula for c in group], tone))
        lines.append(Line("", dimensions, [c.drawn for c in group], tone, "points"))
    gain = Line("", [gap for gap, _ in gains], [gain for _, gain in gains], "accent")
    panels = [
        Panel("Chance that the first step helps", lines, "dimensions", log_x=True),
        Panel("Best gain in cosine, same better teacher", [gain], "gap between the teachers"),
    ]
    return lines_plot("chances", "Chance that random teachers improve the student, and gain by gap", panels)


def _chances_table(chances: Sequence[Chance]) -> Table:
    grouped = _by_teachers(chances)
    dimensions = list(dict.fromkeys(c.dimension for c in chances))
    rows = [[name, *(f"{c.formula:.3f} / {c.drawn:.3f}" for c in group)] for name, group in grouped.items()]
    return Table(["student, better over worse", *(f"d = {d:,}" for d in dimensions)], rows, "Formula / drawn")


def _numbers(study: TheoryStudy) -> dict[str, Any]:
    cases = [
        {
            "shared": g.shared,
            "predicted": {"best": g.best_cosine, "time": g.best_time, "limit": g.limit},
            **{m: dict(zip(("best", "time"), case.best(m), strict=True), end=case.last(m)) for m in NAMES},
        }
        for case in study.cases
        for g in [case.geometry]
    ]
    chances = [
        {"start": g.start, "better": g.better, "worse": g.worse}
        | {"dimension": c.dimension, "formula": c.formula, "drawn": c.drawn}
        for c in study.chances
        for g in [c.geometry]
    ]
    checks = [asdict(check) for check in study.checks]
    return {"cases": cases, "chances": chances, "gains": study.gains, "checks": checks}


def sections_article(
    title: str, paths: Mapping[str, Sequence[float]], settings: SectionsSettings, recipe: str = ""
) -> Article:
    """Return the page of the bold-sections study.

    Args:
        title: Name of the study.
        paths: Mean number of sections over the steps, by what the policy was trained on.
        settings: How it was trained.
        recipe: Text to show at the end.
    """
    tones: list[Tone] = ["accent", "ink", "soft", "warn"]
    lines = [
        Line(name, list(range(len(path))), list(path), tone)
        for tone, (name, path) in zip(tones, paths.items(), strict=True)
    ]
    marks = [step for step in (0, 50, 100, 200, 400) if step <= settings.steps]
    rows = [[name, *(f"{path[step]:.2f}" for step in marks), PAPER[name]] for name, path in paths.items()]
    panel = Panel("Mean number of sections", lines, "steps", log_y=True, level=settings.start)
    end = {name: path[-1] for name, path in paths.items()}
    lede = (
        f"A policy that writes {settings.start:g} sections on average learns the direction of a pair, not its "
        f"content: three over two sends it to {end['DPO, 3 over 2']:.1f} after {settings.steps} steps and on without "
        f"end, two over three to {end['DPO, 2 over 3']:.2f}, a tied pair leaves it at {end['DPO, 3 over 3']:.1f}. SFT "
        f"on three sections pulls it to {end['SFT on 3']:.1f}."
    )
    text = [
        "The dotted line is the untouched policy. The vertical axis is logarithmic.",
        "One parameter, one pair, exact gradients: this shows why the paper's results come out in this order; it says "
        "nothing about their size.",
    ]
    plot = lines_plot("sections", "Mean number of sections over training", [panel])
    header = ["trained on", *(f"step {step}" for step in marks), "in the paper"]
    sections = [Section("Sections over training", text, [plot], [Table(header, rows, "Mean number of sections")])]
    if recipe:
        sections.append(Section("Recipe", code=recipe))
    headline = "Preference tuning follows the direction of a pair, imitation stops at its target"
    return Article(title, headline, lede, sections, {"paths": {k: list(v) for k, v in paths.items()}}, "improved")
