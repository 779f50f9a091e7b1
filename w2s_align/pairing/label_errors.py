"""Pairs whose sides are probably the wrong way round, by an ensemble that disagrees with confidence (Nahum and others,
EMNLP 2025, arXiv 2410.18889; docs/methods/label_errors.md).

Every member gives the probability that the chosen response of a pair is the better one: a judge of two responses side
by side by the mean of both orders, scores that are probabilities by the two responses being right and wrong. The mean
over members against the label, with enough confidence, is a flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from w2s_align.errors import UserError
from w2s_align.pairing.controls import reverse
from w2s_align.scoring.judge_scores import comparisons
from w2s_align.scoring.table import check_scores

if TYPE_CHECKING:
    import polars as pl

Floats: TypeAlias = NDArray[np.float64]
Action: TypeAlias = Literal["none", "drop", "flip"]
"""What becomes of a flagged pair."""
BINS = (0.5, 0.65, 0.8, 0.95, 0.99)
"""Lower ends of the bins of confidence (arXiv 2410.18889, section 3); the last one ends at 1."""
SIDES = {
    side: {"prompt_id": "prompt_id", "model": f"{side}_model", "sample": f"{side}_sample"}
    for side in ("chosen", "rejected")
}
"""Columns of a pair that name each response."""


@dataclass(frozen=True)
class LabelErrors:
    """What an ensemble says of pairs.

    Attributes:
        p_chosen: Probability that the chosen side is the better one, mean over the members that know it; NaN if none.
        flagged: Whether the ensemble says the opposite with enough confidence.
        bins: For each bin of confidence its lower end, the pairs in it, and those with which the ensemble disagrees.
        unknown: Pairs that no member judged.
    """

    p_chosen: Floats
    flagged: NDArray[np.bool_]
    bins: list[tuple[float, int, int]]
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "pairs": len(self.flagged),
            "flagged": int(self.flagged.sum()),
            "disagree": int((self.p_chosen < 0.5).sum()),
            "unknown": self.unknown,
            "bins": [{"from": low, "pairs": pairs, "disagree": against} for low, pairs, against in self.bins],
        }


def find_label_errors(members: Sequence[Floats], threshold: float) -> LabelErrors:
    """Flag pairs with which an ensemble disagrees.

    Args:
        members: For each member the probability that the chosen side of each pair is better; NaN where not known.
        threshold: Least confidence of a flag, from 0.5 to 1: the mean probability of the rejected side.
    """
    told = np.stack(members)
    known = ~np.isnan(told)
    count = known.sum(axis=0)
    p = np.where(known, told, 0).sum(axis=0) / np.maximum(count, 1)
    p = np.where(count > 0, p, np.nan)
    confidence = np.maximum(p, 1 - p)
    ends = [*BINS[1:], np.inf]
    bins = []
    for low, high in zip(BINS, ends, strict=True):
        inside = (confidence >= low) & (confidence < high)
        bins.append((low, int(inside.sum()), int((inside & (p < 0.5)).sum())))
    flagged = (p < 0.5) & (1 - p >= threshold)
    return LabelErrors(p, flagged, bins, int((count == 0).sum()))


def by_scores(pairs: pa.Table, scores: pa.Table) -> Floats:
    """Return the probability that the chosen side is better, by probabilities of being right.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        scores: Probabilities of one scorer (a verdict, a label model's posterior) for the responses.

    Raises:
        UserError: A score is no probability, or there are several scorers.
    """
    import polars as pl

    check_scores(scores)
    names = scores["scorer"].unique().to_pylist()
    if len(names) > 1:
        raise UserError(f"The scores come from {', '.join(sorted(names))}.", fix="Name a step with one scorer.")
    frame = pl.DataFrame(pl.from_arrow(scores.select(["prompt_id", "model", "sample", "value"])))
    frame = frame.unique(["prompt_id", "model", "sample"], keep="first")
    if frame.select(((pl.col("value") < 0) | (pl.col("value") > 1)).any()).item():
        raise UserError(
            f"The scores of {names[0] if names else 'nobody'} are no probabilities: they lie outside 0 to 1.",
            fix="Use a judge (mode: pairwise or verdict), or kind: combine with method: label_model.",
        )
    chosen, rejected = (_values(pairs, frame, columns) for columns in SIDES.values())
    won, lost = chosen * (1 - rejected), rejected * (1 - chosen)
    either = np.where(won + lost > 0, won + lost, 1)
    return np.where(np.isnan(won), np.nan, np.where(won + lost > 0, won / either, 0.5))


def by_judge(pairs: pa.Table, verdicts: pa.Table) -> Floats:
    """Return the probability that the chosen side is better, by a judge that saw both sides in both orders.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        verdicts: Rows of :data:`w2s_align.scoring.judge_scores.VERDICTS` of a pairwise judge.

    Raises:
        UserError: The verdicts are not of a pairwise judge.
    """
    import polars as pl

    told = comparisons(verdicts).drop("outcome")
    other = {"model": "other_model", "sample": "other_sample", "other_model": "model", "other_sample": "sample"}
    turned = told.rename(other).with_columns(value=1 - pl.col("value")).select(told.columns)
    both = pl.concat([told, turned]).unique(told.columns[:5], keep="first")
    left = pl.DataFrame(
        {
            "prompt_id": pl.from_arrow(pairs["prompt_id"]),
            "model": pl.from_arrow(pairs["chosen_model"]),
            "sample": pl.from_arrow(pairs["chosen_sample"]),
            "other_model": pl.from_arrow(pairs["rejected_model"]),
            "other_sample": pl.from_arrow(pairs["rejected_sample"]),
        }
    )
    both = both.with_columns(pl.col("sample").cast(pl.Int32), pl.col("other_sample").cast(pl.Int32))
    found = left.join(both, on=left.columns, how="left", maintain_order="left")["value"]
    return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _values(pairs: pa.Table, frame: pl.DataFrame, columns: dict[str, str]) -> Floats:
    import polars as pl

    keys = pl.DataFrame({name: pl.from_arrow(pairs[column]) for name, column in columns.items()})
    frame = frame.with_columns(pl.col("sample").cast(pl.Int32))
    found = keys.join(frame, on=list(columns), how="left", maintain_order="left")["value"]
    return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def act(pairs: pa.Table, flagged: NDArray[np.bool_], action: Action) -> tuple[pa.Table, NDArray[np.intp]]:
    """Drop or flip the flagged pairs.

    Returns:
        The pairs, in their order, and the row of each of them before.
    """
    rows = np.arange(pairs.num_rows)
    if action == "none":
        return pairs, rows
    if action == "drop":
        return pairs.filter(pa.array(~flagged)), rows[~flagged]
    mixed = pa.concat_tables([pairs, reverse(pairs)])
    return mixed.take(pa.array(np.where(flagged, rows + pairs.num_rows, rows))), rows


def sample_to_check(found: LabelErrors, pairs: pa.Table, each: int, seed: int) -> pa.Table:
    """Return pairs for people to check: some flagged ones and as many others, each with the pairs that it stands for.

    Checking flagged pairs alone would make the ensemble's opinion the new gold. With ``weight`` the share of wrong
    labels among all pairs can be estimated without that bias: the weighted mean of what people find.

    Args:
        found: What the ensemble says.
        pairs: Rows of :class:`w2s_align.records.Pair`.
        each: Pairs of each kind.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    rows, weights = [], []
    for kind in (True, False):
        stratum = np.flatnonzero(found.flagged == kind)
        drawn = np.sort(rng.permutation(stratum)[:each])
        rows += drawn.tolist()
        weights += [len(stratum) / len(drawn)] * len(drawn)
    table = pairs.take(pa.array(rows, pa.int64()))
    extra = {"flagged": found.flagged[rows], "p_chosen": found.p_chosen[rows], "weight": np.array(weights)}
    for name, values in extra.items():
        table = table.append_column(name, pc.cast(pa.array(values), pa.bool_() if name == "flagged" else pa.float64()))
    return table
