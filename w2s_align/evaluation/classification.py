"""What stands beside the accuracy of a classifier: balanced accuracy, F1, AUROC, calibration.

Reads items (``Prompt.SCHEMA``, gold answers are classes) and labels (``Score.SCHEMA`` with probabilities); returns
plain values of results.py. Intervals resample the items; the runs of an arm are averaged in each resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from w2s_align.errors import UserError
from w2s_align.evaluation.calibration import calibration_error
from w2s_align.evaluation.results import ClassifierResult, Estimate
from w2s_align.evaluation.statistics import LEVEL, Floats
from w2s_align.records import Score, from_table, record_columns, to_table

RESAMPLES = 1000
"""Resamples of these numbers: percentile intervals that nothing is decided by."""


def auroc(score: ArrayLike, positive: ArrayLike) -> float | None:
    """Return the area under the ROC curve: how often a positive item has the higher score; a tie counts one half.

    Args:
        score: One number for each item.
        positive: Whether it is of the positive class.

    Returns:
        None where one of the two classes is missing.
    """
    x, y = np.asarray(score, dtype=float), np.asarray(positive, dtype=bool)
    n, m = int(y.sum()), int((~y).sum())
    if not n or not m:
        return None
    return float((stats.rankdata(x)[y].sum() - n * (n + 1) / 2) / (n * m))  # mean ranks: ties count one half


def balanced_accuracy(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Return the mean over the classes of the gold answers of how many of their items are right."""
    p, y = np.asarray(predicted), np.asarray(gold)
    return float(np.mean([(p[y == name] == name).mean() for name in np.unique(y)]))


def f1(predicted: ArrayLike, gold: ArrayLike, positive: object) -> float:
    """Return the harmonic mean of precision and recall of a class; 0 where neither has it."""
    p, y = np.asarray(predicted) == positive, np.asarray(gold) == positive
    both, either = float((p & y).sum()), float(p.sum() + y.sum())
    return 2 * both / either if either else 0.0


def right_or_wrong(items: pa.Table, labels: pa.Table) -> pa.Table:
    """Return labels as scores of answers: 1 where the most probable class is the gold answer, else 0.

    Args:
        items: The test, with gold answers.
        labels: A classifier's labels of it.

    Raises:
        UserError: An item has no gold answer, or one that is none of the classes.
    """
    gold = dict(zip(items["id"].to_pylist(), items["answer"].to_pylist(), strict=True))
    missing = sum(answer is None for answer in gold.values())
    if missing:
        raise UserError(
            f"{missing:,} of the {len(gold):,} test items have no gold answer.",
            "Accuracy is the share of items whose label is their gold answer.",
            "Give a test with an answer for every item.",
        )
    rows = from_table(Score, record_columns(Score, labels))
    classes = {entry["label"] for row in rows for entry in row.probabilities or ()}
    unknown = sorted(set(gold.values()) - classes) if classes else []
    if unknown:
        raise UserError(
            f"The answer {unknown[0]!r} of the test is none of the classes {', '.join(sorted(classes))}.",
            "It could never be right.",
            "Name the classes of the test in the classifiers: classes: [...].",
        )
    table = record_columns(Score, labels)
    right = [
        None if row.answer is None or row.prompt_id not in gold else float(row.answer == gold[row.prompt_id])
        for row in rows
    ]
    return table.set_column(table.schema.get_field_index("value"), Score.SCHEMA.field("value"), [right])


def classifier_results(
    items: pa.Table, arms: Mapping[str, Sequence[pa.Table]], *, level: float = LEVEL, seed: int = 0
) -> list[ClassifierResult]:
    """Return what stands beside the accuracy of each arm.

    Args:
        items: The test, with gold answers.
        arms: Labels of it by every run of every arm.
        level: Confidence level.
        seed: Seed of the resampling.
    """
    ids, gold = items["id"].to_pylist(), items["answer"].to_pylist()
    found = []
    for arm, runs in arms.items():
        made = [_Run.of(labels, ids, gold) for labels in runs]
        rng = np.random.default_rng(seed)
        draws = [rng.integers(0, len(ids), len(ids)) for _ in range(RESAMPLES)]
        found.append(
            ClassifierResult(
                arm=arm,
                balanced_accuracy=_estimate(made, "balanced_accuracy", draws, level),
                f1=_estimate(made, "f1", draws, level),
                auroc=_estimate(made, "auroc", draws, level),
                calibration_error=_mean([run.calibration_error for run in made]),
                confidence=_mean([run.confidence for run in made]),
                classes={
                    name: float(np.mean([(run.predicted == place).mean() for run in made]))
                    for place, name in enumerate(made[0].classes)
                },
            )
        )
    return found


class _Run:
    """One run's labels, in the order of the items that have one: places among the classes, and probabilities."""

    def __init__(self, predicted: NDArray[np.int64], gold: NDArray[np.int64], p: Floats, classes: list[str]) -> None:
        self.predicted, self.gold, self.p, self.classes = predicted, gold, p, classes

    @classmethod
    def of(cls, labels: pa.Table, ids: Sequence[str], gold: Sequence[str]) -> _Run:
        rows = {row.prompt_id: row for row in from_table(Score, record_columns(Score, labels)) if row.probabilities}
        known = [place for place, item in enumerate(ids) if item in rows]
        found = [rows[ids[place]] for place in known]
        classes = [entry["label"] for entry in found[0].probabilities or ()] if found else []
        p = np.asarray([[entry["p"] for entry in row.probabilities or ()] for row in found])
        given, right = (
            np.asarray([classes.index(name) for name in names], dtype=np.int64)
            for names in ([row.answer or "" for row in found], [gold[place] for place in known])
        )
        return cls(given, right, p, classes)

    def balanced_accuracy(self, rows: NDArray[np.int64] | slice) -> float | None:
        return balanced_accuracy(self.predicted[rows], self.gold[rows]) if self.classes else None

    def f1(self, rows: NDArray[np.int64] | slice) -> float | None:
        return f1(self.predicted[rows], self.gold[rows], 1) if len(self.classes) == 2 else None

    def auroc(self, rows: NDArray[np.int64] | slice) -> float | None:
        if len(self.classes) != 2:
            return None
        return auroc(self.p[rows, 1], self.gold[rows] == 1)

    @property
    def calibration_error(self) -> float | None:
        return calibration_error(self.p.max(axis=1), self.predicted == self.gold) if self.classes else None

    @property
    def confidence(self) -> float | None:
        return float(self.p.max(axis=1).mean()) if self.classes else None


def _estimate(runs: Sequence[_Run], name: str, draws: Sequence[NDArray[np.int64]], level: float) -> Estimate:
    def mean(rows: NDArray[np.int64] | slice) -> float | None:
        return _mean([getattr(run, name)(rows if isinstance(rows, slice) else rows % len(run.gold)) for run in runs])

    value = mean(slice(None))
    if value is None:
        return Estimate(value=None, low=None, high=None, method="for two classes, both of which occur")
    resampled = [found for rows in draws if (found := mean(rows)) is not None]
    low, high = np.quantile(resampled, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value=value, low=float(low), high=float(high), method="percentile bootstrap over items")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) and known else None


def labels_as_responses(labels: pa.Table) -> pa.Table:
    """Return labels as responses whose text is the most probable class, to be shown beside each other."""
    from w2s_align.records import Response

    return to_table(
        [
            Response(row.prompt_id, row.sample, row.model, row.answer, finish_reason="stop" if row.answer else "error")
            for row in from_table(Score, record_columns(Score, labels))
        ],
        Response,
    )
