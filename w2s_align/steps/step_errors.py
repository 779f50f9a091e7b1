"""step_errors: how wrong sets of solutions are, by final answers and step by step, and which teacher to learn from.

Reads responses of several teachers, and who counted their wrong steps: the lab's own checker, or a judge step with
mode: steps; scores against gold answers where there are some. Writes the files of a page (reporting/article.py) and
data/steps.parquet (:data:`STEPS`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.artifacts.artifact import Artifact
    from w2s_align.evaluation.step_errors import StepErrors

Key = tuple[str, str, int]
"""Prompt, model and sample of a response."""


class StepErrorsStep(Step):
    """Count wrong final answers and wrong steps of sets of solutions, and rank the teachers behind them."""

    kind: Literal["step_errors"] = "step_errors"
    solutions: dict[str, ResponsesRef] = Field(min_length=1)
    """Sets of solutions by name, e.g. one of each teacher."""
    judged: list[ScoresRef] = []
    """Steps of kind judge with mode: steps that read them. Default: the lab's own checker."""
    gold: list[ScoresRef] = []
    """Scores against gold answers, for the share of wrong final answers."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "report"

    def run(self, work: Work) -> None:
        """Count, and write the page."""
        import pyarrow as pa

        from w2s_align.evaluation.step_errors import ranked, step_errors
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.teachers_page import teachers_article

        judged = self._judged(work)
        gold = self._gold(work)
        found: dict[str, StepErrors] = {}
        rows: list[tuple[Any, ...]] = []
        for name in self.solutions:
            source = work.inputs[f"solutions.{name}"]
            table = source.table()
            keys = list(zip(*(table[column].to_pylist() for column in ("prompt_id", "model", "sample")), strict=True))
            counts = [judged.get(key) for key in keys] if self.judged else _by_the_lab(source, table)
            if not any(counts):
                raise UserError(
                    f"No step of ${work.sources[f'solutions.{name}']} could be counted.",
                    why="The lab's checker counts steps of lab tasks alone; a judge must have read these responses."
                    if not self.judged
                    else "None of the judges in judged has read them.",
                    fix="Add a step {kind: judge, mode: steps, responses: [...]} and name it in judged.",
                )
            found[name] = step_errors(counts, [gold.get(key) for key in keys], seed=self.seed or 0)
            rows += [(name, *key, *(count or (None, None))) for key, count in zip(keys, counts, strict=True)]
        columns = [list(column) for column in zip(*rows, strict=True)]
        work.write(pa.table(columns, names=["set", "prompt_id", "model", "sample", "wrong", "steps"]), "steps")
        article = teachers_article(work.name, found, "a judge" if self.judged else "the lab's own checker")
        write_article(article, work.out)
        work.result.update({name: found[name].to_json() for name in ranked(found)})
        work.result["verdict"] = f"{article.headline}. {article.lede}"
        uncounted = sum(errors.uncounted for errors in found.values())
        dropped = {"steps not counted": uncounted} if uncounted else {}
        work.counts.update(rows_in=len(rows), kept=len(rows) - uncounted, dropped=dropped)
        work.warnings += article.caveats

    def _judged(self, work: Work) -> dict[Key, tuple[int, int] | None]:
        from w2s_align.scoring.judge_prompts import read_steps

        found: dict[Key, tuple[int, int] | None] = {}
        for index in range(len(self.judged)):
            artifact = work.inputs[f"judged.{index}"]
            if artifact.kind != "judge":
                raise UserError(
                    f"judged reads a judge, and ${work.sources[f'judged.{index}']} is a step of kind {artifact.kind}.",
                    fix="Name a step {kind: judge, mode: steps, ...}.",
                )
            for row in artifact.table("verdicts").to_pylist():
                counted = read_steps(row["text"]) if row["text"] else None
                found.setdefault((row["prompt_id"], row["model"], row["sample"]), counted)
        return found

    def _gold(self, work: Work) -> dict[Key, float | None]:
        if not self.gold:
            return {}
        table = join_tables([work.inputs[f"gold.{index}"].table() for index in range(len(self.gold))])
        rows: Any = (table[name].to_pylist() for name in ("prompt_id", "model", "sample", "value"))
        return {(prompt_id, model, sample): value for prompt_id, model, sample, value in zip(*rows, strict=True)}


def _by_the_lab(source: Artifact, table: pa.Table) -> list[tuple[int, int] | None]:
    """Return wrong steps and steps of every response; None where it is no response to a lab task."""
    from w2s_align.lab import TASKS, wrong_steps
    from w2s_align.records import Prompt, from_table

    prompts = {prompt.id: prompt for prompt in from_table(Prompt, source.prompts().table())}
    found: list[tuple[int, int] | None] = []
    for prompt_id, text in zip(table["prompt_id"].to_pylist(), table["text"].to_pylist(), strict=True):
        prompt = prompts.get(prompt_id)
        known = prompt is not None and prompt.task in TASKS and text is not None
        found.append(wrong_steps(prompt.task, prompt, text) if prompt is not None and known else None)
    return found
