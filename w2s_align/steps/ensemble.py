"""ensemble: the labels of several classifiers as one.

Reads labels, and labels of validation items where weights or temperatures are fitted; writes data/scores.parquet.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Resources, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Ensemble(Step):
    """Combine the labels of several classifiers: their mean, or weighted by how seldom they err."""

    kind: Literal["ensemble"] = "ensemble"
    labels: list[ScoresRef] = Field(min_length=2)
    """Steps of kind label over the same items, one of each classifier."""
    weights: Literal["mean", "adaboost"] = "mean"
    """mean: all classifiers alike. adaboost: in proportion to log((1 - e) / e), e being a classifier's error on the
    validation items."""
    scale_temperature: bool = False
    """Divide each classifier's logits by the temperature that fits the validation items best (arXiv 1706.04599)."""
    validation: list[ScoresRef] = []
    """Labels of validation items, one step of each classifier in the order of labels."""
    gold: PromptsRef | None = None
    """The validation items with their gold answers: of the half that taught the classifiers."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    def check(self) -> None:
        """Refuse weights or temperatures without something to fit them on.

        Raises:
            UserError: See above.
        """
        fitted = self.weights == "adaboost" or self.scale_temperature
        if fitted and (self.gold is None or len(self.validation) != len(self.labels)):
            raise UserError(
                "weights: adaboost and scale_temperature are fitted on validation items.",
                f"There are {len(self.labels)} classifiers and labels of such items by {len(self.validation)}.",
                "Give gold: $items and validation: [$labels_of_them, ...], one for each classifier.",
            )
        if not fitted and (self.gold is not None or self.validation):
            raise UserError(
                "validation changes nothing with weights: mean.", fix="Leave it out, or fit something on it."
            )

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows."""
        return "rows"

    def run(self, work: Work) -> None:
        """Fit, combine, and count what not all classifiers have labeled."""
        from w2s_align.evaluation.ensemble import Member, combine_labels, members_of

        labels = [work.inputs[f"labels.{place}"].table() for place in range(len(self.labels))]
        names = [work.sources[f"labels.{place}"] for place in range(len(self.labels))]
        members = [Member(name, 1 / len(labels)) for name in names]
        if self.gold is not None:
            items = work.inputs["gold"].table()
            answers = zip(items["id"].to_pylist(), items["answer"].to_pylist(), strict=True)
            gold = {item: answer for item, answer in answers if answer is not None}
            tables = [work.inputs[f"validation.{place}"].table() for place in range(len(labels))]
            members = members_of(tables, gold, boosted=self.weights == "adaboost", scaled=self.scale_temperature)
        table = combine_labels(labels, members)
        work.write(table, "scores")
        unlabeled, rows = table["value"].null_count, max(one.num_rows for one in labels)
        dropped = {"not_labeled_by_all": unlabeled + rows - table.num_rows}
        work.counts.update(
            rows_in=rows, kept=table.num_rows - unlabeled, dropped={k: n for k, n in dropped.items() if n}
        )
        work.result["members"] = [asdict(member) for member in members]
