"""Combine the scores of several weak scorers into one, for responses that no single scorer judges well.

Reads rows of ``records.Score`` of several scorers, returns one score per response. ``vote`` turns every score into a
yes or no and counts (majority, or weighted); ``mean`` brings all scores to the range 0 to 1 first, as Weaver does
(Saad-Falcon et al. 2025, arXiv 2506.18203); ``label_model`` learns from the votes how good each scorer is and gives
the probability that a response is right, and ``supervised`` learns it from labels. docs/methods/label_models.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError, did_you_mean
from w2s_align.records import Score
from w2s_align.scoring.binarize import normalized
from w2s_align.scoring.label_model import Floats
from w2s_align.scoring.label_model_settings import LabelModelSettings
from w2s_align.scoring.labeled import labels_of, supervised
from w2s_align.scoring.panel import Panel, ask_panel
from w2s_align.scoring.score_matrix import ScoreMatrix, score_matrix
from w2s_align.scoring.table import Scores, summarize

if TYPE_CHECKING:
    import polars as pl

Method: TypeAlias = Literal["vote", "mean", "label_model", "supervised"]
"""Ways to combine."""
UNSCORED = "no scorer has a value"
"""Why a response has no combined score."""


@dataclass(frozen=True)
class Combined(Scores):
    """The result of :func:`combine`.

    Attributes:
        panel: What a label model says of the scorers; None for other methods.
    """

    panel: Panel | None = None


def combine(
    scores: pa.Table | Iterable[pa.Table],
    method: Method = "vote",
    *,
    weights: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
    label_model: LabelModelSettings | None = None,
    labels: pa.Table | None = None,
    labeled_prompts: int | None = None,
    seed: int = 0,
) -> Combined:
    """Combine scores of several scorers.

    A scorer without a value for a response (null or not finite) abstains there; a response that no scorer has scored
    is unscored.

    - ``vote``: a scorer says yes where its value is at least its threshold; the result is the share of the weight of
      all scorers that voted which says yes. 0.5 and above is the majority.
    - ``mean``: each scorer's values are clamped to its own 5th and 95th percentile over the whole table and brought to
      0 and 1 (values inside 0 to 1 stay as they are); the result is their weighted mean.
    - ``label_model``: the probability that the response is right; see ``label_model.py`` and ``panel.py``.
    - ``supervised``: the same by logistic regression on the labels alone: what a label model has to be held against.

    Args:
        scores: Rows of :class:`w2s_align.records.Score`, in one table or several, which are read in turn.
        method: ``vote``, ``mean``, ``label_model`` or ``supervised``.
        weights: Weight of each scorer by name, 1 for those not named. Log-odds of its accuracy are the best weights of
            scorers that err independently. Not for a label model and a regression, which find their own.
        thresholds: For ``vote``, from which value on a scorer says yes, 1 for those not named.
        label_model: Options of the label model; the defaults when None.
        labels: Scores of some responses against gold answers: above 0.5 is right. ``supervised`` needs them.
        labeled_prompts: Use the labels of so many prompts, drawn with the seed; by default of all.
        seed: Seed of the draw of labeled prompts.

    Returns:
        Scores of the scorer ``combined:<method>``, in the order in which responses first occur; the detail names the
        number of scorers that had a value.

    Raises:
        UserError: There are no scores, a column is missing or holds no numbers, a scorer scored a response twice, an
            option names a scorer that is not there or has a negative weight, or there is nothing to learn from.
    """
    matrix = score_matrix(scores, answers=method == "label_model")
    names = matrix.names
    for option, given in (("weights", weights or {}), ("thresholds", thresholds or {})):
        for name in given:
            if name not in names:
                raise UserError(f"{option}: there are no scores of {name}.", fix=did_you_mean(name, names))
    if any(not weight >= 0 for weight in (weights or {}).values()):
        raise UserError("A weight is negative.", fix="Leave the scorer out, or reverse the sign of its scores.")
    weight = np.array([1.0 if weights is None else weights.get(name, 1.0) for name in names])
    known = None if labels is None else labels_of(matrix, labels, labeled_prompts, seed)
    panel = None
    if method == "label_model":
        values, panel = ask_panel(matrix, label_model or LabelModelSettings(), known)
    elif method == "supervised":
        values = supervised(matrix, np.full(len(matrix.responses), np.nan) if known is None else known)
    elif method == "mean":
        values = _weighted_mean([normalized(column) for column in matrix.values.get_columns()], weight)
    else:
        least = {name: 1.0 if thresholds is None else thresholds.get(name, 1.0) for name in names}
        values = _weighted_mean([(matrix.values[name] >= least[name]).cast(float) for name in names], weight)
    found = summarize(_score_table(matrix, values, f"combined:{method}"))
    return Combined(found.table, found.scored, found.unscored, found.mean, panel)


def _weighted_mean(columns: Iterable[pl.Series], weights: Floats) -> Floats:
    """Return the weighted mean of each row over the columns with a value there; NaN where none has weight."""
    summed, total = np.zeros(0), np.zeros(0)
    for column, weight in zip(columns, weights, strict=True):
        known = column.is_not_null().to_numpy()
        if not summed.size:
            summed, total = np.zeros(len(known)), np.zeros(len(known))
        summed += weight * column.fill_null(0.0).to_numpy()
        total += weight * known
    return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)


def _score_table(matrix: ScoreMatrix, values: Floats, scorer: str) -> pa.Table:
    """Return rows of :class:`w2s_align.records.Score`, made by column: there may be a million."""
    n, names = len(values), matrix.names
    said = sum((column.is_not_null().cast(int).to_numpy() for column in matrix.values.get_columns()), np.zeros(n, int))
    known = ~np.isnan(values)
    words = pa.array([f"{count} of {len(names)} scorers" for count in range(len(names) + 1)] + [UNSCORED])
    columns = {name: matrix.responses[name].to_arrow() for name in matrix.responses.columns}
    columns["scorer"] = pa.repeat(pa.scalar(scorer), n)
    columns["value"] = pa.array(values, mask=~known)
    columns["detail"] = words.take(pa.array(np.where(known, said, len(names) + 1)))
    columns["outcome"] = pa.array([None, UNSCORED], pa.string()).take(pa.array((~known).astype(np.int8)))
    missing = {field.name: pa.nulls(n, field.type) for field in Score.SCHEMA if field.name not in columns}
    return pa.table(columns | missing).select(Score.SCHEMA.names).cast(Score.SCHEMA)
