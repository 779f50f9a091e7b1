"""Weak-to-strong generalization without a language model: logistic regression on numbers, two supervisors, a second.

Inputs are standard normal, the class is whether their sum is positive. A weak model sees them through a view, learns
gold labels of one half and labels the other; the student sees everything and learns those labels. ``noisy`` adds
independent noise to every number, so that its errors follow no rule; ``blind`` sees the first few numbers alone, so
that its errors are a rule. Reads plain numbers, returns plain numbers; numpy alone. The ideas are those of Burns et
al. 2023 (arXiv 2312.09390, section 5); the experiment is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from w2s_align.lab.theory_study import Check
from w2s_align.records import Settings

Floats = NDArray[np.float64]
View = Literal["noisy", "blind"]
VIEWS: tuple[View, ...] = ("noisy", "blind")
"""What the weak model sees; see the head of this file."""
NEWTON_STEPS = 50
"""More than Newton's method takes here: it has converged to rounding after about ten."""
PGR = {"noisy": (0.82, 0.06), "blind": (0.0, 0.02)}
"""Gap recovered, and how far a mean over five draws may be from it, for the default settings. Over 120 draws it was
.823 in the noisy view with a standard deviation of .046, so that means over five have one of .02."""
AGREEMENT = {"noisy": (0.648, 0.02), "blind": (1.0, 0.005)}
"""The same for how often the student says what the weak model says."""


class OracleSettings(Settings):
    """What is simulated."""

    dimension: int = Field(10, ge=2)
    """Numbers of an input."""
    noise: float = Field(2.0, ge=0)
    """Standard deviation of the noise that the noisy view adds to each number."""
    seen: int = Field(4, ge=1)
    """Numbers that the blind view shows."""
    rows: int = Field(2000, ge=20)
    """Inputs of each half."""
    test_rows: int = Field(10_000, ge=100)
    """Inputs of the test."""
    penalty: float = Field(1e-3, gt=0)
    """Weight of half the squared weights in the loss."""
    repeats: int = Field(5, ge=1)
    """Draws of everything, with seeds that follow each other."""


@dataclass(frozen=True)
class Outcome:
    """What came of one draw with one view; shares of the test.

    Attributes:
        view: What the weak model sees.
        weak: It is right.
        student: The student is right that learned its probabilities.
        hard: The student is right that learned its most probable classes.
        ceiling: A student is right that learned gold labels.
        agreement: The student says what the weak model says.
        imitated: The same, of the inputs where the weak model is wrong.
    """

    view: View
    weak: float
    student: float
    hard: float
    ceiling: float
    agreement: float
    imitated: float

    @property
    def pgr(self) -> float:
        """The share of the gap that is recovered."""
        return (self.student - self.weak) / (self.ceiling - self.weak)


@dataclass(frozen=True)
class OracleStudy:
    """All draws, and what is checked of their means."""

    outcomes: dict[View, list[Outcome]]
    checks: list[Check]

    def mean(self, view: View, name: str) -> float:
        """Return the mean of a number over the draws."""
        return float(np.mean([getattr(outcome, name) for outcome in self.outcomes[view]]))

    def spread(self, view: View, name: str) -> float:
        """Return its standard deviation."""
        return float(np.std([getattr(outcome, name) for outcome in self.outcomes[view]]))


def fit(x: Floats, labels: Floats, penalty: float) -> Floats:
    """Return the weights of a logistic regression without a constant, by Newton's method.

    Args:
        x: Inputs, rows x numbers.
        labels: Probability of the class, for each row.
        penalty: Weight of half the squared weights beside the mean cross entropy.
    """
    w: Floats = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(x @ w)
        gradient = x.T @ (p - labels) / len(x) + penalty * w
        curvature = (x.T * (p * (1 - p))) @ x / len(x) + penalty * np.eye(x.shape[1])
        step = np.linalg.solve(curvature, gradient)
        w -= step
        if np.abs(step).max() < 1e-12:
            break
    return w


def draw(settings: OracleSettings, view: View, seed: int) -> Outcome:
    """Teach a weak model and its students once.

    Args:
        settings: What is simulated.
        view: What the weak model sees.
        seed: Seed of the inputs and of the noise.
    """
    rng = np.random.default_rng(seed)
    sizes = (settings.rows, settings.rows, settings.test_rows)
    first, second, test = (rng.standard_normal((size, settings.dimension)) for size in sizes)

    def seen(z: Floats) -> Floats:
        noisy: Floats = z + settings.noise * rng.standard_normal(z.shape)
        return noisy if view == "noisy" else z[:, : settings.seen]

    gold = (test.sum(axis=1) > 0).astype(float)
    weak = fit(seen(first), (first.sum(axis=1) > 0).astype(float), settings.penalty)
    labels = _sigmoid(seen(second) @ weak)
    said = seen(test) @ weak > 0

    def student(targets: Floats) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = test @ fit(second, targets, settings.penalty) > 0
        return found

    soft, hard = student(labels), student((labels > 0.5).astype(float))
    ceiling = student((second.sum(axis=1) > 0).astype(float))
    right = said == gold
    return Outcome(
        view=view,
        weak=float(right.mean()),
        student=float((soft == gold).mean()),
        hard=float((hard == gold).mean()),
        ceiling=float((ceiling == gold).mean()),
        agreement=float((soft == said).mean()),
        imitated=float((soft == said)[~right].mean()),
    )


def study_oracle(settings: OracleSettings, seed: int, progress: Callable[[int, int, str], None]) -> OracleStudy:
    """Run all draws, and hold their means against what was found before.

    Args:
        settings: What is simulated.
        seed: Seed of the first draw.
        progress: Called with draws done, draws in all, and a note.
    """
    outcomes: dict[View, list[Outcome]] = {view: [] for view in VIEWS}
    for number in range(settings.repeats):
        for view in VIEWS:
            outcomes[view].append(draw(settings, view, seed + number))
        progress(number + 1, settings.repeats, f"seed {seed + number}")
    study = OracleStudy(outcomes, [])
    study.checks.append(
        Check(
            "Random errors are averaged away, a blind spot is not",
            study.mean("noisy", "pgr") > study.mean("blind", "pgr") + 0.5,
            f"PGR {study.mean('noisy', 'pgr'):.3f} and {study.mean('blind', 'pgr'):.3f}",
        )
    )
    fields = OracleSettings.model_fields  # a step has more of its own
    if any(getattr(settings, name) != fields[name].default for name in fields if name != "repeats"):
        return study  # other settings, other numbers
    for name, expected in (("pgr", PGR), ("agreement", AGREEMENT)):
        for view in VIEWS:
            wanted, tolerance = expected[view]
            found = study.mean(view, name)
            title = f"{'PGR' if name == 'pgr' else 'Agreement with the weak model'}, {view} view"
            said = f"{found:.3f}, expected {wanted:.3f} within {tolerance:g}"
            study.checks.append(Check(title, abs(found - wanted) <= tolerance, said))
    return study


def _sigmoid(x: Floats) -> Floats:
    half: Floats = 0.5 * (1 + np.tanh(x / 2))  # no overflow, whatever x is
    return half
