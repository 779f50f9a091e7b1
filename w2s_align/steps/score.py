"""score: an answer check gives every response a value, or null and the reason why it has none.

Reads responses (and the prompts behind them); writes data/scores.parquet (records.Score).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef
from w2s_align.scoring.settings import ScorerSettings
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class ScoreStep(Step):
    """Check the final answers of responses."""

    kind: Literal["score"] = "score"
    responses: ResponsesRef
    """What is scored."""
    scorer: str | ScorerSettings = "auto"
    """Name of the answer check, or {name: ..., options}. auto: the one that fits each prompt's task."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("math-verify", "reasoning-gym")

    def check(self) -> None:
        """Refuse a scorer that does not exist."""
        from w2s_align.scoring import scorer_settings

        scorer_settings(self.scorer)

    def run(self, work: Work) -> None:
        """Score, going on from the batches that an earlier try finished."""
        from w2s_align.scoring import score

        responses = work.inputs["responses"]
        scores = score(
            responses.prompts().table(),
            responses.table(),
            self.scorer,
            progress=work.progress,
            folder=work.out / "batches",
        )
        work.write(scores.table, "scores")
        work.counts.update(rows_in=scores.table.num_rows, kept=scores.scored, dropped=scores.unscored)
        work.result["mean"] = scores.mean
        if scores.unscored:
            reasons = ", ".join(f"{count} {reason}" for reason, count in scores.unscored.items())
            work.warnings.append(f"Not scored: {reasons}.")
