"""judge: a model rates responses, says which are right, or compares them two by two in both orders.

Reads responses (and the prompts behind them, and the model of another step); writes data/scores.parquet
(records.Score, for pair rules and combine) and data/verdicts.parquet (every answer of the judge, scoring.VERDICTS).
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.recipe.schema import ArtifactType, Reads, ResponsesRef
from w2s_align.scoring.judge import DEFAULT_SAMPLING
from w2s_align.scoring.judge_prompts import JudgeSettings
from w2s_align.steps.asking import AskingStep
from w2s_align.steps.generate import GenerateResources
from w2s_align.steps.tables import join_tables, prompts_behind
from w2s_align.steps.work import Work


class JudgeStep(AskingStep, JudgeSettings):
    """Let a model judge responses: one by one, or two by two."""

    kind: Literal["judge"] = "judge"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The judge: a hub id, a folder, or $step."""
    responses: list[ResponsesRef] = Field(min_length=1)
    """What is judged, of all models together."""
    sampling: Sampling = DEFAULT_SAMPLING
    """How the judge's tokens are drawn; with n above 1 it is asked that often. Default: greedy, 512 tokens."""
    engine: Engine = Engine()
    """Engine, number format, context of the judge; {name: openai} asks a server."""
    resources: GenerateResources = GenerateResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "scores"

    def check(self) -> None:
        """Refuse options that do not fit together, a judge without log-probabilities where they are needed, and what a
        generation would refuse.
        """
        self.refuse_contradictions()
        if self.mode == "logprob" and self.engine.name not in ("auto", "transformers"):
            raise UserError(
                f"mode logprob cannot ask the engine {self.engine.name}.",
                why="It needs the log-probabilities of both A and B, which transformers computes from the weights.",
                fix="Leave engine.name out, or use mode: pairwise, which reads a written verdict.",
            )
        super().check()

    def identity(self) -> dict[str, Any]:
        """Return the engine with its version, the content of a model that no step made, and what it is asked."""
        return super().identity() | {"template": hashlib.sha256(self.text.encode()).hexdigest()[:16]}

    def run(self, work: Work) -> None:
        """Judge, going on from the answers that an earlier try got."""
        from w2s_align.scoring.judge import judge

        sources = [work.inputs[f"responses.{index}"] for index in range(len(self.responses))]
        judged = judge(
            work.model("model", self.model),
            prompts_behind(sources),
            join_tables([source.table() for source in sources]),
            JudgeSettings.model_validate(self.model_dump(include=set(JudgeSettings.model_fields))),
            **self.ways(work),
        )
        scores = judged.scores
        work.write(judged.verdicts, "verdicts")
        work.write(scores.table, "scores")
        work.counts.update(rows_in=scores.table.num_rows, kept=scores.scored, dropped=scores.unscored)
        work.result.update(mean=scores.mean, judge=dataclasses.asdict(judged.reliability))
        work.warnings += judged.reliability.warnings
        if judged.generation is not None:
            account = judged.generation.to_json()
            work.warnings += account.pop("warnings")
            work.result["asked"] = {name: account[name] for name in ("prompts", "prompt_tokens", "completion_tokens")}
            work.result["asked"] |= {name: account[name] for name in ("seconds", "engine", "first_prompt")}
        if scores.unscored:
            reasons = ", ".join(f"{count} {reason}" for reason, count in scores.unscored.items())
            work.warnings.append(f"Not scored: {reasons}.")
        shutil.rmtree(work.out / "asked", ignore_errors=True)  # every answer stands in verdicts.parquet
