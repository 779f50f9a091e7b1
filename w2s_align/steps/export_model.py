"""export_model: a model as one GGUF file, to try it in a local app.

Reads a model; writes <step>.gguf.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

from w2s_align.artifacts.identity import model_identity, model_name
from w2s_align.recipe.schema import ArtifactType, Reads, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class ExportModel(Step):
    """Write a model as a GGUF file for llama.cpp, Ollama or LM Studio, and compare what it holds."""

    kind: Literal["export_model"] = "export_model"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The model: $step (a trained one is merged already), a folder, or a hub id. Llama, Qwen2 and Qwen3 models."""
    precision: Literal["f32", "f16", "q8_0"] = "f16"
    """How matrices are stored: 32 or 16 bits, or 8 bits with a scale for each 32 weights."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "file"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("gguf",)

    def identity(self) -> dict[str, Any]:
        """Return the content of a model that no step made."""
        return {} if self.model.startswith("$") else {"model": model_identity(self.model)}

    def run(self, work: Work) -> None:
        """Write the file and compare it with the model."""
        from w2s_align.training.gguf_export import export_gguf

        name = work.sources.get("model", model_name(self.model)).replace("/", ".")
        made = export_gguf(work.model("model", self.model), work.out / f"{name}.gguf", self.precision, name=name)
        work.result.update(asdict(made) | {"file": f"{name}.gguf"})
        work.counts["kept"] = made.tensors
