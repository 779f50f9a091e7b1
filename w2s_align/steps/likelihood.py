"""likelihood: how likely a model finds the given answers of each prompt (mc2 of TruthfulQA).

Reads prompts with options and a model; writes data/scores.parquet and, with the likeliest option,
data/responses.parquet.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.identity import model_identity, model_name
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Reads, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class LikelihoodResources(Resources):
    """What the step may use of the machine."""

    batch_size: int = Field(8, ge=1)
    """Answers that are rated at the same time."""


class Likelihood(Step):
    """Rate given answers by their probability under a model."""

    kind: Literal["likelihood"] = "likelihood"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The model that rates: a hub id, a folder, or $step."""
    prompts: PromptsRef
    """Prompts with options and labels."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is the model's own (float32 on a CPU)."""
    resources: LikelihoodResources = LikelihoodResources()
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def identity(self) -> dict[str, Any]:
        """Return the content of a model that no step made."""
        return {} if self.model.startswith("$") else {"model": model_identity(self.model, self.revision)}

    def process(self) -> str | None:
        """Share a process with other ratings where there is no GPU memory to give back."""
        return "likelihood"

    def run(self, work: Work) -> None:
        """Rate and write."""
        from w2s_align.evaluation.multiple_choice import rate_choices

        responses, scores = rate_choices(
            work.inputs["prompts"].table(),
            work.model("model", self.model),
            work.sources.get("model", model_name(self.model)),
            options={"revision": self.revision, "dtype": self.dtype, "batch_size": self.resources.batch_size},
            progress=work.progress,
        )
        work.write(responses, "responses")
        work.write(scores, "scores")
        missing = scores["value"].null_count
        work.counts.update(rows_in=scores.num_rows, kept=scores.num_rows - missing, unscored=missing)
