"""preference: a judge compares a model's answers with reference answers, in both orders (AlpacaEval).

Reads prompts, responses and the judge, and the reference from the prompts or from other responses; writes
data/responses.parquet (the answers as they were), data/scores.parquet (1 where an answer is preferred) and
data/verdicts.parquet (every answer of the judge). `evaluate` makes one for each arm of a judged task by itself.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import Annotated, Any, ClassVar, Literal

from w2s_align.artifacts.identity import model_name
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Reads, Resources, ResponsesRef
from w2s_align.scoring.judge import DEFAULT_SAMPLING
from w2s_align.steps.generate import GenerateResources, shared_engines
from w2s_align.steps.judge import JudgeStep
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Preference(Step):
    """Let a judge say how often a model's answers are preferred to reference answers."""

    kind: Literal["preference"] = "preference"
    judge: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The judge: a hub id, a folder, or $step."""
    prompts: PromptsRef
    """What was asked; its meta has the reference answers, where `reference` names no others."""
    responses: ResponsesRef
    """The answers that are judged."""
    reference: ResponsesRef | None = None
    """Answers to compare with: the first of each prompt. Default: those in the meta of the prompts."""
    template: str | None = None
    """What the judge is asked, with {prompt}, {first} and {second}. Default: this toolkit's own wording."""
    sampling: Sampling = DEFAULT_SAMPLING
    """How the judge's tokens are drawn; with n above 1 it is asked that often."""
    engine: Engine = Engine()
    """Engine, number format, context of the judge; {name: openai} asks a server."""
    resources: GenerateResources = GenerateResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "scores"
    version: ClassVar[int] = 2

    def _judging(self) -> JudgeStep:
        """Return the pairwise judge that this step is: engine, model and prompt are known there."""
        return JudgeStep(
            model=self.judge,
            mode="pairwise",
            responses=[self.responses],
            template=self.template,
            sampling=self.sampling,
            engine=self.engine,
            seed=self.seed,
            resources=self.resources,
        )

    def check(self) -> None:
        """Refuse what a judge would refuse."""
        self._judging().check()

    def claims(self) -> Resources:
        """Take what a generation takes."""
        return self._judging().claims()

    def identity(self) -> dict[str, Any]:
        """Return the engine with its version, the judge's content where no step made it, and what it is asked."""
        return self._judging().identity()

    def process(self) -> str | None:
        """Share a process with generations."""
        return self._judging().process()

    def run(self, work: Work) -> None:
        """Judge, going on from the answers that an earlier try got."""
        import pyarrow.compute as pc

        from w2s_align.evaluation.preference import prefer, references_of

        problems, responses = work.inputs["prompts"].table(), work.inputs["responses"].table()
        if self.reference is None:
            references = references_of(problems)
        else:
            first = work.inputs["reference"].table().filter(pc.field("sample") == 0)
            pairs = zip(first["prompt_id"].to_pylist(), first["text"].to_pylist(), strict=True)
            references = {problem: text for problem, text in pairs if text is not None}
        found = prefer(
            work.model("judge", self.judge),
            problems,
            responses,
            references,
            template=self.template,
            judge_name=work.sources.get("judge", model_name(self.judge)),
            sampling=self.sampling,
            out=work.out / "asked",
            seed=self.seed or 0,
            engine=self.engine,
            resources=self.resources,
            engines=shared_engines(),
            progress=work.progress,
        )
        work.write(responses, "responses")
        work.write(found.scores, "scores")
        work.write(found.verdicts, "verdicts")
        unscored = found.scores["value"].null_count
        kept = found.scores.num_rows - unscored
        work.counts.update(rows_in=found.scores.num_rows, kept=kept, unscored=unscored, **found.outcomes)
        if found.reliability is not None:
            work.result["judge"] = dataclasses.asdict(found.reliability)
            work.warnings += found.reliability.warnings
        if found.asked is not None:
            work.warnings += found.asked["warnings"]
            names = ("prompts", "prompt_tokens", "completion_tokens", "seconds", "engine", "first_prompt")
            work.result["asked"] = {name: found.asked[name] for name in names}
        shutil.rmtree(work.out / "asked", ignore_errors=True)  # every answer stands in verdicts.parquet
