"""combine: the scores of several weak scorers as one score per response.

Reads scores of several scorers (and scores against gold answers, as labels of some responses); writes
data/scores.parquet (records.Score), for pair rules, select and best_of. A label model also writes what it found of
each scorer into artifact.json (scoring.Panel), and report.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Resources, ScoresRef
from w2s_align.scoring.label_model_settings import LabelModelSettings
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

TAKES: dict[str, tuple[str, ...]] = {
    "vote": ("weights", "thresholds"),
    "mean": ("weights",),
    "label_model": ("label_model", "labels", "labeled_prompts", "seed"),
    "supervised": ("labels", "labeled_prompts", "seed"),
}
"""Options of each method."""


class Combine(Step):
    """Combine the scores of several scorers: a vote, a mean on one scale, a label model, a regression."""

    kind: Literal["combine"] = "combine"
    scores: list[ScoresRef] = Field(min_length=1)
    """What is combined: steps of the kinds score and judge over the same responses."""
    method: Literal["vote", "mean", "label_model", "supervised"] = "vote"
    """vote: each scorer says yes from its threshold on, the result is the share of yes. mean: every scorer's values
    are brought to 0 to 1 first. label_model: the probability that a response is right, by how good each scorer is,
    which follows from how the scorers agree (Weaver, in closed form). supervised: the same from labels alone."""
    weights: dict[str, float] = {}
    """Weight of scorers by name, e.g. {reward:rm: 2} (vote, mean). Default: 1 each."""
    thresholds: dict[str, float] = {}
    """From which value on a scorer says yes, by name (vote). Default: 1, the value of a right answer."""
    label_model: LabelModelSettings = LabelModelSettings()
    """How votes are made of scores, and what is known (label_model)."""
    labels: list[ScoresRef] = []
    """Scores of some of the responses against gold answers: a label model learns the share of right ones from them,
    a regression everything (label_model, supervised)."""
    labeled_prompts: int | None = Field(None, ge=1)
    """Use the labels of so many prompts, drawn with the seed (label_model, supervised). Default: all labels."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"

    def content(self) -> dict[str, Any]:
        """Leave out options of other methods: a new one does not change the key of a vote."""
        others = {option for options in TAKES.values() for option in options} - set(TAKES[self.method])
        return {
            name: value
            for name, value in super().content().items()
            if name not in others or name in ("weights", "thresholds")
        }

    def check(self) -> None:
        """Refuse options of another method, weights below zero, and label options without labels.

        Raises:
            UserError: See above.
        """
        for name in sorted({option for options in TAKES.values() for option in options} - {"seed"}):
            if name not in TAKES[self.method] and getattr(self, name) != type(self).model_fields[name].default:
                methods = " and ".join(method for method, options in TAKES.items() if name in options)
                verb = "belong" if name.endswith("s") else "belongs"
                raise UserError(f"{name} {verb} to method: {methods}.", fix="Leave it out.")
        negative = [name for name, weight in self.weights.items() if not weight >= 0]
        if negative:
            raise UserError(f"The weight of {', '.join(negative)} is negative.", fix="Leave the scorer out.")
        for option, needs in (
            ("method: supervised", self.method == "supervised"),
            ("labeled_prompts", self.labeled_prompts is not None),
            ("binarize: labels", self.label_model.binarize == "labels"),
        ):
            if needs and not self.labels:
                raise UserError(f"{option} needs labels.", fix="Add labels: [$scores], scores against gold answers.")

    def run(self, work: Work) -> None:
        """Combine, and count what no scorer has scored."""
        from w2s_align.scoring import combine

        scores = combine(
            self._tables(work),
            self.method,
            weights=self.weights,
            thresholds=self.thresholds,
            label_model=self.label_model,
            labels=self._labels(work),
            labeled_prompts=self.labeled_prompts,
            seed=self.seed or 0,
        )
        work.write(scores.table, "scores")
        work.counts.update(rows_in=scores.table.num_rows, kept=scores.scored, dropped=scores.unscored)
        work.result["mean"] = scores.mean
        if scores.panel is not None:
            from w2s_align.reporting.article import write_article
            from w2s_align.reporting.panel_page import panel_article

            work.result["panel"] = scores.panel.to_json()
            work.warnings += scores.panel.warnings
            write_article(panel_article(work.name, scores.panel), work.out)

    def _tables(self, work: Work) -> Iterator[pa.Table]:
        """Yield the scores one by one: thirty scorers of a million responses do not fit into memory together."""
        for index in range(len(self.scores)):
            yield work.inputs[f"scores.{index}"].table()

    def _labels(self, work: Work) -> pa.Table | None:
        tables = [work.inputs[f"labels.{index}"].table() for index in range(len(self.labels))]
        return join_tables(tables) if tables else None
