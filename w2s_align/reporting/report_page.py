"""The HTML of a report: what templates/report.html.j2 shows, from ReportData."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.data import ReportData, StepCost
from w2s_align.reporting.drawings import Drawings, DrawnTraining
from w2s_align.reporting.page import render
from w2s_align.reporting.samples import embed
from w2s_align.reporting.text import Words

if TYPE_CHECKING:
    from w2s_align.evaluation import Results, Verdict

MOST_TRAININGS = 12
MOST_NUMBERS = 4
"""Models whose numbers stand under the headline of a comparison."""
"""Trainings drawn on the page, to keep it small; the others are in plots/, and the page says so."""

OUTCOMES = (
    ("all", "All"),
    ("fixed", "Fixed"),
    ("broken", "Broken"),
    ("both wrong", "Both wrong"),
    ("both right", "Both right"),
)
"""Filters of the answers: what page.js calls them, and their names."""


@dataclass(frozen=True)
class KeyNumber:
    """A number under the verdict: what it is, its value, and its interval."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Cost:
    """What all steps took together; ``longest`` is the time of the longest one."""

    seconds: float
    new_seconds: float
    longest: float
    tokens: int
    gpu_seconds: float
    money: float

    @classmethod
    def of(cls, steps: Sequence[StepCost]) -> Cost:
        """Add up the steps."""
        seconds = [step.seconds or 0.0 for step in steps]
        return cls(
            seconds=sum(seconds),
            new_seconds=sum(step.seconds or 0.0 for step in steps if not step.cached),
            longest=max([*seconds, 1e-9]),  # bars are shares of it
            tokens=sum(step.tokens or 0 for step in steps),
            gpu_seconds=sum(step.gpu_seconds or 0.0 for step in steps),
            money=sum(step.cost or 0.0 for step in steps),
        )


def render_report(data: ReportData, drawings: Drawings) -> str:
    """Return the HTML of a report; ``data.verdict`` is shown as given."""
    results, verdict = data.results, data.verdict
    words = Words(results.unit if results else "share")
    return render(
        "report.html.j2",
        script="page.js",
        parts=_parts(data),
        caveats=data.caveats,
        status=verdict.status if verdict else "",
        data=data,
        results=results,
        verdict=verdict,
        words=words,
        figures=_key_numbers(results, verdict, words) if results and verdict else [],
        drawings=drawings,
        trainings=_trainings(drawings.trainings),
        outcomes=OUTCOMES,
        cost=Cost.of(data.steps),
        **(_evaluation(results) if results else {}),
        **_samples(data),
    )


def _parts(data: ReportData) -> list[tuple[str, str]]:
    parts = [
        (data.results, [("arms", "Arms"), ("differences", "Paired differences")]),
        (data.results and data.results.breakdowns, [("parts", "Tasks and difficulty")]),
        (data.pairs, [("pairs", "Pairs")]),
        (data.curves, [("training", "Training")]),
        (data.samples and data.results, [("samples", "Answers")]),
        (data.steps, [("cost", "Cost")]),
        (data.recipe or data.versions, [("recipe", "Recipe and versions")]),
    ]
    return [entry for present, entries in parts if present for entry in entries]


def _key_numbers(results: Results, verdict: Verdict, words: Words) -> list[KeyNumber]:
    """The few numbers under the verdict: tuned, untouched, best teacher, delta gain."""
    setting, arm = verdict.setting, verdict.arm
    if verdict.status == "compared":
        shown = [(one.name, one.name) for one in results.arms[:MOST_NUMBERS]]
        return [_key_number(results, setting, label, name, words) for label, name in shown]
    if arm is None:
        return []
    gain = next((g for g in results.delta_gains if (g.setting, g.arm) == (setting, arm)), None)
    shown = [(f"{arm}, the tuned student", arm), (_named_baseline(results), results.baseline)]
    if gain and gain.teacher != results.baseline:
        shown.append((f"{gain.teacher}, the best teacher", gain.teacher))
    numbers = [_key_number(results, setting, label, name, words) for label, name in shown]
    if gain:
        d = gain.difference
        note = words.signed_interval(d.low, d.high) + (" points" if words.unit == "share" else "")
        numbers.append(KeyNumber("Delta gain", words.signed(d.value), note))
    return numbers


def _named_baseline(results: Results) -> str:
    student = results.arm(results.baseline).role == "student"
    return f"{results.baseline}, {'untouched' if student else 'its supervisor'}"


def _key_number(results: Results, setting: str, label: str, name: str, words: Words) -> KeyNumber:
    estimate = results.arm(name).settings[setting].estimate
    return KeyNumber(label, words.value(estimate.value), words.interval(estimate.low, estimate.high))


def _evaluation(results: Results) -> dict[str, Any]:
    """By setting: the largest k of pass@k, and what came of choosing one of several answers."""
    most: dict[str, str | None] = {}
    selected = {}
    for setting in results.settings:
        arms = [(arm.name, arm.settings[setting]) for arm in results.arms]
        ks = {k for _, one in arms for k in one.pass_at if k != "1"}  # pass@1 is the accuracy itself
        most[setting] = max(ks, key=int, default=None)
        selected[setting] = [(name, chosen) for name, one in arms for chosen in one.selections]
    return {"most_samples": most, "selected": selected}


def _trainings(drawn: Sequence[DrawnTraining]) -> list[DrawnTraining]:
    """Return the trainings to show: all while they are few, else those with alarms first."""
    if len(drawn) <= MOST_TRAININGS:
        return list(drawn)
    return sorted(drawn, key=lambda training: not training.alarms)[:MOST_TRAININGS]


def _samples(data: ReportData) -> dict[str, Any]:
    total = data.samples_total if data.samples_total is not None else len(data.samples)
    if not data.samples or data.results is None:
        return {"samples_json": "", "samples_left": 0, "samples_total": total}
    treatments = [arm.name for arm in data.results.arms if arm.role == "treatment"]
    main = data.verdict.arm if data.verdict else None
    treatments.sort(key=lambda name: name != main)
    text, fitted = embed(data.samples, data.results.baseline, treatments, data.results.unit)
    return {"samples_json": text, "samples_left": total - fitted, "samples_total": total}
