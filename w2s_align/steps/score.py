"""score: a scorer gives every response a value, or null and the reason why it has none.

Reads responses (and the prompts behind them, and models of other steps where the scorer asks one); writes
data/scores.parquet (records.Score).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from w2s_align.artifacts.identity import model_identity, model_name
from w2s_align.recipe.schema import ArtifactType, Reads, Reference, Resources, ResponsesRef, StepConfig
from w2s_align.scoring.scorers import ScorerSettings
from w2s_align.steps.gold import check_gold
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

NAMED_MODEL = Reads(("model",), literal=True, named=True)
"""A scorer's model: a hub id, a folder, or $step. Its name stands in the scores, e.g. ``reward:<name>``."""


class ScoreStep(Step):
    """Score responses: answer checks, tests, instructions, features, votes, reward models, log-probabilities."""

    kind: Literal["score"] = "score"
    responses: ResponsesRef
    """What is scored."""
    scorer: str | ScorerSettings = "auto"
    """Name of the scorer, or {name: ..., options}. auto: the answer check that fits each prompt's task. A scorer's
    model may be $step: {name: reward, model: $rm}, {name: logprob, model: $dpo, reference: $sft}."""
    resources: Resources = Resources()
    """What the step may use of the machine. Default: a GPU for scorers with a model, none for the others."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("math-verify", "reasoning-gym")

    def check(self) -> None:
        """Refuse a scorer that does not exist."""
        from w2s_align.scoring import scorer_settings

        scorer_settings(self.scorer)

    def check_among(self, steps: Mapping[str, StepConfig]) -> None:
        """Refuse an answer check of prompts without gold answers."""
        check_gold(self.scorer, self.responses, steps)

    def references(self) -> Iterator[Reference]:
        """Yield the responses, and the models that the scorer asks."""
        yield from super().references()
        for field, value in scorer_models(self.scorer).items():
            yield Reference(("scorer", field), value, NAMED_MODEL)

    def identity(self) -> dict[str, Any]:
        """Return the content of models that no step made, and the versions of what runs them."""
        return scorer_identity(self.scorer)

    def claims(self) -> Resources:
        """Take a GPU for a model, unless told otherwise."""
        gpus = 1 if scorer_models(self.scorer) else 0
        return Resources(cpus=self.resources.cpus, gpus=gpus if self.resources.gpus is None else self.resources.gpus)

    def process(self) -> str | None:
        """Share a process with generations where transformers runs the model: importing it costs more than a small
        model's work."""
        return "generate" if not isinstance(self.scorer, str) and self.scorer.runs_transformers else None

    def run(self, work: Work) -> None:
        """Score, going on from the batches that an earlier try finished."""
        from w2s_align.scoring import score, scorer_settings

        responses = work.inputs["responses"]
        scorer, name = open_scorer(self.scorer, "scorer", work)
        work.warnings += scorer_settings(scorer).warnings()
        scores = score(
            responses.prompts().table(),
            responses.table(),
            scorer,
            progress=work.progress,
            folder=work.out / "batches",
            name=name,
        )
        work.write(scores.table, "scores")
        work.counts.update(rows_in=scores.table.num_rows, kept=scores.scored, dropped=scores.unscored)
        work.result["mean"] = scores.mean
        if scores.unscored:
            reasons = ", ".join(f"{count} {reason}" for reason, count in scores.unscored.items())
            work.warnings.append(f"Not scored: {reasons}.")
        shutil.rmtree(work.out / "batches", ignore_errors=True)


def scorer_models(scorer: str | ScorerSettings) -> dict[str, str]:
    """Return the models that a scorer asks, by the option that names them; a name alone asks none."""
    return {} if isinstance(scorer, str) else scorer.asked_models()


def scorer_identity(scorer: str | ScorerSettings) -> dict[str, Any]:
    """Return the content of the models that a scorer asks and no step made, and the versions of what runs them."""
    if isinstance(scorer, str):
        return {}
    found: dict[str, Any] = {
        option: model_identity(model, getattr(scorer, scorer.models[option]))
        for option, model in scorer.asked_models().items()
        if not model.startswith("$")
    }
    return found | scorer.versions()


def open_scorer(scorer: str | ScorerSettings, place: str, work: Work) -> tuple[str | ScorerSettings, str | None]:
    """Return a scorer with the folders of its models, and what names it in the scores.

    Args:
        scorer: As in the recipe.
        place: Where it stands in the step's options.
        work: The step at work.
    """
    models = scorer_models(scorer)
    if not models or isinstance(scorer, str):
        return scorer, None
    names = {field: work.sources.get(f"{place}.{field}", model_name(value)) for field, value in models.items()}
    folders = {field: work.model(f"{place}.{field}", value) for field, value in models.items()}
    return scorer.model_copy(update=folders), scorer.model_copy(update=names).label
