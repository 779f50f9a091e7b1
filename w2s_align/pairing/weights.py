"""What a pair weighs in its loss, and how sure a label of it is, from the scores of its two responses.

Reads tables of the Pair schema; adds columns of ``records.PAIR_TERMS``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from w2s_align.errors import UserError
from w2s_align.records import PAIR_TERMS

Weights: TypeAlias = Literal["none", "confidence", "preference"]
"""confidence: 2 (sigmoid(difference of the scores) - 1/2), between 0 and 1, for scores of reward models (CW-PO, arXiv
2603.04968). preference: the probability that the chosen response is the better one, for scores that are probabilities
of being right (rule posterior)."""


def confidence_weight(difference: ArrayLike) -> NDArray[np.float64]:
    """Return CW-PO's weight of pairs (arXiv 2603.04968): 0 for equal scores, towards 1 for a large difference.

    Args:
        difference: Score of the chosen response less that of the rejected one; its sign is not read, so that a
            reversed pair weighs what the pair weighs.
    """
    from scipy.special import expit  # here: recipes are checked without it

    return np.asarray(2 * (expit(np.abs(np.asarray(difference, dtype=float))) - 0.5))


def preference_weight(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the probability that the more probable response is the better one, given that exactly one is right.

    Args:
        first: Probability that one response is right.
        second: Probability that the other one is; the two are independent.
    """
    p, q = np.maximum(first, second), np.minimum(first, second)
    won, lost = p * (1 - q), q * (1 - p)
    return np.asarray(np.divide(won, won + lost, out=np.full(np.shape(won), 0.5), where=won + lost > 0))


def weigh(pairs: pa.Table, by: Weights) -> pa.Table:
    """Return pairs with the column ``weight``, and with ``p_pref`` where it is known.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        by: How a weight follows from the scores.

    Raises:
        UserError: A pair has no scores, or its scores are no probabilities.
    """
    if by == "none":
        return pairs
    scores = [pairs[name].to_numpy(zero_copy_only=False).astype(float) for name in ("score_chosen", "score_rejected")]
    missing = int(np.isnan(scores).any(axis=0).sum())
    if missing:
        raise UserError(
            f"{missing:,} of {pairs.num_rows:,} pairs have no scores to take a weight from.",
            fix="Use a rule that reads scores, or weights: none.",
        )
    if by == "confidence":
        weights = confidence_weight(scores[0] - scores[1])
        return pairs.append_column(PAIR_TERMS.field("weight"), pa.array(weights))
    if not all(((one >= 0) & (one <= 1)).all() for one in scores):
        raise UserError(
            "weights: preference takes probabilities, and some scores lie outside 0 to 1.",
            fix="Use weights: confidence for scores of a reward model.",
        )
    weights = pa.array(preference_weight(*scores))
    found = pairs.append_column(PAIR_TERMS.field("weight"), weights)
    return found.append_column(PAIR_TERMS.field("p_pref"), weights)
