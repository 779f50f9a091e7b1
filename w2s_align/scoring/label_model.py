"""A label model in closed form: from the votes of weak scorers alone, how good each is and how probably a response is
right.

A hidden variable says whether a response is right, with probability ``prior``; given it, scorers err independently.
Then the covariance of two scorers' votes is the product of two numbers, one of each scorer, so that a rank-one fit off
the diagonal gives these numbers, and with the prior the true positive and the true negative rate of every scorer. The
third moments of the votes give the prior itself. The same moments as in Weaver (Saad-Falcon et al. 2025, arXiv
2506.18203, equation 5), without its gradient descent; docs/methods/label_models.md has the formulas.

Reads votes as an int8 array of responses x scorers: 1 yes, 0 no, -1 none. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2s_align.errors import UserError

Votes: TypeAlias = NDArray[np.int8]
"""Responses x scorers: 1 yes, 0 no, -1 no vote."""
Floats: TypeAlias = NDArray[np.float64]
MISSING = -1
"""A vote that was not given."""
CLIP = 0.01
"""Rates stay this far from 0 and 1, as in Weaver's code: no single vote may settle a response."""
PRIOR_CLIP = 0.02
"""An estimated prior stays this far from 0 and 1, where third moments say nothing any more."""
BLOCKS = 50
"""Blocks of prompts that the jackknife leaves out in turn."""
SWEEPS = 500
"""Most rounds of the rank-one fit; it converges in some dozens."""
TOLERANCE = 1e-10
"""Change of a round below which the fit has converged."""
CHUNK_ROWS = 100_000
"""Rows that are worked on at a time: what is in memory besides the votes."""


@dataclass(frozen=True)
class Moments:
    """Sums over the responses of each block, of votes minus their scorer's mean (0 where there is no vote).

    Attributes:
        mean: Share of yes of each scorer [m].
        votes: Votes [blocks, m].
        first: Sums [blocks, m].
        both: Responses on which two scorers voted [blocks, m, m].
        second: Sums of products of two scorers [blocks, m, m].
    """

    mean: Floats
    votes: Floats
    first: Floats
    both: Floats
    second: Floats

    def without_each_block(self) -> Moments:
        """Return the moments of all responses but those of each block."""
        rest = (total.sum(axis=0) - total for total in (self.votes, self.first, self.both, self.second))
        return Moments(self.mean, *rest)

    def of_all(self) -> Moments:
        """Return the moments of all responses, as one block."""
        sums = (total.sum(axis=0, keepdims=True) for total in (self.votes, self.first, self.both, self.second))
        return Moments(self.mean, *sums)

    def rates(self) -> Floats:
        """Return the share of yes of every scorer [blocks, m]."""
        return self.mean + self.first / np.maximum(self.votes, 1)

    def covariance(self) -> Floats:
        """Return covariances of votes over the responses that both scorers voted on [blocks, m, m]."""
        shift = self.first / np.maximum(self.votes, 1)
        return self.second / np.maximum(self.both, 1) - shift[:, :, None] * shift[:, None, :]


@dataclass(frozen=True)
class LabelModel:
    """What the votes say of the scorers.

    Attributes:
        prior: Share of right responses that the rates below go with: what was given, else ``own_prior``.
        own_prior: What the third moments of the votes say that it is; NaN for two scorers.
        own_prior_error: Standard error of it.
        strength: What two scorers' covariance is the product of [m]; its sign says who is worse than chance.
        true_positive: P(yes | right) of each scorer [m].
        true_negative: P(no | wrong) [m].
        true_positive_error: Standard error of the former by a jackknife over prompts [m]; NaN with one prompt.
        true_negative_error: Of the latter [m].
        correlation: Correlation of the votes of two scorers [m, m].
    """

    prior: float
    own_prior: float
    own_prior_error: float
    strength: Floats
    true_positive: Floats
    true_negative: Floats
    true_positive_error: Floats
    true_negative_error: Floats
    correlation: Floats

    def log_odds(self, votes: Votes) -> Floats:
        """Return the log-odds that each response is right, given its votes [n]; of no vote at all, the prior's."""
        yes = np.log(self.true_positive / (1 - self.true_negative))
        no = np.log((1 - self.true_positive) / self.true_negative)
        start = np.log(self.prior / (1 - self.prior))
        return start + (votes == 1) @ yes + (votes == 0) @ no

    def posterior(self, votes: Votes) -> Floats:
        """Return the probability that each response is right [n]."""
        return 1 / (1 + np.exp(-self.log_odds(votes)))


def fit_label_model(
    votes: Votes,
    prior: float | None = None,
    groups: NDArray[np.integer] | None = None,
    *,
    better: bool = True,
    blocks: int = BLOCKS,
) -> LabelModel:
    """Fit a label model to votes.

    Two solutions fit equally well, each the mirror image of the other; ``better`` says which one is meant. Two scorers
    cannot tell which of them is better: they are taken for equally good.

    Args:
        votes: Responses x scorers, at least two scorers.
        prior: Share of right responses; by default from the third moments of the votes, which takes three scorers.
        groups: Number of each response's prompt [n], for standard errors; by default each response is its own.
        better: Whether scorers are better than chance on the whole.
        blocks: Blocks of prompts for the jackknife; 1 makes no standard errors.

    Raises:
        UserError: Two scorers voted on no response in common, there is no prior for two scorers, or scorers agree no
            more often than by chance.
    """
    n, m = votes.shape
    rows = _blocks(np.arange(n) if groups is None else groups, blocks)
    moments = _moments(votes, rows)
    total = moments.of_all()
    covariance, both = total.covariance(), total.both
    if m == 2 and prior is None:
        raise UserError(
            "Two scorers do not say how many responses are right.",
            why="The share of right responses follows from how three or more agree.",
            fix="Give the share (prior: 0.4), some labels, or a third scorer.",
        )
    most = _spreads(total)
    strength = _rank_one(covariance, both, most)[0]
    if not np.any(strength):
        raise UserError(
            "The scorers agree no more often than by chance.",
            why="Nothing then says which of them is right.",
            fix="Look at each scorer against some gold answers; leave out those that say nothing.",
        )
    strength = strength if (strength.sum() > 0) == better else -strength
    rest = moments.without_each_block() if len(moments.votes) > 1 else None
    parts = None if rest is None else _rank_one(rest.covariance(), rest.both, _spreads(rest), strength)
    own, owns = _own_prior(votes, moments.mean, strength, rows, parts)
    if prior is None and np.isnan(own):
        raise UserError(
            "No response has the votes of three scorers, so that nothing says how many responses are right.",
            fix="Give the share (prior: 0.4), some labels, or let the scorers score the same responses.",
        )
    used = own if prior is None else prior
    positive, negative = _rates(total.rates(), strength[None], np.array([used]))
    errors = [np.full(m, np.nan), np.full(m, np.nan), np.array([np.nan])]
    if rest is not None and parts is not None:
        without = _rates(rest.rates(), parts, owns if prior is None else np.full(len(parts), prior))
        errors = [_jackknife_error(estimates) for estimates in (*without, owns[:, None])]
    spread = np.maximum(most[0], 1e-6)
    return LabelModel(
        prior=used,
        own_prior=own,
        own_prior_error=float(errors[2][0]),
        strength=strength,
        true_positive=positive[0],
        true_negative=negative[0],
        true_positive_error=errors[0],
        true_negative_error=errors[1],
        correlation=covariance[0] / spread[:, None] / spread[None, :],
    )


def _blocks(groups: NDArray[np.integer], most: int) -> list[NDArray[np.intp]]:
    """Return the rows of each block; the responses to one prompt are in one block."""
    _, number = np.unique(groups, return_inverse=True)
    count = int(number.max()) + 1
    size = min(most, count)
    block = number * size // count
    order = np.argsort(block, kind="stable")
    ends = np.searchsorted(block[order], np.arange(1, size))
    return np.split(order, ends)


def _centered(votes: Votes, mean: Floats) -> Floats:
    """Return votes minus their scorer's mean, and 0 where there is no vote."""
    centered: Floats = votes - mean
    centered[votes == MISSING] = 0.0
    return centered


def _moments(votes: Votes, blocks: list[NDArray[np.intp]]) -> Moments:
    given = (votes != MISSING).sum(axis=0)
    mean = (votes == 1).sum(axis=0) / np.maximum(given, 1)
    sums = []
    for rows in blocks:
        parts = [np.zeros(len(mean)), np.zeros(len(mean)), np.zeros((len(mean),) * 2), np.zeros((len(mean),) * 2)]
        for start in range(0, len(rows), CHUNK_ROWS):
            some = votes[rows[start : start + CHUNK_ROWS]]
            voted, centered = (some != MISSING).astype(np.float64), _centered(some, mean)
            found = (voted.sum(axis=0), centered.sum(axis=0), voted.T @ voted, centered.T @ centered)
            parts = [part + more for part, more in zip(parts, found, strict=True)]
        sums.append(parts)
    return Moments(mean, *(np.stack(column) for column in zip(*sums, strict=True)))


def _spreads(moments: Moments) -> Floats:
    """Return the standard deviation of each scorer's votes [blocks, m]: its strength cannot be larger."""
    yes = moments.rates()
    return np.sqrt(np.maximum(yes * (1 - yes), 0))


def _rank_one(covariance: Floats, both: Floats, most: Floats, start: Floats | None = None) -> Floats:
    """Return the vectors whose outer products are nearest to the covariances off the diagonal [blocks, m].

    Each entry in turn takes its best value given the others (least squares, weighted by the responses behind each
    covariance), so that no round makes the fit worse.

    Args:
        covariance: Covariances [blocks, m, m].
        both: Responses behind each [blocks, m, m].
        most: The largest entries that can be [blocks, m].
        start: Where to begin [m]; by default with the leading eigenvector.
    """
    blocks, m, _ = covariance.shape
    if m == 2:  # one covariance for two numbers: the scorers are taken for equally good
        return np.tile(np.sqrt(np.maximum(covariance[:, :1, 1], 0)), (1, 2))
    weight = both / max(float(both.max()), 1.0)
    weight[:, np.arange(m), np.arange(m)] = 0
    if start is None:
        values, vectors = np.linalg.eigh(np.where(weight > 0, covariance, 0) * (1 - np.eye(m)))
        found = vectors[:, :, -1] * np.sqrt(np.maximum(values[:, -1:], 0))
    else:
        found = np.tile(start, (blocks, 1))
    weighted = weight * covariance
    for _ in range(SWEEPS):
        before = found.copy()
        for i in range(m):
            others = np.einsum("bj,bj->b", weight[:, i], found**2)
            toward = np.einsum("bj,bj->b", weighted[:, i], found)
            best = np.where(others > 0, toward / np.maximum(others, 1e-300), 0)
            found[:, i] = np.clip(best, -most[:, i], most[:, i])
        if np.abs(found - before).max() < TOLERANCE:
            break
    return found


def _rates(yes: Floats, strength: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Return true positive and true negative rates [blocks, m], given shares of yes, strengths and the prior."""
    better = strength / np.sqrt(prior * (1 - prior))[:, None]
    positive = yes + (1 - prior)[:, None] * better
    negative = 1 - yes + prior[:, None] * better
    return np.clip(positive, CLIP, 1 - CLIP), np.clip(negative, CLIP, 1 - CLIP)


def _own_prior(
    votes: Votes, mean: Floats, strength: Floats, blocks: list[NDArray[np.intp]], parts: Floats | None
) -> tuple[float, Floats]:
    """Return the prior by the third moments, and the one without each block.

    The third moment of three scorers is ``skew`` times the product of their strengths. The least-squares ``skew``
    takes sums over all triples, and the sum over the triples of a row is an elementary symmetric polynomial of its
    entries, so that no array of m x m x m is needed.
    """
    sums = np.zeros((len(blocks), 2))
    powers = np.stack([strength, strength**2, strength**3], axis=1)
    for number, rows in enumerate(blocks):
        for start in range(0, len(rows), CHUNK_ROWS):
            some = votes[rows[start : start + CHUNK_ROWS]]
            centered, voted = _centered(some, mean), (some != MISSING).astype(np.float64)
            squared = centered * centered
            entries = (centered @ powers[:, 0], squared @ powers[:, 1], (squared * centered) @ powers[:, 2])
            sums[number, 0] += _triples(*entries)
            sums[number, 1] += _triples(*(voted @ powers**2).T)
    total = sums.sum(axis=0)
    if int((votes != MISSING).sum(axis=1).max()) < 3:
        return float("nan"), np.full(len(blocks), np.nan)
    everything = float(_prior_by_skew(total[:1] / total[1])[0])
    if parts is None:
        return everything, np.full(len(blocks), np.nan)
    rest = total - sums
    # Strengths without a block point the same way; their size matters, because skew is in units of its cube.
    scale = (parts @ strength) / (strength @ strength)
    return everything, _prior_by_skew(rest[:, 0] / np.maximum(rest[:, 1], 1e-300) / scale**3)


def _triples(first: Floats, second: Floats, third: Floats) -> float:
    """Return the sum over rows of the products over all triples of different entries, given each row's power sums."""
    return float(np.sum(first**3 - 3 * first * second + 2 * third)) / 6


def _prior_by_skew(skew: Floats) -> Floats:
    return np.clip((1 - skew / np.sqrt(4 + skew**2)) / 2, PRIOR_CLIP, 1 - PRIOR_CLIP)


def _jackknife_error(estimates: Floats) -> Floats:
    """Return the standard error of each column, given its values without each block [blocks, columns]."""
    count = len(estimates)
    return np.sqrt((count - 1) / count * ((estimates - estimates.mean(axis=0)) ** 2).sum(axis=0))
