"""A panel of weak scorers as one probability: votes, the scorers that stay, a label model, and what it found.

    probability, panel = ask_panel(matrix, LabelModelSettings(), labels)

Everything that weakens the result is a sentence in ``panel.warnings``; what is left cannot be answered is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from w2s_align.scoring.binarize import majority_values, normalized, votes_of
from w2s_align.scoring.label_model import MISSING, Floats, LabelModel, Votes, fit_label_model
from w2s_align.scoring.label_model_settings import LabelModelSettings
from w2s_align.scoring.panel_members import FEWEST, Members
from w2s_align.scoring.score_matrix import ScoreMatrix

if TYPE_CHECKING:
    import polars as pl

TIE = 1e-6
"""Log-odds between two responses with the same votes, one with the highest and one with the lowest mean score: votes
have few different values, and a mean on one scale breaks their ties."""
Z = 1.96
"""Half the width of a 95% interval, in standard errors."""
PriorSource: TypeAlias = Literal["given", "labels", "third moments"]
"""Where the share of right responses comes from."""
Interval: TypeAlias = tuple[float, float | None, float | None]
"""A value with the ends of its 95% interval; None where there is no telling."""
ROUNDS = 3
"""Rounds in which votes that depend on the prior, and the prior that depends on votes, are found together."""
FEWEST_LABELS = 20
"""Labels below which they do not overrule the assumption that most scorers are better than chance."""


@dataclass(frozen=True)
class ScorerQuality:
    """What a label model says of one scorer.

    Attributes:
        scorer: Its name; ``majority`` for the majority answer.
        scored: Share of the responses that it scored.
        yes: Share of its votes that are yes; None without votes.
        true_positive: P(yes | right) with its 95% interval; None where the scorer was left out.
        true_negative: P(no | wrong), likewise.
        left_out: Why it has no say; None where it has one.
    """

    scorer: str
    scored: float
    yes: float | None
    true_positive: Interval | None = None
    true_negative: Interval | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class Panel:
    """What a label model found.

    Attributes:
        prior: Share of right responses, with its interval where it was estimated from votes.
        prior_source: Where it comes from.
        scorers: Every scorer, those with a say first.
        most_alike: The two scorers with a say whose votes correlate most, and how much; None for one scorer.
        agrees_with_mean: Share of the responses on which label model and mean score are on the same side.
        labels: Responses whose label was used.
        warnings: What a reader must know.
    """

    prior: Interval
    prior_source: PriorSource
    scorers: list[ScorerQuality]
    most_alike: tuple[str, str, float] | None
    agrees_with_mean: float
    labels: int
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Panel:
        """Return what :meth:`to_json` wrote."""
        return cls(**{**values, "scorers": [ScorerQuality(**one) for one in values["scorers"]]})


def ask_panel(matrix: ScoreMatrix, settings: LabelModelSettings, labels: Floats | None = None) -> tuple[Floats, Panel]:
    """Return the probability that each response is right, and what was found of the scorers.

    Args:
        matrix: Scores of several scorers.
        settings: How votes are made, and what is known.
        labels: 1 for right and 0 for wrong of some responses, NaN for the others.

    Returns:
        Probabilities, NaN for a response on which no scorer with a say voted.

    Raises:
        UserError: Fewer than two scorers are left, they share no responses, or they agree no more than by chance.
    """
    import polars as pl

    values = matrix.values
    if settings.majority and matrix.answers is not None:
        values = values.with_columns(majority_values(matrix).alias("majority"))
    within = matrix.prompts if settings.scope == "prompt" else None
    scaled = values.select(normalized(column, settings.normalize, within) for column in values.get_columns())
    known = np.full(len(matrix.responses), np.nan) if labels is None else labels
    warnings: list[str] = []
    if labels is not None and np.isnan(known).all():
        warnings.append("None of the labels is of one of these responses: nothing was learned from labels.")
    prior = settings.prior
    source: PriorSource = "third moments" if prior is None else "given"
    if prior is None and not np.isnan(known).all():
        prior, source = _labeled_prior(known, warnings), "labels"
    scorers, votes, model = _fit(scaled, matrix.prompts, settings, prior, known)
    own = votes[:, scorers.kept]
    if _worse_by_labels(model, own, known):
        warnings.append(
            "By the labels most scorers are worse than chance, so that their votes count the other way round. Look at "
            "some of their scores before you use this."
        )
        model = fit_label_model(own, prior, matrix.prompts.to_numpy(), better=False)
    else:
        warnings += _about_scorers(scorers, votes, model, source)
    log_odds = model.log_odds(own)
    mean = scaled.select(pl.mean_horizontal(pl.all())).to_series().fill_null(0.5).to_numpy()
    probability = 1 / (1 + np.exp(-(log_odds + TIE * (mean - 0.5))))
    voted = (own != MISSING).any(axis=1)
    panel = Panel(
        prior=_interval(model.prior, model.own_prior_error if source == "third moments" else float("nan")),
        prior_source=source,
        scorers=_qualities(scorers, votes, model),
        most_alike=_most_alike(scorers, model),
        agrees_with_mean=float(((log_odds > 0) == (mean > 0.5))[voted].mean()) if voted.any() else 0.0,
        labels=int((~np.isnan(known)).sum()),
        warnings=warnings,
    )
    return np.where(voted, probability, np.nan), panel


def _labeled_prior(known: Floats, warnings: list[str]) -> float:
    """Return the share of right labels; where all are alike, as if half of one more were different."""
    right, count = float(np.nansum(known)), int((~np.isnan(known)).sum())
    if 0 < right < count:
        return right / count
    which = "right" if right else "wrong"
    warnings.append(f"All {count} labels are {which}: the share of right responses is a guess. Label more prompts.")
    return (right + 0.5) / (count + 1)


def _fit(
    scaled: pl.DataFrame, prompts: pl.Series, settings: LabelModelSettings, prior: float | None, known: Floats
) -> tuple[Members, Votes, LabelModel]:
    """Make votes, leave out who cannot have a say, and fit; more than once where votes depend on an unknown prior."""
    groups = prompts.to_numpy()
    assumed = 0.5 if prior is None else prior
    before: Votes | None = None
    for _ in range(ROUNDS if settings.binarize == "balance" and prior is None else 1):
        votes = votes_of(scaled, prompts, settings, assumed, known)
        if before is not None and (votes == before).all():
            break
        before = votes
        scorers = Members(list(scaled.columns), list(range(len(scaled.columns))), {})
        scorers.leave_out_silent(votes)
        fitted = list(scorers.kept)
        first = fit_label_model(votes[:, fitted], prior, blocks=1)
        scorers.leave_out_extreme(votes, first.prior, settings)
        scorers.leave_out_copies(first, fitted, settings.most_correlated)
        if scorers.kept != fitted:
            first = fit_label_model(votes[:, scorers.kept], prior, blocks=1)
        assumed = first.prior
    return scorers, votes, fit_label_model(votes[:, scorers.kept], prior, groups)


def _about_scorers(scorers: Members, votes: Votes, model: LabelModel, source: PriorSource) -> list[str]:
    """Return what weakens a result, in sentences."""
    said = []
    names = [scorers.names[i] for i in scorers.kept]
    if len(names) == 2:
        said.append(
            f"Two scorers cannot tell which of them is better: {names[0]} and {names[1]} are taken for equally good."
        )
    for number in scorers.kept:
        share = float((votes[:, number] != MISSING).mean())
        if share < 0.9:
            said.append(
                f"{scorers.names[number]} scored {100 * share:.0f}% of the responses; it abstains on the rest."
            )
    worse = [name for name, strength in zip(names, model.strength, strict=True) if strength < 0]
    if worse:
        said.append(f"Worse than chance, and counted the other way round: {', '.join(worse)}.")
    at_rim = [
        name
        for name, rates in zip(names, np.stack([model.true_positive, model.true_negative], axis=1), strict=True)
        if rates.max() > 0.985
    ]
    if len(names) == FEWEST and at_rim:
        said.append(f"{', '.join(at_rim)} looks faultless, which three scorers that err together would show as well.")
    error = np.nan_to_num(model.own_prior_error)
    off = abs(model.own_prior - model.prior)
    if source != "third moments" and off > 0.1 + 3 * error and abs(1 - model.own_prior - model.prior) < off:
        said.append(
            f"The votes fit better to {100 * (1 - model.own_prior):.0f}% of right responses with most scorers worse "
            "than chance than to what was assumed, that most are better: check some by hand, or add labels."
        )
    if source == "third moments" and error > 0.1:
        said.append(
            f"The share of right responses is uncertain ({100 * model.prior:.0f}% with a standard error of "
            f"{100 * error:.0f} points): the order of the responses holds, the probabilities may not."
        )
    return said


def _worse_by_labels(model: LabelModel, votes: Votes, known: Floats) -> bool:
    """Return whether labels, where there are enough, say that right responses have the lower log-odds."""
    labeled = ~np.isnan(known)
    right = known[labeled] == 1
    if labeled.sum() < FEWEST_LABELS or right.all() or not right.any():
        return False
    place = np.argsort(np.argsort(model.log_odds(votes[labeled])))  # ties in any order: they are few labels' luck
    return float(place[right].mean()) < float(place[~right].mean())


def _interval(value: float, error: float) -> Interval:
    if np.isnan(error):
        return (value, None, None)
    return (value, max(0.0, value - Z * error), min(1.0, value + Z * error))


def _qualities(scorers: Members, votes: Votes, model: LabelModel) -> list[ScorerQuality]:
    found = []
    for number, name in enumerate(scorers.names):
        given = votes[:, number] != MISSING
        quality = ScorerQuality(
            name,
            float(given.mean()),
            float((votes[given, number] == 1).mean()) if given.any() else None,
            left_out=scorers.left_out.get(number),
        )
        if number in scorers.kept:
            i = scorers.kept.index(number)
            positive = _interval(float(model.true_positive[i]), float(model.true_positive_error[i]))
            negative = _interval(float(model.true_negative[i]), float(model.true_negative_error[i]))
            quality = replace(quality, true_positive=positive, true_negative=negative)
        found.append(quality)
    return sorted(found, key=lambda quality: quality.left_out is not None)


def _most_alike(scorers: Members, model: LabelModel) -> tuple[str, str, float]:
    off = np.triu(np.abs(model.correlation), 1)
    first, second = np.unravel_index(int(off.argmax()), off.shape)
    names = [scorers.names[i] for i in scorers.kept]
    return names[first], names[second], float(model.correlation[first, second])
