"""Combine the scores of several weak scorers into one, for responses that no single scorer judges well.

Reads rows of ``records.Score`` of several scorers, returns one score per response. ``vote`` turns every score into a
yes or no and counts (majority, or weighted); ``mean`` brings all scores to the range 0 to 1 first, as Weaver does
(Saad-Falcon et al. 2025, arXiv 2506.18203; docs/methods/label_models.md). A label model that learns how good each
scorer is belongs in ``METHODS``, with the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import pyarrow as pa

from w2s_align.errors import UserError, did_you_mean
from w2s_align.scoring.scorer import Assessment, score_table, unscored
from w2s_align.scoring.table import Scores, check_scores, summarize
from w2s_align.scoring.votes import weighted_vote

if TYPE_CHECKING:
    import polars as pl

Method: TypeAlias = Literal["vote", "mean"]
"""Ways to combine."""
KEYS = ["prompt_id", "sample", "model"]
"""What tells a response from all others."""
LOWEST, HIGHEST = 0.05, 0.95
"""Quantiles of a scorer's values that become 0 and 1 under ``mean``, as in Weaver (docs/methods/label_models.md)."""


def combine(
    scores: pa.Table,
    method: Method = "vote",
    *,
    weights: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Scores:
    """Combine scores of several scorers.

    A scorer without a value for a response (null or not finite) abstains there; a response that no scorer has scored
    is unscored.

    - ``vote``: a scorer says yes where its value is at least its threshold; the result is the share of the weight of
      all scorers that voted which says yes. 0.5 and above is the majority.
    - ``mean``: each scorer's values are clamped to its own 5th and 95th percentile over the whole table and brought to
      0 and 1 (values inside 0 to 1 stay as they are); the result is their weighted mean.

    Args:
        scores: Rows of :class:`w2s_align.records.Score`.
        method: ``vote`` or ``mean``.
        weights: Weight of each scorer by name, 1 for those not named. Log-odds of its accuracy are the best weights of
            scorers that err independently.
        thresholds: For ``vote``, from which value on a scorer says yes, 1 for those not named.

    Returns:
        Scores of the scorer ``combined:<method>``, in the order in which responses first occur; the detail names the
        number of scorers that had a say.

    Raises:
        UserError: There are no scores, a column is missing or holds no numbers, a scorer scored a response twice, or
            an option names a scorer that is not there or has a negative weight.
    """
    import polars as pl

    check_scores(scores)
    frame = pl.DataFrame(pl.from_arrow(scores.select([*KEYS, "scorer", "value"])))
    names = frame["scorer"].unique().sort().to_list()
    if not names:
        raise UserError("There are no scores to combine.")
    for option, given in (("weights", weights or {}), ("thresholds", thresholds or {})):
        for name in given:
            if name not in names:
                raise UserError(f"{option}: there are no scores of {name}.", fix=did_you_mean(name, names))
    if any(not weight >= 0 for weight in (weights or {}).values()):
        raise UserError("A weight is negative.", fix="Leave the scorer out, or reverse the sign of its scores.")
    twice = frame.filter(pl.struct([*KEYS, "scorer"]).is_duplicated())
    if twice.height:
        raise UserError(
            f"{twice.height} scores are for responses that have another score of the same scorer.",
            fix="Score every response once, or give each response its own sample number.",
        )
    value = pl.col("value").cast(pl.Float64)
    frame = frame.with_columns(pl.when(value.is_finite()).then(value).alias("value"))
    wide = frame.pivot(on="scorer", index=KEYS, values="value", maintain_order=True)
    weight = {name: 1.0 if weights is None else weights.get(name, 1.0) for name in names}
    values, said = METHODS[method](wide, weight, thresholds or {})
    found = [
        Assessment(value, f"{n} of {len(names)} scorers") if n else unscored("no scorer has a value")
        for value, n in zip(values, said, strict=True)
    ]
    return summarize(score_table(wide.select(KEYS).to_arrow(), f"combined:{method}", found))


Combined: TypeAlias = tuple[list[float | None], list[int]]
"""The value of every response, and how many scorers had a say in it."""


def _vote(wide: pl.DataFrame, weights: Mapping[str, float], thresholds: Mapping[str, float]) -> Combined:
    """Return the share of yes and the number of voters of every row."""
    votes = {
        name: [
            None if value is None else "yes" if value >= thresholds.get(name, 1.0) else "no" for value in wide[name]
        ]
        for name in weights
    }
    winners = weighted_vote(votes, weights)
    values = [None if best is None else share if best == "yes" else 1 - share for best, share in winners]
    return values, _voters(wide, weights)


def _mean(wide: pl.DataFrame, weights: Mapping[str, float], thresholds: Mapping[str, float]) -> Combined:
    """Return the weighted mean of the values on a scale from 0 to 1, and the number of scorers, of every row."""
    import polars as pl

    def scaled(name: str) -> pl.Expr:
        column = wide[name]
        low, high = column.min(), column.max()
        if low is None or (low >= 0 and high <= 1):
            return pl.col(name)
        low, high = column.quantile(LOWEST, "linear"), column.quantile(HIGHEST, "linear")
        if not high > low:
            return pl.when(pl.col(name).is_not_null()).then(0.5)  # equal everywhere: it says nothing
        return (pl.col(name).clip(low, high) - low) / (high - low)

    total = pl.sum_horizontal(pl.when(pl.col(name).is_not_null()).then(weight) for name, weight in weights.items())
    summed = pl.sum_horizontal(scaled(name) * weight for name, weight in weights.items())
    values = wide.select(pl.when(total > 0).then(summed / total)).to_series().to_list()
    return values, _voters(wide, weights)


def _voters(wide: pl.DataFrame, weights: Mapping[str, float]) -> list[int]:
    import polars as pl

    return wide.select(pl.sum_horizontal(pl.col(name).is_not_null() for name in weights)).to_series().to_list()


METHODS: dict[Method, Callable[[pl.DataFrame, Mapping[str, float], Mapping[str, float]], Combined]] = {
    "vote": _vote,
    "mean": _mean,
}
"""The ways to combine, by name."""
