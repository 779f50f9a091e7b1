"""Votes out of scores: values of a scorer on one scale, and from which value on a scorer says yes.

The ways of Weaver (Saad-Falcon et al. 2025, arXiv 2506.18203, B.2.2, B.3 and its code); docs/methods/label_models.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from w2s_align.errors import UserError
from w2s_align.scoring.label_model import MISSING, Floats, Votes
from w2s_align.scoring.label_model_settings import LabelModelSettings, Normalize
from w2s_align.scoring.score_matrix import ScoreMatrix

if TYPE_CHECKING:
    import polars as pl

LOWEST, HIGHEST = 0.05, 0.95
"""Quantiles of a scorer's values that become 0 and 1 under ``percentiles`` (Weaver, C.1)."""
TOP = 0.15
"""Share of a scorer's responses that are a yes under ``top`` (Weaver, B.2.2)."""
GRID = np.linspace(0.05, 0.95, 19)
"""Thresholds that are tried under ``labels`` (Weaver, B.2.2)."""


def normalized(values: pl.Series, how: Normalize = "percentiles", prompts: pl.Series | None = None) -> pl.Series:
    """Return values between 0 and 1; those of a scorer that stays in this range are left alone.

    Args:
        values: Of one scorer, null where there is none.
        how: See :class:`LabelModelSettings`.
        prompts: The prompt of each response, to bring values to one scale within each prompt.
    """
    import polars as pl

    low, high = values.min(), values.max()
    if low is None or (low >= 0 and high <= 1):
        return values
    value = pl.col("value")
    if how == "ranks":
        lower, upper, place = pl.lit(1), _over(value.count(), prompts), _over(value.rank(), prompts)
    elif how == "min_max":
        lower, upper, place = _over(value.min(), prompts), _over(value.max(), prompts), value
    else:
        lower = _over(value.quantile(LOWEST, "linear"), prompts)
        upper = _over(value.quantile(HIGHEST, "linear"), prompts)
        place = value.clip(lower, upper)
    scaled = pl.when(upper > lower).then((place - lower) / (upper - lower)).otherwise(0.5)  # all equal: no news
    frame = pl.DataFrame({"value": values, "prompt": values.is_null() if prompts is None else prompts})
    return frame.select(pl.when(value.is_not_null()).then(scaled).alias(values.name)).to_series()


def _over(expression: pl.Expr, prompts: pl.Series | None) -> pl.Expr:
    return expression if prompts is None else expression.over("prompt")


def majority_values(matrix: ScoreMatrix) -> pl.Series:
    """Return how often each response's answer is given within its prompt: the rarest is 0, the most frequent is 1.

    Where all answers of a prompt are equally frequent, each has 1 (as in Weaver's code). A response without an answer
    has 0: it is no sign of agreement.

    Raises:
        ValueError: The matrix holds no answers.
    """
    import polars as pl

    if matrix.answers is None:
        raise ValueError("the scores hold no answers")
    frame = pl.DataFrame({"prompt": matrix.prompts, "answer": matrix.answers})
    counts = frame.drop_nulls("answer").group_by("prompt", "answer").len("n")
    low, high = pl.col("n").min().over("prompt"), pl.col("n").max().over("prompt")
    # In floats: counts are unsigned.
    share = (pl.col("n").cast(pl.Float64) - low) / (high.cast(pl.Float64) - low)
    counts = counts.with_columns(majority=pl.when(high > low).then(share).otherwise(1.0))
    found = frame.join(counts, on=["prompt", "answer"], how="left", maintain_order="left")["majority"]
    return found.fill_null(0.0)


def votes_of(
    values: pl.DataFrame, prompts: pl.Series, settings: LabelModelSettings, prior: float, labels: Floats
) -> Votes:
    """Return the votes of every scorer.

    Args:
        values: Normalized values, a column for each scorer.
        prompts: The prompt of each response.
        settings: How to binarize.
        prior: Share of right responses.
        labels: 1 for right, 0 for wrong, NaN where it is not known.

    Raises:
        UserError: Thresholds are to fit labels, and there are none of both kinds.
    """
    votes = np.full(values.shape, MISSING, np.int8)
    if settings.binarize == "labels" and not {0.0, 1.0} <= set(labels[~np.isnan(labels)].tolist()):
        raise UserError(
            "binarize: labels needs labels of right and of wrong responses.",
            fix="Add labels: [$scores] with both, or use binarize: balance.",
        )
    for number, column in enumerate(values.get_columns()):
        known = column.is_not_null().to_numpy()
        value = column.fill_null(0.0).to_numpy()
        if ((value == 0) | (value == 1)).all():
            yes = value == 1
        elif settings.binarize == "threshold":
            yes = value >= settings.threshold
        elif settings.binarize == "labels":
            yes = value >= _best_threshold(value, known, labels)
        else:
            share = TOP if settings.binarize == "top" else prior
            yes = _highest(column, share, prompts if settings.scope == "prompt" else None)
        votes[known, number] = yes[known]
    return votes


def _highest(column: pl.Series, share: float, prompts: pl.Series | None) -> np.ndarray:
    """Return which values are the highest, about so many of them; equal values are on one side."""
    import polars as pl

    value = pl.col("value")
    frame = pl.DataFrame({"value": column, "prompt": column.is_null() if prompts is None else prompts})
    cut = _over(value.quantile(1 - share, "higher"), prompts)
    above = frame.select(at=value >= cut, over=value > cut, prompt="prompt")
    at, over = _over(pl.col("at").mean(), prompts), _over(pl.col("over").mean(), prompts)
    nearer = (at - share).abs() <= (over - share).abs()
    return above.select(pl.when(nearer).then("at").otherwise("over")).to_series().fill_null(False).to_numpy()


def _best_threshold(value: np.ndarray, known: np.ndarray, labels: Floats) -> float:
    """Return the threshold of the grid with the highest mean of the shares of right and wrong that it tells apart."""
    right, wrong = value[known & (labels == 1)], value[known & (labels == 0)]
    if not len(right) or not len(wrong):
        return 0.5
    gains = [(right >= cut).mean() + (wrong < cut).mean() for cut in GRID]
    return float(GRID[int(np.argmax(gains))])
