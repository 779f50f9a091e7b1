"""diagnose: what a contrast of weak models would make of a student, told from the student's own responses.

Reads responses of the student with their scores, and the models; writes report.html, report.md, report.json
and plots/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.identity import model_identity
from w2s_align.families.fusion import Fusion
from w2s_align.recipe.schema import MODEL, ArtifactType, ModelRef, Reference, Resources, ResponsesRef, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

CUT = "cut at its limit"
"""Why a response is left out that has no end: the student never wrote the end mark that it would be given."""


class DiagnoseResources(Resources):
    """What the step may use of the machine."""

    batch_size: int = Field(8, ge=1)
    """Responses per forward pass; changes nothing in what is found."""


class Diagnose(Step):
    """Predict, before any training, the accuracy of a student shifted by contrasts of weak models."""

    kind: Literal["diagnose"] = "diagnose"
    model: ModelRef
    """The student: a hub id, a folder, or $step."""
    responses: ResponsesRef
    """Its own responses, drawn at temperature 1 without top_p, top_k or penalties; several to a prompt."""
    gold: ScoresRef
    """What each response is worth: scores against gold answers."""
    fusion: Fusion
    """The contrasts: {contrasts: [{plus: $weak, minus: $weaker}]}, as for distill and for decoding."""
    factors: Annotated[list[float], Field(min_length=1)] = [0.5, 1, 2]
    """What the alphas of the contrasts are multiplied by, a prediction for each."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the models; auto is their own (float32 on a CPU)."""
    resources: DiagnoseResources = DiagnoseResources()
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "report"
    shows_recipe: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def references(self) -> Iterator[Reference]:
        """Yield the student, its responses, and the models of the contrasts."""
        yield from super().references()
        for place, model in self.fusion.models().items():
            yield Reference(("fusion", *place.split(".")), model, MODEL)

    def identity(self) -> dict[str, Any]:
        """Return the content of the models that no step made."""
        models = {"model": self.model} | {f"fusion.{place}": model for place, model in self.fusion.models().items()}
        return {place: model_identity(model) for place, model in models.items() if not model.startswith("$")}

    def process(self) -> str | None:
        """Share a process with other ratings where there is no GPU memory to give back."""
        return "likelihood"

    def run(self, work: Work) -> None:
        """Compare, predict, and write the page."""
        import pyarrow.compute as pc

        from w2s_align.evaluation.foresight import Prediction, direction, predict
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.diagnosis_page import diagnosis_article
        from w2s_align.scoring.fused_ratio import fused_ratios

        table = work.inputs["responses"].table()
        whole = table.filter(pc.equal(table["finish_reason"], "stop"))
        here = {place: work.model(f"fusion.{place}", model) for place, model in self.fusion.models().items()}
        found = fused_ratios(
            work.inputs["responses"].prompts().table(),
            whole,
            work.model("model", self.model),
            self.fusion.with_models(here),
            self.factors,
            batch_size=self.resources.batch_size,
            dtype=self.dtype,
            progress=work.progress,
        )
        scores = work.inputs["gold"].table()
        worth = dict(
            zip(
                zip(scores["prompt_id"].to_pylist(), scores["sample"].to_pylist(), strict=True),
                scores["value"].to_pylist(),
                strict=True,
            )
        )
        keys = list(zip(whole["prompt_id"].to_pylist(), whole["sample"].to_pylist(), strict=True))
        skipped = found.skipped
        skipped[CUT] += table.num_rows - whole.num_rows
        rows = []
        for row, key in enumerate(keys):
            if found.deltas[row] is None:
                continue
            if worth.get(key) is None:
                skipped["unscored"] += 1
                continue
            rows.append(row)
        problems, right = [keys[row][0] for row in rows], [worth[keys[row]] for row in rows]
        seed = self.seed or 0
        student: Prediction = predict(problems, right, [0.0] * len(rows), 0.0, seed)
        predictions = [
            predict(problems, right, [ratios[row] or 0.0 for row in rows], factor, seed)
            for factor, ratios in found.log_ratios.items()
        ]
        told = direction(
            problems, right, [found.deltas[row] or 0.0 for row in rows], [found.tokens[row] or 0 for row in rows], seed
        )
        left_out = {str(reason): n for reason, n in skipped.items() if n}
        article = diagnosis_article(work.recipe["name"], student, predictions, told, left_out, work.recipe["text"])
        write_article(article, work.out)
        work.counts.update(rows_in=table.num_rows, kept=len(rows), dropped=left_out)
        work.result["verdict"] = f"{article.headline}. {article.lede}"
        work.result["predictions"] = article.numbers["predictions"]
