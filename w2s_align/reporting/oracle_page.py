"""The page of `theory/w2sg_oracle`: weak-to-strong generalization in logistic regression.

Reads what w2s_align.lab.oracle returns; makes an Article.
"""

from __future__ import annotations

from dataclasses import asdict

from w2s_align.lab.oracle import VIEWS, OracleSettings, OracleStudy
from w2s_align.reporting.article import Article, Section, Table

COLUMNS = {
    "weak": "weak",
    "student": "student, soft labels",
    "hard": "student, hard labels",
    "ceiling": "ceiling",
    "pgr": "PGR",
    "agreement": "agreement with the weak model",
    "imitated": "the same, where it is wrong",
}
"""What is shown of a draw, and its title."""


def oracle_article(title: str, study: OracleStudy, settings: OracleSettings, recipe: str = "") -> Article:
    """Return the page of the study.

    Args:
        title: Name of the study.
        study: What was found.
        settings: What was simulated.
        recipe: Text to show at the end.
    """
    failed = [check for check in study.checks if not check.held]
    agree = f"All {len(study.checks)} checks hold" if not failed else f"{len(failed)} checks fail"
    noisy, blind = (study.mean(view, "pgr") for view in VIEWS)
    lede = (
        f"A student that learns from a supervisor with random errors ({study.mean('noisy', 'weak'):.3f} right) "
        f"reaches {study.mean('noisy', 'student'):.3f} of {study.mean('noisy', 'ceiling'):.3f} and recovers "
        f"{noisy:.2f} of the gap. From a supervisor with a blind spot ({study.mean('blind', 'weak'):.3f}), which is "
        "better, it recovers "
        f"{blind:.2f}: it says what its supervisor says."
    )
    header = ["view", *COLUMNS.values()]
    means = [[view, *(f"{study.mean(view, n):.3f} ± {study.spread(view, n):.3f}" for n in COLUMNS)] for view in VIEWS]
    alone = [
        [f"{view}, draw {number}", *(f"{getattr(outcome, name):.3f}" for name in COLUMNS)]
        for view in VIEWS
        for number, outcome in enumerate(study.outcomes[view], start=1)
    ]
    text = [
        f"Inputs are {settings.dimension} standard normal numbers, the class is whether their sum is positive. The "
        f"noisy view adds noise of standard deviation {settings.noise:g} to each; the blind view shows the first "
        f"{settings.seen}. {settings.rows:,} inputs in each half, {settings.test_rows:,} in the test; logistic "
        f"regression with penalty {settings.penalty:g}, fitted by Newton's method.",
        "What the weak model gets wrong in the noisy view depends on noise that the student cannot see, so that the "
        "labels' mean at an input is all that there is to learn, and it points the right way. What the blind model "
        "gets wrong depends on numbers that the student does see: its rule can be learned exactly.",
    ]
    checks = Table(
        ["check", "holds", "what was found"],
        [[check.name, "yes" if check.held else "NO", check.detail] for check in study.checks],
    )
    tables = [
        Table(header, means, f"Mean and standard deviation over {settings.repeats} draws"),
        Table(header, alone, "Every draw"),
    ]
    sections = [
        Section("What came out", text, tables=tables),
        Section("Checks", ["Each is made on every run of this recipe."], tables=[checks]),
    ]
    if recipe:
        sections.append(Section("Recipe", code=recipe))
    numbers = {
        "outcomes": [asdict(o) | {"pgr": o.pgr} for view in VIEWS for o in study.outcomes[view]],
        "checks": [asdict(check) for check in study.checks],
    }
    headline = f"{agree}: random errors are averaged away, a blind spot is copied"
    return Article(title, headline, lede, sections, numbers, "worse" if failed else "improved")
