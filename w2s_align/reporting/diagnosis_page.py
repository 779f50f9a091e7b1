"""The page of a diagnosis: what contrasts of weak models would make of a student, told before any training.

Reads what w2s_align.evaluation.foresight returns; makes an Article.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, TypeAlias

from w2s_align.evaluation.foresight import Direction, Prediction
from w2s_align.reporting.article import Article, Section, Table
from w2s_align.reporting.lines import Line, Panel, lines_plot

Status: TypeAlias = Literal["improved", "worse", "plain"]
"""How a headline is colored."""


def diagnosis_article(
    title: str,
    student: Prediction,
    predictions: Sequence[Prediction],
    found: Direction | None,
    skipped: dict[str, int],
    recipe: str = "",
) -> Article:
    """Return the page.

    Args:
        title: Name of the study.
        student: The student's own accuracy, with factor 0.
        predictions: Of the targets, by their factor.
        found: Whether the contrasts prefer right responses; None where no problem tells.
        skipped: Responses that were left out, by reason.
        recipe: Text to show at the end.
    """
    sure = [p for p in predictions if not p.unsure]
    best = max(sure or predictions, key=lambda p: p.accuracy)
    headline, status = _headline(student, best, found)
    lede = (
        f"The student is right in {_percent(student.accuracy)} of its own responses. The target with the contrasts "
        f"times {best.factor:g} would be right in {_percent(best.accuracy)} ({_percent(best.low)} to "
        f"{_percent(best.high)}), by {best.effective:,.0f} effective responses."
    )
    plot = lines_plot(
        "predicted",
        "Predicted accuracy of the fused target by the strength of the contrasts",
        [
            Panel(
                "Predicted accuracy, %",
                [
                    Line(
                        "",
                        [p.factor for p in predictions],
                        [100 * p.accuracy for p in predictions],
                        "accent",
                        low=[100 * p.low for p in predictions],
                        high=[100 * p.high for p in predictions],
                    )
                ],
                "the contrasts' alphas times",
                level=100 * student.accuracy,
            )
        ],
    )
    rows = [
        [
            "0 (the student)" if p is student else f"{p.factor:g}",
            _percent(p.accuracy),
            f"{_percent(p.low)} to {_percent(p.high)}",
            f"{p.effective:,.0f}",
        ]
        + (["too few to say"] if p.unsure else [""])
        for p in (student, *predictions)
    ]
    table = Table(["alphas times", "accuracy", "95% interval", "effective responses", ""], rows)
    text = [
        "Nothing was trained and nothing new was generated: the student's own responses are weighted by how much more "
        "likely the target finds them, which makes them a sample of the target. The dotted line is the student. The "
        "effective number of responses falls as the target moves away from what the student writes.",
        *_about_direction(found),
        *([f"Left out: {', '.join(f'{reason} ({n:,})' for reason, n in skipped.items())}."] if skipped else []),
    ]
    sections = [Section("What the target would be worth", text, plots=[plot], tables=[table])]
    if recipe:
        sections.append(Section("Recipe", code=recipe))
    numbers = {
        "student": asdict(student),
        "predictions": [asdict(p) for p in predictions],
        "direction": None if found is None else asdict(found),
        "skipped": skipped,
    }
    return Article(title, headline, lede, sections, numbers, status)


def _headline(student: Prediction, best: Prediction, found: Direction | None) -> tuple[str, Status]:
    if best.unsure:
        return "Too far from what the student writes to say", "plain"
    if best.low > student.accuracy:
        return "The contrasts point the right way: distillation should lift the student", "improved"
    if best.high < student.accuracy or (found is not None and found.high < 0.5):
        return "The contrasts point the wrong way", "worse"
    return "No gain is to be expected", "plain"


def _about_direction(found: Direction | None) -> list[str]:
    if found is None:
        return ["No problem has both right and wrong responses, so that nothing tells them apart."]
    return [
        f"On {found.problems:,} problems the student is sometimes right and sometimes wrong. The contrasts prefer the "
        f"right response in {_percent(found.share)} of these couples ({_percent(found.low)} to "
        f"{_percent(found.high)}; 50% is chance), by {found.strength:.2f} nats on average. The longer response is the "
        f"right one in {_percent(found.longer)}: what length alone would prefer."
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
