"""Pairs from a judge's verdicts: the response that won in both orders beats the one that lost in both.

Reads responses and the verdicts of a pairwise judge (``scoring.judge_scores.VERDICTS``). Comparisons in which the two
orders contradict each other, tie, or could not be read make no pair and are counted (verifiers.md 7.4, the hard rule).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import pyarrow as pa

from w2s_align.pairing.assemble import Pairs
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.pairs import Options, finished, options_filters
from w2s_align.pairing.rules.model_rules import Selection, in_random_order, prompts_without
from w2s_align.pairing.rules.score_rules import in_cycles
from w2s_align.scoring.judge_scores import comparisons

if TYPE_CHECKING:
    import polars as pl

REASONS = {
    "flip": "the order of the two decided",
    "half tie": "a tie in one order",
    "tie": "a tie",
    "unreadable": "unreadable verdict",
}
"""What an outcome without a winner is called where a prompt ends without a pair; of several the first."""


def judge(responses: pa.Table, verdicts: pa.Table, prompts: pa.Table, **options: Unpack[Options]) -> Pairs:
    """Let a pairwise judge decide, where it says the same in both orders.

    Meant for two candidates per prompt. With more, every comparison with a winner makes a pair, except those in a
    cycle of three (a over b over c over a); of the pairs of one prompt the clearer ones come first, equals in random
    order. Scores are the share of the verdicts (1 and 0 when the judge was asked once per order), ``counts`` has the
    comparisons by outcome. Verdicts of several judges are taken together. No gold answer is read.

    Args:
        responses: The candidates that were judged.
        verdicts: Rows of :data:`w2s_align.scoring.judge_scores.VERDICTS`, mode ``pairwise``.
        prompts: The prompts.
        **options: See :class:`~w2s_align.pairing.pairs.Options`. The ``tied`` control takes as partner a response that
            won the same share of its comparisons.

    Raises:
        UserError: See :class:`~w2s_align.pairing.pairs.Options`; or the verdicts are not of a pairwise judge.
    """
    import polars as pl

    candidates = make_candidates(prompts, [responses], filters=options_filters(options))
    every = comparisons(verdicts)
    compared = _with_rows(candidates, every)
    shares = pl.concat(
        [compared.select("left", "value"), compared.select(left="right", value=1 - pl.col("value"))]
    ).group_by("left")
    shares = shares.agg(score=pl.col("value").mean())
    frame = candidates.frame.drop("score").join(
        shares, left_on="row", right_on="left", how="left", maintain_order="left"
    )
    candidates = replace(candidates, frame=frame)
    selection = by_verdicts(candidates, compared, options.get("seed", 0))
    pairs = finished("judge", candidates, selection, options)
    outcomes = dict(compared["outcome"].value_counts().sort("outcome").iter_rows())
    counts = {"comparisons": every.height} | {f"comparisons: {name}": n for name, n in outcomes.items()}
    if every.height > compared.height:
        counts["comparisons: of a response that is not usable"] = every.height - compared.height
    return replace(pairs, counts=pairs.counts | counts)


def by_verdicts(candidates: Candidates, compared: pl.DataFrame, seed: int) -> Selection:
    """Apply the rule of :func:`judge`.

    Args:
        candidates: The responses.
        compared: ``prompt``, ``left`` and ``right`` (rows of the responses), ``outcome`` and ``value`` of each
            comparison.
        seed: Seed of the order of equals.
    """
    import polars as pl

    value = pl.col("value")
    wins = compared.filter(pl.col("outcome") == "win").select(
        "prompt", chosen="left", rejected="right", score_chosen=value, score_rejected=1 - value
    )
    losses = compared.filter(pl.col("outcome") == "loss").select(
        "prompt", chosen="right", rejected="left", score_chosen=1 - value, score_rejected=value
    )
    decided = pl.concat([wins, losses])
    cyclic = in_cycles(decided)
    pairs = decided.join(cyclic, on=["chosen", "rejected"], how="anti", maintain_order="left")
    pairs = in_random_order(pairs, candidates, seed)
    pairs = pairs.sort("prompt", "score_chosen", descending=[False, True], maintain_order=True)
    sizes = candidates.frame.group_by("prompt").agg(n=pl.len())
    outcomes = compared.group_by("prompt").agg(pl.col("outcome").unique())
    rest = prompts_without(pairs, candidates).join(sizes, on="prompt", how="left", maintain_order="left")
    rest = rest.join(outcomes, on="prompt", how="left", maintain_order="left")
    reason = (
        pl.when(pl.col("n").is_null())
        .then(pl.lit("no response"))
        .when(pl.col("n") == 1)
        .then(pl.lit("one response only"))
        .when(pl.col("outcome").is_null())
        .then(pl.lit("not judged"))
        .when(pl.col("outcome").list.set_intersection(["win", "loss"]).list.len() > 0)
        .then(pl.lit("a cycle of verdicts"))
    )
    for outcome, name in REASONS.items():
        reason = reason.when(pl.col("outcome").list.contains(outcome)).then(pl.lit(name))
    return Selection(pairs, rest.select("prompt", reason=reason))


def _with_rows(candidates: Candidates, table: pl.DataFrame) -> pl.DataFrame:
    """Say which usable responses were compared: ``prompt``, ``left``, ``right``, ``outcome``, ``value``."""
    import polars as pl

    ids = pl.DataFrame({"prompt_id": pl.from_arrow(candidates.prompts["id"])}).with_row_index("prompt")
    rows = candidates.frame.select("prompt", "model", "sample", "row").join(ids, on="prompt", maintain_order="left")
    left = rows.rename({"row": "left"})
    right = rows.drop("prompt").rename({"row": "right", "model": "other_model", "sample": "other_sample"})
    table = table.join(left, on=["prompt_id", "model", "sample"], maintain_order="left")
    table = table.join(right, on=["prompt_id", "other_model", "other_sample"], maintain_order="left")
    return table.select("prompt", "left", "right", "outcome", "value").sort("prompt", "left", "right")
