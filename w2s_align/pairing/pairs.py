"""The pair rules for users: one function each, from Arrow tables of responses to ``Pairs``.

    pairs = model_order(weak, weaker, prompts)
    pairs.table                                         # Pair rows, in the order of the prompts
    pairs.counts, pairs.dropped                         # nothing is lost in silence
    print(pairs.audit())                                # delta, lengths, warnings in words

Rules that compare scores read ``responses`` of all models and their ``scores``; with scores of several scorers,
``scorer`` says which one to use. All rules take the same :class:`Options`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, TypedDict, Unpack

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Pairs, finish
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.controls import Control
from w2s_align.pairing.decontaminate import Items
from w2s_align.pairing.rules import model_rules as rules
from w2s_align.pairing.rules import score_rules
from w2s_align.pairing.settings import Filters


class Options(TypedDict, total=False):
    """What every rule takes by keyword.

    Attributes:
        filters: What to drop; the defaults of :class:`Filters` when not given.
        control: ``none`` (the default), or ``reversed``, ``tied`` or ``shuffled`` pairs instead: see ``controls.py``.
        pairs_per_prompt: At most this many pairs for one prompt; 1 when not given.
        seed: Seed of every random choice; 0 when not given.
        evaluations: Items of evaluation sets by their names; pairs of prompts that contain one are dropped (see
            ``decontaminate.py``).

    Every rule raises a :class:`~w2s_align.errors.UserError` when a table lacks a column, scores are of several
    scorers or contradict each other, or a control cannot be made of the responses.
    """

    filters: Filters
    control: Control
    pairs_per_prompt: int
    seed: int
    evaluations: Mapping[str, Items]


def model_order(chosen: pa.Table, rejected: pa.Table, prompts: pa.Table, **options: Unpack[Options]) -> Pairs:
    """Let the model that wrote a response decide: every response in ``chosen`` beats the one in ``rejected``.

    The label of delta learning (delta_learning.md 1.2, 3.4): no judge, no reward model, no gold answer. With several
    samples the k-th usable sample of one side meets the k-th of the other.

    Args:
        chosen: Responses of the better model (:class:`w2s_align.records.Response`).
        rejected: Responses of the worse model.
        prompts: The prompts (:class:`w2s_align.records.Prompt`); their order is the order of the pairs.
        **options: See :class:`Options`. The ``tied`` control needs several samples in ``chosen``.
    """
    return _by_source("model_order", chosen, rejected, prompts, options)


def self_over_weaker(own: pa.Table, weaker: pa.Table, prompts: pa.Table, **options: Unpack[Options]) -> Pairs:
    """Let the student's own responses beat those of a weaker model (delta_learning.md 3.3).

    Args:
        own: Responses of the student itself.
        weaker: Responses of a weaker model.
        prompts: The prompts.
        **options: See :class:`Options`.
    """
    return _by_source("self_over_weaker", own, weaker, prompts, options)


def score_gap(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    margin: float = 0.0,
    pick: Literal["largest", "smallest", "random"] = "largest",
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let a score decide: the higher score beats the lower when they differ by at least ``margin``.

    Args:
        responses: Candidates of all models.
        scores: Their scores (:class:`w2s_align.records.Score`).
        prompts: The prompts.
        margin: Least difference, in the unit of the score; equal scores never make a pair.
        pick: Of several pairs of one prompt, first the one with the ``largest`` or ``smallest`` gap, or a ``random``
            one.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`. The ``tied`` control pairs two responses with the same score.
    """
    rules.check_choice("pick", pick, ("largest", "smallest", "random"))
    candidates = _scored(prompts, responses, scores, scorer, options)
    selection = score_rules.by_score_gap(candidates, margin, pick, options.get("seed", 0))
    return finished("score_gap", candidates, selection, options)


def correctness(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    right_at: float = 1.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let an answer check decide: a right response beats a wrong one; which of several is drawn with the seed.

    Prompts with only right or only wrong responses have no pair (verifiers.md 8.5).

    Args:
        responses: Candidates of all models.
        scores: Their scores by an answer check.
        prompts: The prompts.
        right_at: A response is right when its score is at least this.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`. The ``tied`` control pairs two right responses.
    """
    candidates = _scored(prompts, responses, scores, scorer, options)
    selection = score_rules.by_correctness(candidates, right_at, options.get("seed", 0))
    return finished("correctness", candidates, selection, options)


def best_worst(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    margin: float = 0.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the best response of a prompt beat the worst: one pair per prompt, of the largest gap there is.

    Args:
        responses: Candidates of all models.
        scores: Their scores.
        prompts: The prompts.
        margin: Least difference of best and worst; equal scores never make a pair.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.
    """
    candidates = _scored(prompts, responses, scores, scorer, options)
    selection = score_rules.by_best_worst(candidates, margin, options.get("seed", 0))
    return finished("best_worst", candidates, selection, options)


def best_random(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, scorer: str | None = None, **options: Unpack[Options]
) -> Pairs:
    """Let the best response beat a random one of the others: Tülu 3's binarisation (delta_learning.md 5.3, point 4).

    The source rejects a random one of the other three. Decided here, where it is silent: of several best the chosen
    one is drawn with the seed, and others with the best score are never rejected, because such a pair carries no
    preference; a prompt on which all are equal has no pair.

    Args:
        responses: Candidates of all models.
        scores: Their scores.
        prompts: The prompts.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.
    """
    candidates = _scored(prompts, responses, scores, scorer, options)
    return finished("best_random", candidates, score_rules.by_best_random(candidates, options.get("seed", 0)), options)


def worst_of_weak(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    weak_models: Collection[str],
    margin: float = 0.0,
    scorer: str | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Let the best response of all beat the worst response of some weak models.

    Olmo 3 has weak models among its candidates, too, and rejects the worst of all (delta_learning.md 9.3): best_worst.

    Args:
        responses: Candidates of all models, weak ones among them.
        scores: Their scores.
        prompts: The prompts.
        weak_models: Names of the weak models, as in ``Response.model``.
        margin: Least difference of the two scores; equal scores never make a pair.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.
    """
    candidates = _scored(prompts, responses, scores, scorer, options)
    selection = score_rules.by_worst_of_weak(candidates, weak_models, margin, options.get("seed", 0))
    return finished("worst_of_weak", candidates, selection, options)


def max_delta(
    responses: pa.Table, scores: pa.Table, prompts: pa.Table, *, scorer: str | None = None, **options: Unpack[Options]
) -> Pairs:
    """Let the better of the two models that lie furthest apart win on every prompt.

    No source defines a rule of this name. Decided here: the gap of the *generators* is made as large as the models
    allow, as Olmo 3 does on purpose (delta_learning.md 9.1, 9.4); the scores choose the two models (largest mean
    difference over the prompts that both answered; of equals the first by name) and nothing else, so single pairs may
    have a negative delta. The largest gap of single *responses* is :func:`best_worst`.

    Args:
        responses: Candidates of several models.
        scores: Their scores.
        prompts: The prompts.
        scorer: Which scorer's scores to use, when there are several.
        **options: See :class:`Options`.
    """
    candidates = _scored(prompts, responses, scores, scorer, options)
    return finished("max_delta", candidates, score_rules.by_max_delta(candidates), options)


def ranked_scores(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    levels: Sequence[score_rules.Level],
    **options: Unpack[Options],
) -> Pairs:
    """Let several scores decide in order of importance: HERON (verifiers.md 3).

    The first level at which two responses differ by more than its margin decides; a level at which one of them has no
    score is skipped. ``Pair.rule`` names the deciding scorer, ``score_chosen`` and ``score_rejected`` are its scores
    (turned so that higher is better).

    Args:
        responses: Candidates of all models.
        scores: Scores of all levels' scorers.
        prompts: The prompts.
        levels: The scorers, most important first, each with its margin.
        **options: See :class:`Options`.
    """
    if not levels:
        raise UserError("ranked_scores needs at least one level.", fix="Give levels=[Level(scorer=...), ...].")
    candidates = make_candidates(prompts, [responses], filters=options_filters(options))
    candidates, margins = score_rules.with_levels(candidates, scores, levels)
    ranked = list(zip([level.scorer for level in levels], margins, strict=True))
    selection = score_rules.by_ranked_scores(candidates, ranked, options.get("seed", 0))
    return finished("ranked_scores", candidates, selection, options)


MODEL_AND_SCORE_RULES: dict[str, Callable[..., Pairs]] = {
    "model_order": model_order,
    "self_over_weaker": self_over_weaker,
    "score_gap": score_gap,
    "correctness": correctness,
    "best_worst": best_worst,
    "best_random": best_random,
    "worst_of_weak": worst_of_weak,
    "max_delta": max_delta,
    "ranked_scores": ranked_scores,
}


def options_filters(options: Options) -> Filters:
    """Return the filters of some options, or the default ones."""
    return options.get("filters") or Filters()


def _by_source(rule: str, chosen: pa.Table, rejected: pa.Table, prompts: pa.Table, options: Options) -> Pairs:
    candidates = make_candidates(prompts, [chosen, rejected], filters=options_filters(options))
    return finished(rule, candidates, rules.by_model_order(candidates), options)


def _scored(
    prompts: pa.Table, responses: pa.Table, scores: pa.Table, scorer: str | None, options: Options
) -> Candidates:
    return make_candidates(prompts, [responses], scores, scorer=scorer, filters=options_filters(options))


def finished(rule: str, candidates: Candidates, selection: rules.Selection, options: Options) -> Pairs:
    """Apply the options to what a rule selected and make the pairs."""
    return finish(
        rule,
        candidates,
        selection,
        options_filters(options),
        options.get("control", "none"),
        options.get("pairs_per_prompt", 1),
        options.get("seed", 0),
        options.get("evaluations"),
    )
