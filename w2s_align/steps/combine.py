"""combine: the scores of several weak scorers as one score per response.

Reads scores of several scorers; writes data/scores.parquet (records.Score), for pair rules and select.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Resources, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables
from w2s_align.steps.work import Work


class Combine(Step):
    """Combine the scores of several scorers: a vote, or a mean on one scale."""

    kind: Literal["combine"] = "combine"
    scores: list[ScoresRef] = Field(min_length=1)
    """What is combined: steps of the kinds score and judge over the same responses."""
    method: Literal["vote", "mean"] = "vote"
    """vote: each scorer says yes from its threshold on, the result is the share of yes. mean: every scorer's values
    are brought to 0 to 1 first."""
    weights: dict[str, float] = {}
    """Weight of scorers by name, e.g. {reward:rm: 2}. Default: 1 each."""
    thresholds: dict[str, float] = {}
    """From which value on a scorer says yes, by name (vote). Default: 1, the value of a right answer."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False

    def check(self) -> None:
        """Refuse thresholds where nothing is voted, and weights below zero.

        Raises:
            UserError: See above.
        """
        if self.thresholds and self.method != "vote":
            raise UserError("thresholds belong to method: vote.", fix="Leave them out.")
        negative = [name for name, weight in self.weights.items() if not weight >= 0]
        if negative:
            raise UserError(f"The weight of {', '.join(negative)} is negative.", fix="Leave the scorer out.")

    def run(self, work: Work) -> None:
        """Combine, and count what no scorer has scored."""
        from w2s_align.scoring import combine

        tables = [work.inputs[f"scores.{index}"].table() for index in range(len(self.scores))]
        scores = combine(join_tables(tables), self.method, weights=self.weights, thresholds=self.thresholds)
        work.write(scores.table, "scores")
        work.counts.update(rows_in=scores.table.num_rows, kept=scores.scored, dropped=scores.unscored)
        work.result["mean"] = scores.mean
