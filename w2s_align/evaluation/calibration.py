"""Does a confidence mean what it says: calibration error, and the temperature that corrects it.

Reads confidences or logits with right / wrong, returns plain numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> float | None:
    """Return the expected calibration error over bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2).

    Args:
        confidence: Between 0 and 1, one for each decision; NaN is left out.
        right: 1 where the decision was right, else 0.
        bins: Number of bins.

    Returns:
        Sum over bins of their share times |accuracy - mean confidence|; None when there is nothing.

    Raises:
        ValueError: A confidence lies outside 0 to 1.
    """
    p, y = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    known = np.isfinite(p) & np.isfinite(y)
    p, y = p[known], y[known]
    if not len(p):
        return None
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"a confidence lies between 0 and 1, not at {p.min()} or {p.max()}")
    place = np.minimum((p * bins).astype(int), bins - 1)
    gap = np.abs(np.bincount(place, y, bins) - np.bincount(place, p, bins))
    return float(gap.sum() / len(p))


def negative_log_likelihood(logit: ArrayLike, label: ArrayLike, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of labels under sigmoid(logit / temperature).

    Args:
        logit: Log-odds of "right".
        label: 1 or 0.
        temperature: What the logits are divided by.
    """
    z, y = np.asarray(logit, dtype=float) / temperature, np.asarray(label, dtype=float)
    return float(np.mean(np.logaddexp(0, z) - y * z))


def fit_temperature(logit: ArrayLike, label: ArrayLike) -> float:
    """Return the temperature that makes sigmoid(logit / temperature) fit the labels best (Guo et al. 2017,
    arXiv 1706.04599, section 4.2).

    Args:
        logit: Log-odds of "right"; of held-out data, or the fit flatters itself.
        label: 1 or 0.

    Raises:
        ValueError: There is no data, or only one of the two labels.
    """
    y = np.asarray(label, dtype=float)
    if not len(y) or y.min() == y.max():
        raise ValueError("fitting a temperature needs both labels")

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logit, y, float(np.exp(log_temperature)))

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))
