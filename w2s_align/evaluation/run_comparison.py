"""The arms of several studies side by side: the same arm on the same problems in one study and in another.

Reads the arms of each study with its Results; returns plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from w2s_align.evaluation.arms import Arm, measure, task_numbers
from w2s_align.evaluation.macro import macro_difference
from w2s_align.evaluation.results import Results, Role
from w2s_align.evaluation.statistics import Floats, holm


@dataclass(frozen=True)
class RunArms:
    """One study.

    Attributes:
        name: Its name.
        problems: Rows of ``Prompt.SCHEMA``.
        arms: Its arms.
        results: What its own evaluation found.
        metrics: Metric of each task, where it is not the mean.
    """

    name: str
    problems: pa.Table
    arms: Sequence[Arm]
    results: Results
    metrics: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One arm of one study.

    Attributes:
        value: Its mean; None where nothing is known.
        low: Lower end of its interval.
        high: Upper end.
        difference: Against the same arm of the first study, on the problems that both have.
        difference_low: Lower end of the difference's interval.
        difference_high: Upper end.
        p: Two-sided p-value of "no difference".
        p_holm: Adjusted over all comparisons of the setting.
        mde: Smallest true difference that would be found in 80 of 100 studies.
        same: The answers are the first study's own, verdict by verdict.
    """

    value: float | None
    low: float | None
    high: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    mde: float | None = None
    same: bool = False


@dataclass(frozen=True)
class Row:
    """One arm in one setting, over the studies; None where a study has no such arm."""

    arm: str
    role: Role
    setting: str
    cells: list[Cell | None]


@dataclass(frozen=True)
class RunComparison:
    """Several studies side by side.

    Attributes:
        names: The studies; differences are against the first.
        unit: ``share`` or ``number``.
        rows: Arms in their settings.
        caveats: What a reader must know.
    """

    names: list[str]
    unit: str
    rows: list[Row]
    caveats: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def compare_studies(studies: Sequence[RunArms], *, seed: int = 0) -> RunComparison:
    """Put studies side by side, with paired tests against the first where the problems are the same.

    Args:
        studies: Two or more.
        seed: Seed of resampling.
    """
    first = studies[0]
    caveats: list[str] = []
    testable: list[bool] = []
    for study in studies:
        ids, base = set(study.problems["id"].to_pylist()), set(first.problems["id"].to_pylist())
        testable.append(ids == base)
        if ids != base:
            shared = len(ids & base)
            caveats.append(
                f"{study.name} was evaluated on other problems than {first.name} ({shared} of {len(base)} are the "
                f"same), "
                "so no difference is tested."
            )
        if study.results.metric != first.results.metric:
            caveats.append(
                f"{study.name} is scored by {study.results.metric}, {first.name} by {first.results.metric}."
            )
            testable[-1] = False
    settings = list(dict.fromkeys(s for study in studies for s in study.results.settings))
    rows = [row for setting in settings for row in _setting_rows(studies, testable, setting, seed)]
    return RunComparison([s.name for s in studies], first.results.unit, rows, caveats)


def best_cell(found: RunComparison) -> tuple[Row, int] | None:
    """Return the treatment arm with the highest mean in the first setting, and the study that has it.

    The best of several is too good on average (it was chosen by the same numbers); its interval does not know that.
    """
    first = next((row.setting for row in found.rows), None)
    values = [
        (cell.value, row, i)
        for row in found.rows
        if row.setting == first and row.role == "treatment"
        for i, cell in enumerate(row.cells)
        if cell is not None and cell.value is not None
    ]
    return max(values, key=lambda entry: entry[0])[1:] if values else None


def _setting_rows(studies: Sequence[RunArms], testable: Sequence[bool], setting: str, seed: int) -> list[Row]:
    arms = list(dict.fromkeys(arm.name for study in studies for arm in study.results.arms))
    role = {arm.name: arm.role for study in reversed(studies) for arm in study.results.arms}
    table = {arm: [_cell(study, arm, setting) for study in studies] for arm in arms}
    order: list[tuple[str, int]] = []
    for arm, cells in table.items():
        base = _values(studies[0], arm, setting, studies[0]) if cells[0] is not None else None
        for i, cell in enumerate(cells):
            if i and cell is not None and base is not None and testable[i]:
                cells[i] = _tested(cell, _values(studies[i], arm, setting, studies[0]), base, studies[0], seed)
                order.append((arm, i))
    made = [table[arm][i] for arm, i in order]
    adjusted = holm([None if cell is None or cell.same else cell.p for cell in made])
    for (arm, i), cell, p in zip(order, made, adjusted, strict=True):
        if cell is not None:
            table[arm][i] = Cell(**{**asdict(cell), "p_holm": p})
    return [Row(arm, role[arm], setting, cells) for arm, cells in table.items() if any(cells)]


def _cell(study: RunArms, arm: str, setting: str) -> Cell | None:
    found = next((a for a in study.results.arms if a.name == arm), None)
    if found is None or setting not in found.settings:
        return None
    estimate = found.settings[setting].estimate
    return Cell(estimate.value, estimate.low, estimate.high)


def _values(study: RunArms, arm: str, setting: str, first: RunArms) -> Floats:
    """Return one number per problem, in the order of the first study's problems."""
    ids = first.problems["id"].combine_chunks()
    metrics = [study.metrics.get(task, "mean") for task in first.problems["task"].to_pylist()]
    return measure(next(a for a in study.arms if a.name == arm), setting, ids, metrics).values


def _tested(cell: Cell, values: Floats, base: Floats, first: RunArms, seed: int) -> Cell:
    tasks = task_numbers(first.problems, first.results.by_subject)
    bounds = (0.0, 1.0) if first.results.unit == "share" else None
    d = macro_difference(values, base, tasks, bounds=bounds, level=first.results.level, seed=seed)
    same = bool(np.array_equal(values, base, equal_nan=True))
    return Cell(cell.value, cell.low, cell.high, d.value, d.low, d.high, d.p, None, d.mde, same)
