"""What some labels say of the others: which responses are labeled, and the supervised baseline on the same labels.

A label model has to be held against a classifier that is trained on the few labels that there are (AutoWS-Bench-101,
arXiv 2208.14362; docs/methods/label_models.md).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.scoring.binarize import normalized
from w2s_align.scoring.label_model import Floats
from w2s_align.scoring.score_matrix import ScoreMatrix

ABSENT = 0.5
"""What the classifier takes for a missing score, on the scale from 0 to 1; whether one is missing is a feature too."""
FEWEST_OF_A_KIND = 2
"""Right, and wrong, labels that a classifier needs."""


def labels_of(matrix: ScoreMatrix, labels: pa.Table, prompts: int | None = None, seed: int = 0) -> Floats:
    """Return 1 for each response that labels call right, 0 for wrong, NaN where there is no label.

    Args:
        matrix: The responses.
        labels: Scores against gold answers: above 0.5 is right.
        prompts: Use the labels of so many prompts, drawn; None for all.
        seed: Seed of the draw.
    """
    value = matrix.values_of(labels).fill_null(float("nan")).to_numpy()
    known = np.where(np.isnan(value), np.nan, (value > 0.5).astype(np.float64))
    if prompts is None:
        return known
    number = matrix.prompts.to_numpy()
    labeled = np.unique(number[~np.isnan(known)])
    drawn = np.random.default_rng(seed).permutation(labeled)[:prompts]
    return np.where(np.isin(number, drawn), known, np.nan)


def supervised(matrix: ScoreMatrix, labels: Floats) -> Floats:
    """Return the probability that each response is right, by logistic regression on the scores of labeled ones.

    Args:
        matrix: Scores of several scorers; brought to the range 0 to 1 as for a mean.
        labels: 1, 0 or NaN for each response.

    Raises:
        UserError: There are too few labels of a kind.
    """
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(labels)
    right = int(labels[known].sum())
    if min(right, int(known.sum()) - right) < FEWEST_OF_A_KIND:
        raise UserError(
            f"{right} labels are right and {int(known.sum()) - right} are wrong: nothing can be learned from them.",
            fix="Label more responses (labeled_prompts), or use method: label_model, which needs none.",
        )
    columns = matrix.values.get_columns()
    scores = np.stack([normalized(column).fill_null(ABSENT).to_numpy() for column in columns], axis=1)
    missing = np.stack([column.is_null().to_numpy() for column in columns], axis=1)
    features = np.concatenate([scores, missing[:, missing.any(axis=0)]], axis=1)
    fitted = LogisticRegression(max_iter=1000).fit(features[known], labels[known])
    found: Floats = fitted.predict_proba(features)[:, 1]
    return np.where(missing.all(axis=1), np.nan, found)
