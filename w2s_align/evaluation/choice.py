"""Best-of-n by several ways to choose: each is an arm whose answer to a problem is the response that it likes best.

    results = compare_choices(problems, gold, {"mean": means, "label_model": probabilities})

Two arms are always there: ``one_response``, what a response is worth before anything chooses (the mean over all), and
``oracle``, whether any response is right (pass@n). The distance of a way to the oracle is its generation-verification
gap (Saad-Falcon et al. 2025, arXiv 2506.18203).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.evaluation.arms import Answers, Arm, ArmRun
from w2s_align.evaluation.compare import evaluate_arms
from w2s_align.evaluation.results import Results, Role
from w2s_align.records import Score, record_columns
from w2s_align.scoring.score_matrix import KEYS
from w2s_align.scoring.table import check_scores

if TYPE_CHECKING:
    import polars as pl

ONE, ORACLE = "one_response", "oracle"
"""The two arms that are always there."""
UNDECIDED = "nothing to choose by"
"""Why a way has no answer to a problem: none of the responses has a value there."""


def compare_choices(
    problems: pa.Table,
    gold: pa.Table,
    ways: Mapping[str, pa.Table],
    *,
    roles: Mapping[str, Role] | None = None,
    baseline: str = ONE,
    seed: int = 0,
) -> tuple[Results, list[Arm]]:
    """Compare ways to choose one of several responses to each problem.

    Args:
        problems: Rows of :class:`w2s_align.records.Prompt`.
        gold: What every response is worth: rows of :class:`w2s_align.records.Score` of one scorer.
        ways: By name, the scores that choose: the response with the highest one. Of equally liked responses the mean
            counts, as if one were drawn.
        roles: ``control`` for a way that the others have to beat, ``treatment`` for the others (the default).
        baseline: What every way is compared with: ``one_response`` or a way.
        seed: Seed of every resampling.

    Returns:
        The results, and the arms that they are about.

    Raises:
        UserError: A way has a reserved name or its scores are of several scorers, or scores do not fit together.
    """
    import polars as pl

    for name in ways:
        if name in (ONE, ORACLE):
            raise UserError(f"{name} is always among the arms.", fix="Give this way to choose another name.")
    responses = _numbered(gold)
    best = pl.col("value") == pl.col("value").max().over("prompt_id")
    chosen = {
        ONE: responses,
        **{name: _chosen(responses, name, scores) for name, scores in ways.items()},
        ORACLE: responses.filter(best | pl.col("value").max().over("prompt_id").is_null()).unique(
            "prompt_id", keep="first", maintain_order=True
        ),
    }
    parts: dict[str, Role] = {ORACLE: "ceiling", ONE: "other"}
    for name in ways:
        parts[name] = (roles or {}).get(name, "treatment")
    parts[baseline] = "student"
    most = int(responses.group_by("prompt_id").len()["len"].max() or 0)
    arms = [
        Arm(name, parts[name], [ArmRun("0", {f"best of {most}": Answers(_as_scores(rows))})])
        for name, rows in chosen.items()
    ]
    results = evaluate_arms(problems, arms, baseline, seed=seed)
    return results.model_copy(update={"study": "choice"}), arms


def _numbered(gold: pa.Table) -> pl.DataFrame:
    """Return the rows with a number of their own within each problem: models may use the same sample numbers."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(record_columns(Score, gold)))
    return frame.with_columns(number=pl.int_range(pl.len(), dtype=pl.Int32).over("prompt_id"))


def _chosen(responses: pl.DataFrame, name: str, scores: pa.Table) -> pl.DataFrame:
    """Return the rows of the responses that a way likes best; a row without a value where it likes none."""
    import polars as pl

    check_scores(scores)
    liked = pl.DataFrame(pl.from_arrow(scores.select([*KEYS, "scorer", "value"])))
    scorers = liked["scorer"].unique().sort().to_list()
    if len(scorers) > 1:
        raise UserError(
            f"{name}: the scores come from several scorers: {', '.join(scorers)}.",
            fix="Name a step with scores of one scorer, or combine them first.",
        )
    liking = pl.col("value").cast(pl.Float64)
    liked = liked.select(
        "prompt_id", "model", pl.col("sample").cast(pl.Int32), liking=pl.when(liking.is_finite()).then(liking)
    )
    joined = responses.join(liked.unique(KEYS), on=KEYS, how="left", maintain_order="left")
    top = pl.col("liking").max().over("prompt_id")
    found = joined.filter(pl.col("liking") == top).drop("liking")
    rest = joined.filter(top.is_null()).unique("prompt_id", keep="first", maintain_order=True).drop("liking")
    undecided = rest.with_columns(value=pl.lit(None, pl.Float64), outcome=pl.lit(UNDECIDED), detail=pl.lit(UNDECIDED))
    return pl.concat([found, undecided.select(found.columns)])


def _as_scores(rows: pl.DataFrame) -> pa.Table:
    numbered = rows.drop("sample").rename({"number": "sample"})
    return numbered.select(Score.SCHEMA.names).to_arrow().cast(Score.SCHEMA)
