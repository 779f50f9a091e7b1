"""The published length-controlled win rate of AlpacaEval 2, from the data that its authors fit it with.

Dubois and others 2024, arXiv 2404.04475, and the program of the leaderboard:

    P(win) = sigmoid(theta * own + phi * tanh(z) + psi * difficulty)
    win rate = mean over instructions of sigmoid(theta + psi * difficulty)

``z`` is the length of the reference minus that of the answer, in standard deviations; ``difficulty`` is a number that
the authors fitted for each of their 805 instructions; ``own`` is 1 for the model's rows and 0 for rows in which the
reference was lengthened or shortened on purpose, which pull phi and psi to what they are for the reference. L1
penalty, chosen by 5-fold cross-validation. Both come in one file of the data set tatsu-lab/alpaca_eval,
``df_gamed.csv``. Without it :mod:`length_control` has a fit of our own, under another name.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special, stats

from w2s_align.errors import UserError
from w2s_align.evaluation.results import Estimate
from w2s_align.evaluation.statistics import LEVEL, Floats

COLUMNS = ("preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
"""Columns of ``df_gamed.csv`` that the fit reads."""
WEIGHT = 0.1
"""Weight of a gamed row: lambda = 0.2, halved because the reference was gamed in two ways."""
FOLDS = 5
"""Folds of the published cross-validation."""
SEED = 123
"""Random state of the published program."""
METHOD = "published fit of AlpacaEval 2"
"""How an estimate says where it comes from."""


@dataclass(frozen=True)
class GamedRows:
    """The rows of ``df_gamed.csv``.

    Attributes:
        preferences: Of the gamed reference over the reference, 0 to 1.
        lengths: Length differences in standard deviations.
        difficulties: Difficulty of each row's instruction.
        by_index: Difficulty by the instruction's number in the evaluation set, from 0.
    """

    preferences: Floats
    lengths: Floats
    difficulties: Floats
    by_index: Mapping[int, float]


def read_gamed(path: Path) -> GamedRows:
    """Read ``df_gamed.csv`` of the data set tatsu-lab/alpaca_eval.

    Raises:
        UserError: The file is not there, lacks a column, or has a cell that is no number.
    """
    fix = "Give df_gamed.csv of the data set tatsu-lab/alpaca_eval."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", fix=fix) from None
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise UserError(f"{path} has no rows with {', '.join(missing)}.", fix=fix)
    numbers: dict[str, list[float]] = {name: [] for name in COLUMNS[:-1]}
    for line, row in enumerate(rows, start=2):
        if row["not_gamed_baseline"] != "False":
            raise UserError(f"{path}:{line} has not_gamed_baseline {row['not_gamed_baseline']!r}, not False.", fix=fix)
        for name, values in numbers.items():
            try:
                # the published program leaves out rows without a preference
                values.append(float(row[name] or "nan") if name == "preference" else float(row[name]))
            except ValueError:
                raise UserError(f"{path}:{line} has {row[name]!r} as {name}, which is no number.", fix=fix) from None
    found = {name: np.array(values) for name, values in numbers.items()}
    by_index: dict[int, float] = {}
    for index, difficulty in zip(found["index"].astype(int), found["instruction_difficulty"], strict=True):
        by_index.setdefault(int(index), float(difficulty))
    known = np.isfinite(found["preference"])
    return GamedRows(
        found["preference"][known], found["std_delta_len"][known], found["instruction_difficulty"][known], by_index
    )


def published_win_rate(
    preferences: Floats, length_differences: Floats, difficulties: Floats, gamed: GamedRows, level: float = LEVEL
) -> Estimate:
    """Fit the model at the head of this file.

    Args:
        preferences: Of each answer over the reference, 0 to 1; NaN where the judge could not be read: left out of the
            fit, while its instruction stays in the mean.
        length_differences: Length of the answer minus that of the reference, in characters.
        difficulties: Difficulty of each answer's instruction.
        gamed: The rows of the reference gamed on purpose.
        level: Confidence level.

    Returns:
        The win rate; its interval is the normal one of the published standard error, which is that of the mean of the
        predictions and knows nothing of the error of the fit. ``value`` is None for fewer answers than folds.
    """
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    spread = float(np.std(length_differences, ddof=1)) if len(length_differences) > 1 else 0.0
    if len(preferences) < FOLDS:
        return Estimate(value=None, low=None, high=None, method=f"fewer than {FOLDS} answers")
    lengths = -length_differences / spread if spread > 0 else np.zeros_like(length_differences, dtype=float)
    known = np.isfinite(preferences)
    own = _design(lengths[known], difficulties[known], 1.0)
    x = np.concatenate([_design(gamed.lengths, gamed.difficulties, 0.0), own])
    y = np.concatenate([gamed.preferences, preferences[known]])
    weights = np.concatenate([np.full(len(gamed.preferences), WEIGHT), np.ones(known.sum())])
    # Each row stands there twice, as a win with weight y and as a loss with weight 1 - y; both in the same fold.
    twice, both = np.concatenate([x, x]), np.concatenate([weights, weights])
    with config_context(enable_metadata_routing=True):
        scoring = make_scorer(_cross_entropy, response_method="predict_proba", greater_is_better=False)
        model = LogisticRegressionCV(
            cv=GroupKFold(FOLDS),
            scoring=scoring.set_score_request(share=True, weight=True),
            fit_intercept=False,
            solver="liblinear",
            random_state=SEED,
            l1_ratios=(1.0,),
            use_legacy_attributes=False,
        ).set_fit_request(sample_weight=True)
        model.fit(
            twice,
            np.repeat([1, 0], len(x)),
            sample_weight=np.concatenate([y, 1 - y]) * both,
            groups=np.tile(np.arange(len(x)), 2),
            share=np.concatenate([y, y]),
            weight=both,
        )
    predicted = special.expit(_design(np.zeros(len(lengths)), difficulties, 1.0) @ model.coef_[0])
    value, error = float(predicted.mean()), float(stats.sem(predicted))
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), method=METHOD)


def _design(lengths: Floats, difficulties: Floats, own: float) -> Floats:
    """Return the rows of the design matrix (rows x 3), in the published order: length, difficulty, own."""
    return np.column_stack([np.tanh(lengths), difficulties, np.full(len(lengths), own)])


def _cross_entropy(y_true: Floats, y_pred: Floats, share: Floats, weight: Floats) -> float:
    """Return the weighted cross-entropy with the shares themselves as targets, whatever the row's label."""
    p = np.clip(y_pred, 1e-15, 1 - 1e-15)
    return -float(np.mean(weight * (share * np.log(p) + (1 - share) * np.log(1 - p))))


def of_task(scores: pa.Table, problems: pa.Table, gamed: GamedRows, level: float = LEVEL) -> Estimate:
    """Control the scores of a judged task for length as published.

    Args:
        scores: Rows of ``Score.SCHEMA`` of one run; the task's have a ``length_difference``, or no value.
        problems: Rows of ``Prompt.SCHEMA`` of the task; ``meta`` has the instruction's number as ``index``.
        gamed: The rows of the reference gamed on purpose.
        level: Confidence level.

    Raises:
        UserError: An instruction has no number, or the file has no difficulty for it.
    """
    numbers = [json.loads(meta).get("index") for meta in problems["meta"].to_pylist()]
    unknown = [number for number in numbers if number not in gamed.by_index]
    if unknown:
        raise UserError(
            f"judging.gamed has no difficulty for {len(unknown)} of {len(numbers)} instructions "
            f"(the first has number {unknown[0]}).",
            fix="The published control for length fits alpaca_eval alone; leave judging.gamed out.",
        )
    difficulties = np.array([gamed.by_index[number] for number in numbers])
    where = pc.index_in(scores["prompt_id"], value_set=problems["id"].combine_chunks())
    own = scores.filter(pc.is_valid(where))
    place = where.drop_null().to_numpy()
    values = own["value"].to_numpy().astype(float)
    lengths = pc.fill_null(pc.cast(own["length_difference"], pa.float64()), 0.0).to_numpy().astype(float)
    return published_win_rate(values, lengths, difficulties[place], gamed, level)
