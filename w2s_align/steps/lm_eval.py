"""lm_eval: a task of lm-eval on one model, with lm-eval's own code.

Writes data/scores.parquet, data/responses.parquet and data/prompts.parquet. `evaluate` makes one for each arm and
each of its tasks called lm_eval/<task>.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.identity import folder_digest, model_identity, model_name
from w2s_align.errors import UserError
from w2s_align.evaluation.lm_eval_names import check_lm_eval_task
from w2s_align.recipe.schema import ArtifactType, Reads
from w2s_align.steps.likelihood import LikelihoodResources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class LmEvalStep(Step):
    """Run a task of lm-eval."""

    kind: Literal["lm_eval"] = "lm_eval"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The model: a hub id, a folder, or $step."""
    task: str
    """Name of a task or a group of lm-eval."""
    include_path: str | None = None
    """Folder with task files of your own. They can name Python functions, which are run."""
    metric: str | None = None
    """<metric> or <metric>,<filter>. Default: the task's first."""
    shots: int | None = Field(None, ge=0)
    """Examples before each problem. Default: the task's own."""
    limit: int | None = Field(None, ge=1)
    """Take the first so many problems."""
    chat: bool = True
    """Use the model's chat template. Switching it moves scores by tens of points: report it."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest answer. Default: the task's own."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is the model's own."""
    resources: LikelihoodResources = LikelihoodResources()
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "scores"
    libraries: ClassVar[tuple[str, ...]] = ("lm-eval", "torch", "transformers")

    def check(self) -> None:
        """Refuse a folder of task files that is not there, and a task that lm-eval does not have.

        Raises:
            UserError: See above.
        """
        if self.include_path is not None and not Path(self.include_path).expanduser().is_dir():
            raise UserError(
                f"There is no folder {self.include_path}.", why="It should hold the files of lm-eval tasks."
            )
        check_lm_eval_task(self.task, self.include_path)

    def content(self) -> dict[str, Any]:
        """Leave out where the task files lie: their content is in the identity."""
        return {**super().content(), "include_path": None}

    def identity(self) -> dict[str, Any]:
        """Return the content of a model that no step made, and of the task files."""
        found: dict[str, Any] = (
            {} if self.model.startswith("$") else {"model": model_identity(self.model, self.revision)}
        )
        if self.include_path is not None:
            found["tasks"] = folder_digest(Path(self.include_path).expanduser())
        return found

    def process(self) -> str | None:
        """Share a process with other tasks: importing lm-eval takes long."""
        return "lm_eval"

    def run(self, work: Work) -> None:
        """Run lm-eval and keep its verdicts."""
        from w2s_align.evaluation.lm_eval_bridge import run_lm_eval

        found = run_lm_eval(
            self.task,
            work.model("model", self.model),
            work.sources.get("model", model_name(self.model)),
            include_path=self.include_path,
            metric=self.metric,
            shots=self.shots,
            limit=self.limit,
            chat=self.chat,
            revision=self.revision,
            dtype=self.dtype,
            batch_size=self.resources.batch_size,
            max_tokens=self.max_tokens,
            seed=self.seed or 0,
        )
        work.write(found.prompts, "prompts")
        work.write(found.responses, "responses")
        work.write(found.scores, "scores")
        missing = found.scores["value"].null_count
        work.counts.update(rows_in=found.scores.num_rows, kept=found.scores.num_rows - missing, unscored=missing)
        numbers = {t: {k: v for k, v in r.items() if isinstance(v, int | float)} for t, r in found.reported.items()}
        work.result.update(reported=numbers, versions=found.version)
