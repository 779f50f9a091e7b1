"""evaluate_classifiers: weak model, students and ceiling on the same items, with intervals and the gap recovered.

Implies one `label` step for each arm and training seed. Reads those; writes data/scores.parquet (1 for a right label)
and results.json (evaluation.Results).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from w2s_align.errors import UserError
from w2s_align.evaluation.results import Role
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Reads, Resources, ScoresRef, StepConfig
from w2s_align.steps.arms import check_arms
from w2s_align.steps.evaluation_inputs import LABELS, Evaluated
from w2s_align.steps.evaluation_places import Place
from w2s_align.steps.label import Label, LabelResources
from w2s_align.steps.step import Step
from w2s_align.steps.tables import labeled
from w2s_align.steps.work import Work


class EvaluateClassifiers(Step):
    """Compare classifiers on the same items: accuracy, the gap recovered, agreement with the weak labels."""

    kind: Literal["evaluate_classifiers"] = "evaluate_classifiers"
    items: PromptsRef
    """The test: items with gold answers that no arm was trained on."""
    arms: dict[str, Annotated[str, Reads(("model",), literal=True, many=True)]]
    """Classifiers by the name of their arm: $step (with all its seeds), a folder, or a hub id. Each reads the view of
    the items that it was trained on."""
    labels: dict[str, ScoresRef] = {}
    """Further arms, of which the labels of these items are there already: $step of kind label or ensemble."""
    baseline: str
    """The arm that the others are compared with: the weak model, which has the role teacher, or an untouched
    student."""
    roles: dict[str, Role]
    """What each arm is: teacher (the weak model), treatment (a student that learned from its labels), ceiling (one
    that learned from gold labels), student, control or other."""
    resources: LabelResources = LabelResources()
    """What labeling the test may use of the machine."""

    writes: ClassVar[ArtifactType] = "results"
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    def check(self) -> None:
        """Refuse arms and roles that do not fit together.

        Raises:
            UserError: See above.
        """
        twice = [name for name in self.labels if name in self.arms]
        if twice:
            raise UserError(f"Two arms are called {twice[0]}.", fix="Give the one under labels another name.")
        check_arms([*self.arms, *self.labels], self.roles, self.baseline, ("student", "teacher"))

    def implied(self, members: Callable[[str], list[str]]) -> dict[str, StepConfig]:
        """Return the labels of every model of every arm."""
        return {
            str(Place(arm, str(index), LABELS)): Label(
                model=model, items=self.items, own_items="refuse", seed=self.seed, resources=self.resources
            )
            for arm, value in self.arms.items()
            for index, model in enumerate(members(value))
        }

    def claims(self) -> Resources:
        """Take one core: the implied steps ask the models."""
        return Resources(cpus=1, gpus=0)

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows."""
        return "rows"

    def run(self, work: Work) -> None:
        """Compare the labels with the gold answers, and with each other."""
        import pyarrow as pa

        from w2s_align.evaluation import Answers, Arm, ArmRun, evaluate_arms, verdict
        from w2s_align.evaluation.classification import classifier_results, right_or_wrong

        evaluated, items = Evaluated(work.inputs), work.inputs["items"].table()
        arms, labels, tables = [], {}, []
        for arm, by_index in evaluated.runs().items():
            labels[arm] = [evaluated.labels(arm, index) for index in by_index]
            made = []
            for index, found in zip(by_index, labels[arm], strict=True):
                seed, scores = evaluated.seed_name(arm, index), right_or_wrong(items, found)
                made.append(ArmRun(seed, {LABELS: Answers(scores)}))
                tables.append(labeled(scores, arm=arm, run=seed, setting=LABELS))
            arms.append(Arm(arm, self.roles[arm], made))
            work.progress(len(arms), len(self.roles), arm)
        results = evaluate_arms(items, arms, self.baseline, seed=self.seed or 0)
        measures = classifier_results(items, labels, level=results.level, seed=self.seed or 0)
        order = [arm.name for arm in results.arms]
        measures.sort(key=lambda measure: order.index(measure.arm))
        results = results.model_copy(update={"classifiers": measures})
        all_scores = pa.concat_tables(tables)
        work.write(all_scores, "scores")
        (work.out / "results.json").write_text(results.model_dump_json(indent=1), encoding="utf-8")
        conclusion, unscored = verdict(results), all_scores["value"].null_count
        work.counts.update(
            problems=items.num_rows,
            rows_in=all_scores.num_rows,
            kept=all_scores.num_rows - unscored,
            unscored=unscored,
        )
        work.result["verdict"] = json.loads(json.dumps(conclusion.to_dict()))
        work.warnings += conclusion.caveats
